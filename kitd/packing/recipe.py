"""What a project asks for: its Kitfile, read and checked, and the layers that come of it."""

import contextlib
import errno
import hashlib
import os
import posixpath
import time
from collections.abc import Callable
from dataclasses import dataclass

from kitd.caller import Caller
from kitd.errors import printable
from kitd.modelkit.chain import layer_paths, merge
from kitd.modelkit.config_blob import parse_config
from kitd.modelkit.dialect import Dialect
from kitd.modelkit.errors import UnsupportedKitError
from kitd.modelkit.ignore import KITIGNORE_NAME, MAX_KITIGNORE_BYTES, IgnoreRules
from kitd.modelkit.kitfile import KITFILE_NAMES, Kitfile, model_reference, parse_kitfile
from kitd.modelkit.kitfile_yaml import MAX_KITFILE_BYTES
from kitd.modelkit.media_type import MEDIA_COMPRESSION, LayerFormat
from kitd.modelkit.path import clean_path
from kitd.modelkit.plan import LayerPlan, Selection, plan_layers
from kitd.modelkit.validation import require_valid
from kitd.packing.order import ParentKit, Project
from kitd.packing.reader import require_readable_files
from kitd.packing.scan import (
    Authored,
    Entry,
    InputError,
    MissingInputError,
    Tree,
    Watch,
    fingerprint,
    layer_key,
    parent_beneath,
    read_authored,
    require_paths,
    scan,
)

AskParents = Callable[[str, tuple[int, ...]], tuple[ParentKit, ...]]
"""Returns the kit that somebody's Kitfile refers to, and all that it builds on, given who may have
written that. Raises `KitdError`."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is to be packed and how, before anything but the Kitfile has been looked at."""

    kitfile: Kitfile
    dialect: Dialect
    compression: str
    plans: tuple[LayerPlan, ...]
    rules: IgnoreRules
    warnings: tuple[str, ...]
    content: bytes
    """The Kitfile as it is."""
    digest: str
    """The Kitfile, the ignore rules and how the project is packed, in one word."""
    reader: Caller | None
    """On whose behalf it is read: see `Project`."""
    parents: tuple[str, ...]
    """References to the kits that it builds on."""
    foreign: tuple[bytes, ...]
    """Paths of what the parents have, and of what is remote: no layer takes these."""

    def selection(self) -> Selection:
        """Return the decisions for one walk."""
        return Selection(self.plans, self.rules, self.foreign)


@dataclass(frozen=True, slots=True)
class Inputs:
    """A project as one walk saw it: what each layer takes, and each layer's key."""

    tree: Tree
    layers: tuple[tuple[Entry, ...], ...]
    keys: tuple[str, ...]
    fingerprint: str
    looked_ns: int
    """When the walk began."""


def read_small(root: int, path: str, max_bytes: int, reader: Caller | None) -> Authored | None:
    """Return the content of a Kitfile or .kitignore and its authors, or None if there is none.

    Raises `InputError`.
    """
    try:
        authored = read_authored(root, path, max_bytes + 1, reader)
    except FileNotFoundError:
        return None
    except OSError as error:
        linked = error.errno in (errno.ELOOP, errno.ENOTDIR)
        raise InputError(
            f"cannot read {printable(path)}: {error.strerror}",
            hint="links are not followed: put the file itself there" if linked else None,
        ) from error
    if len(authored.content) > max_bytes:
        raise InputError(f"{printable(path)} is larger than {max_bytes} bytes")
    return authored


def _read_kitfile(root: int, project: Project) -> tuple[str, Authored]:
    names = KITFILE_NAMES if project.kitfile is None else (project.kitfile,)
    for name in names:
        authored = read_small(root, name, MAX_KITFILE_BYTES, project.reader)
        if authored is not None:
            return name, authored
    missing = names[0] if names[0].startswith("/") else f"{names[0]} in {project.root}"
    raise MissingInputError(
        f"there is no {printable(missing)}",
        hint="write one: the README has a small example"
        if project.kitfile is None
        else "name one that is there: pack --kitfile, or kitfile: of the project",
    )


def _watch_settings(root: int, project: Project, watch: Watch) -> None:
    """Watch where the Kitfile and .kitignore are, be they there or not."""
    watch(root)
    path = project.kitfile or ""
    with contextlib.suppress(OSError):
        if path.startswith("/"):
            handle = os.open(posixpath.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                watch(handle)
            finally:
                os.close(handle)
        elif "/" in path:
            with parent_beneath(root, path, project.reader) as (directory, _):
                watch(directory)


def read_recipe(
    root: int, project: Project, ask_parents: AskParents, *, watch: Watch | None = None
) -> Recipe:
    """Read and check what a project asks for.

    Raises `MissingInputError`, `InputError`, `KitfileError`, `UnsupportedKitError`, and what
    `ask_parents` does.
    """
    if watch is not None:
        _watch_settings(root, project, watch)
    name, authored = _read_kitfile(root, project)
    content = authored.content
    dialect = Dialect(project.dialect)
    if project.compression not in MEDIA_COMPRESSION:
        raise UnsupportedKitError(
            f"layers cannot be compressed with {project.compression[:40]!r}",
            hint=f"set modelkit.compression to one of {', '.join(MEDIA_COMPRESSION)}",
        )
    kitfile = parse_kitfile(content, name=name)
    warnings = require_valid(kitfile, dialect, name=name)
    plans = plan_layers(
        kitfile,
        dialect,
        layer_format=LayerFormat(project.layer_format),
        compression=MEDIA_COMPRESSION[project.compression],
    )
    parents: tuple[ParentKit, ...] = ()
    if reference := model_reference(kitfile):
        parents = ask_parents(str(reference), tuple(sorted(authored.authors)))
    foreign = _foreign(kitfile, parents, dialect, name)
    rules = read_small(root, KITIGNORE_NAME, MAX_KITIGNORE_BYTES, project.reader)
    ignored = b"" if rules is None else rules.content
    settings = [hashlib.sha256(ignored).hexdigest()]
    if parents:
        settings += [parent.reference for parent in parents]
        settings.append(hashlib.sha256(b"\0".join(foreign)).hexdigest())
    return Recipe(
        kitfile=kitfile,
        dialect=dialect,
        compression=project.compression,
        plans=plans,
        rules=IgnoreRules.parse(ignored),
        warnings=warnings,
        content=content,
        digest=fingerprint(project, content, settings),
        reader=project.reader,
        parents=tuple(parent.reference for parent in parents),
        foreign=foreign,
    )


def _foreign(
    kitfile: Kitfile, parents: tuple[ParentKit, ...], dialect: Dialect, name: str
) -> tuple[bytes, ...]:
    """Return the paths that no layer takes. Raises `KitfileError` where kits do not go together."""
    kits = [parse_config(parent.config.encode()) for parent in parents]
    if kits:
        require_valid(merge(kitfile, kits), dialect, name=f"{name} with its parents")
    remote = {clean_path(each.path) for each in kitfile.datasets if each.remote_path}
    return tuple(path.encode() for path in sorted(remote.union(layer_paths(kits))))


def look(root: int, project: Project, recipe: Recipe, *, watch: Watch | None = None) -> Inputs:
    """Walk over a project. Raises `MissingInputError`, `InputError`, `InputChangedError`."""
    looked_ns = time.time_ns()
    tree = scan(root, recipe.selection(), watch=watch, reader=project.reader)
    # Only now: the walk has watched the directories in which a missing path may yet appear.
    require_paths(root, recipe.plans, project.reader)
    if project.reader is not None:
        require_readable_files(root, tree.entries, project.reader)
    layers: list[list[Entry]] = [[] for _ in recipe.plans]
    for entry in tree.entries:
        for index in entry.layers:
            layers[index].append(entry)
    keys = tuple(
        layer_key(plan, project.compression, taken)
        for plan, taken in zip(recipe.plans, layers, strict=True)
    )
    return Inputs(
        tree,
        tuple(map(tuple, layers)),
        keys,
        fingerprint(project, recipe.content, keys),
        looked_ns,
    )
