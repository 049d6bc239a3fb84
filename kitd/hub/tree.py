"""What a hub says is in a repository, and which names it may have. Pure.

Answers have the shape of Hugging Face's `/api/<type>/<repo>/tree/<revision>`: a list of objects
with `type`, `path`, `size`, `oid` (git's SHA-1 of a blob) and, from LFS, `lfs.oid` (SHA-256).
"""

import enum
import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1, sha256
from typing import TYPE_CHECKING

import msgspec

from kitd.errors import printable
from kitd.hub.error import HubError, InvalidHubTreeError

if TYPE_CHECKING:
    from hashlib import _Hash

MAX_FILES = 20_000
"""As many as a manifest may name layers."""
MAX_ENTRIES = 2 * MAX_FILES
"""Files, and the directories that are listed with them."""
MAX_BYTES = 64 * 2**40
"""Of all files together."""
CHOOSE_HINT = "choose fewer with --include and --exclude"
MAX_PATH_BYTES = 1024
MAX_NAME_BYTES = 255
MAX_DEPTH = 48

_REPOSITORY = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w./+-]{0,199}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_LICENCE = re.compile(r"license:([A-Za-z0-9.+-]{1,64})")


class RepositoryType(enum.StrEnum):
    """What a hub keeps in a repository."""

    MODEL = "model"
    DATASET = "dataset"


class HubSource(msgspec.Struct, frozen=True, kw_only=True, tag_field="tool", tag="hf"):
    """A revision of a repository: `org/name` and a branch, tag or commit. Made by `hub_source`."""

    type: RepositoryType
    repository: str
    revision: str

    def __str__(self) -> str:
        prefix = "" if self.type is RepositoryType.MODEL else "datasets/"
        return f"{prefix}{self.repository}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A file of a repository, and what its content has to be. One of the two hashes is there."""

    path: str
    size: int
    blob: str
    """Git's SHA-1; "" where it is that of an LFS pointer and says nothing of the content."""
    sha256: str
    is_executable: bool = False

    @property
    def identity(self) -> str:
        """A name that only equal contents share."""
        return self.sha256 or self.blob

    def hasher(self) -> "_Hash":
        """Return what the content has to be fed to for `identity`."""
        if self.sha256:
            return sha256()
        return sha1(b"blob %d\0" % self.size, usedforsecurity=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a repository holds at a commit."""

    commit: str
    files: tuple[HubFile, ...]
    licence: str
    """As the hub has it; "" where it says none."""
    notes: tuple[str, ...] = ()
    """What is to be said about what is not among the files."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list of files; `entries` counts the directories on it, too."""

    files: tuple[HubFile, ...]
    entries: int


@dataclass(frozen=True, slots=True)
class Choice:
    """Of the files of a repository what some pattern includes, if there are any, and none excludes.

    In patterns `*` stands for any characters, also `/`, as in the tools of the hub.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def takes(self, path: str) -> bool:
        """Whether a file is chosen."""
        is_included = not self.include or _matches(path, self.include)
        return is_included and not _matches(path, self.exclude)

    def of(self, files: Sequence[HubFile]) -> list[HubFile]:
        """Return the files that are chosen."""
        return [file for file in files if self.takes(file.path)]


EVERYTHING = Choice()


class _Lfs(msgspec.Struct, frozen=True):
    oid: str
    size: int


class _Entry(msgspec.Struct, frozen=True):
    type: str
    path: str
    size: int = 0
    oid: str = ""
    lfs: _Lfs | None = None


class _Revision(msgspec.Struct, frozen=True):
    sha: str
    tags: tuple[str, ...] = ()


_ENTRIES = msgspec.json.Decoder(list[_Entry])
_REVISIONS = msgspec.json.Decoder(_Revision)


def hub_source(repository: str, revision: str | None) -> HubSource:
    """Return a source as people write it: `org/name` or `datasets/org/name`.

    Raises `InvalidHubTreeError`.
    """
    kind, name = RepositoryType.MODEL, repository
    if repository.startswith("datasets/"):
        kind, name = RepositoryType.DATASET, repository.removeprefix("datasets/")
    revision = revision or "main"
    if _REPOSITORY.fullmatch(name) is None or ".." in name or "--" in name:
        raise InvalidHubTreeError(
            f"{repository[:120]!r} is not the name of a repository of a hub",
            hint="write it like org/name, or datasets/org/name",
        )
    if _REVISION.fullmatch(revision) is None or ".." in revision:
        raise InvalidHubTreeError(f"{revision[:120]!r} is not the name of a revision")
    return HubSource(type=kind, repository=name, revision=revision)


def parse_revision(content: bytes) -> tuple[str, str]:
    """Return the commit that a revision names, and the licence. Raises `HubError`."""
    try:
        revision = _REVISIONS.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HubError(f"the hub's answer about a revision cannot be read: {error}") from error
    if _COMMIT.fullmatch(revision.sha) is None:
        raise HubError(f"the hub names no commit but {printable(revision.sha[:80])}")
    licences = [match[1] for tag in revision.tags if (match := _LICENCE.fullmatch(tag))]
    known = [each for each in licences if each not in ("other", "unknown")]
    return revision.sha, known[0] if len(known) == 1 else ""


def parse_page(content: bytes) -> Page:
    """Return what is on one page. Raises `HubError`, `InvalidHubTreeError`."""
    try:
        entries = _ENTRIES.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HubError(f"the hub's list of files cannot be read: {error}") from error
    files = tuple(_file(entry) for entry in entries if entry.type != "directory")
    return Page(files, len(entries))


def _file(entry: _Entry) -> HubFile:
    path = printable(entry.path[:200])
    if entry.type != "file":
        raise InvalidHubTreeError(f"{path} is neither a file nor a directory")
    size = entry.size if entry.lfs is None else entry.lfs.size
    if not 0 <= size <= MAX_BYTES:
        raise InvalidHubTreeError(f"{path} cannot have {size} bytes")
    digest, blob = "", entry.oid
    if entry.lfs is not None:
        matched = _SHA256.fullmatch(entry.lfs.oid)
        digest, blob = (matched[1] if matched else ""), ""
    if not digest and _COMMIT.fullmatch(blob) is None:
        raise InvalidHubTreeError(f"the hub gives no hash of {path}")
    return HubFile(path=entry.path, size=size, blob=blob, sha256=digest)


def check_tree(files: Sequence[HubFile]) -> None:
    """Check that files can be written side by side. Raises `InvalidHubTreeError`."""
    if len(files) > MAX_FILES:
        raise InvalidHubTreeError(
            f"the repository has more than {MAX_FILES} files", hint=CHOOSE_HINT
        )
    if sum(file.size for file in files) > MAX_BYTES:
        raise InvalidHubTreeError(
            f"the repository has more than {MAX_BYTES} bytes", hint=CHOOSE_HINT
        )
    seen: set[str] = set()
    directories: set[str] = set()
    for file in files:
        if problem := _name_problem(file.path):
            raise InvalidHubTreeError(f"{printable(file.path[:200])} {problem}")
        if file.path in seen:
            raise InvalidHubTreeError(f"{printable(file.path[:200])} is listed twice")
        seen.add(file.path)
        parts = file.path.split("/")
        directories.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    if clash := seen & directories:
        raise InvalidHubTreeError(f"{printable(min(clash)[:200])} is a file and a directory")


def _name_problem(path: str) -> str | None:
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "is not a name in UTF-8"
    parts = path.split("/")
    if not path or any(part in ("", ".", "..") for part in parts):
        return "leads out of the repository or nowhere"
    if any(part.lower() == ".git" for part in parts):
        return "lies in a directory of git's"
    if not path.isprintable() or "\\" in path:
        return "holds characters that no name should have"
    if len(encoded) > MAX_PATH_BYTES or len(parts) > MAX_DEPTH:
        return "is too long or too deep"
    return "is too long" if any(len(part.encode()) > MAX_NAME_BYTES for part in parts) else None


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(
        fnmatch.fnmatchcase(path, f"{pattern}*" if pattern.endswith("/") else pattern)
        for pattern in patterns
    )
