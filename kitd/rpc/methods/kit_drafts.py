"""`kits.generate`: a Kitfile for a directory that the caller has listed with his own rights."""

from collections.abc import Mapping
from functools import partial

import msgspec

from kitd.blocking import run_blocking
from kitd.licence import recognize_licence
from kitd.modelkit.generate import (
    Draft,
    ListedDirectory,
    ListedFile,
    Listing,
    generate,
    is_licence,
)
from kitd.modelkit.ignore import IgnoreRules
from kitd.modelkit.kitfile import Package
from kitd.modelkit.validation import require_valid
from kitd.modelkit.yaml_writer import kitfile_to_yaml
from kitd.rpc.error import InvalidParamsError
from kitd.rpc.fairness import Cost
from kitd.rpc.method import Context, Method, Params, method
from kitd.rpc.methods.services import Services
from kitd.rpc.peer import Role

MAX_IGNORE_CHARS = 16 << 10
"""Patterns are tried on every name, here and not in a worker's process."""
MAX_LICENCES = 4
"""Files whose texts are compared with those that are known."""


class WireFile(Params, frozen=True):
    """A file; `size` is in bytes."""

    name: str
    size: int


class WireDirectory(Params, frozen=True, kw_only=True):
    """A directory below the root: its files, and the names of its directories.

    Where `count` says that it has more than 1000 files, one of each kind stands for all.
    """

    name: str
    files: tuple[WireFile, ...] = ()
    directories: tuple[str, ...] = ()
    count: int = 0


class GenerateParams(Params, frozen=True, kw_only=True):
    """What is in a directory and directly below it, without links and special files.

    `licences` are the texts of files in the root that begin like one, `ignore` is its .kitignore.
    """

    files: tuple[WireFile, ...] = ()
    directories: tuple[WireDirectory, ...] = ()
    licences: Mapping[str, str] = msgspec.field(default_factory=dict)
    ignore: str = ""
    name: str = ""
    description: str = ""
    authors: tuple[str, ...] = ()


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """A Kitfile as YAML; what it leaves out, what .kitignore should name, what it cannot name."""

    yaml: str
    licence: str
    left_out: tuple[str, ...]
    ignore_lines: tuple[str, ...]
    unusable: tuple[str, ...]
    warnings: tuple[str, ...]


async def generate_kitfile(context: Context[Services], params: GenerateParams) -> Generated:
    """Write a Kitfile for what is in a directory, as `kit init` does."""
    return await run_blocking(partial(_generated, context.services, params))


def _generated(services: Services, params: GenerateParams) -> Generated:
    listing = Listing(
        files=_files(params.files),
        directories=tuple(
            ListedDirectory(
                name=_name(directory.name),
                files=_files(directory.files),
                directories=tuple(map(_name, directory.directories)),
                count=max(directory.count, len(directory.files)),
            )
            for directory in params.directories
        ),
    )
    if len(params.ignore) > MAX_IGNORE_CHARS:
        raise InvalidParamsError(f"the .kitignore has more than {MAX_IGNORE_CHARS} characters")
    rules = IgnoreRules.parse(params.ignore.encode("utf-8", "replace"))
    licence = _licence(params.licences)
    package = Package(
        name=params.name,
        description=params.description,
        authors=tuple(filter(None, params.authors)),
    )
    draft: Draft = generate(
        listing,
        package,
        services.dialect,
        licence=licence,
        is_ignored=lambda path: rules.matches(path.encode("utf-8", "replace")),
    )
    warnings = require_valid(draft.kitfile, services.dialect)
    return Generated(
        yaml=kitfile_to_yaml(draft.kitfile),
        licence=licence,
        left_out=draft.left_out,
        ignore_lines=draft.ignore_lines,
        unusable=draft.unusable,
        warnings=warnings,
    )


def _licence(texts: Mapping[str, str]) -> str:
    """Return the first licence that is known, of files in the order of their names."""
    names = sorted(name for name in texts if is_licence(name))[:MAX_LICENCES]
    return next(filter(None, (recognize_licence(texts[name]) for name in names)), "")


def _files(files: tuple[WireFile, ...]) -> tuple[ListedFile, ...]:
    return tuple(ListedFile(_name(file.name), max(file.size, 0)) for file in files)


def _name(name: str) -> str:
    """Return a name as it can stand in a directory. Raises `InvalidParamsError`."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise InvalidParamsError(f"{name[:80]!r} is not the name of a file")
    return name


METHODS: tuple[Method[Services], ...] = (
    method(
        "kits.generate", Role.READ, GenerateParams, Generated, generate_kitfile, cost=Cost.OUTSIDE
    ),
)
