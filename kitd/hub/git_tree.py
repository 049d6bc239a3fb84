"""What a commit of git holds, and which of its files are pointers to LFS. Pure.

Formats: git-ls-tree(1) with `-r -z -l`; the pointer files of Git LFS (its specification, "The
Pointer"). Nothing is checked out: what a repository would have git run or write is read as data.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kitd.errors import printable
from kitd.hub.error import InvalidHubTreeError
from kitd.hub.tree import CHOOSE_HINT, EVERYTHING, MAX_ENTRIES, MAX_FILES, Choice, HubFile

MAX_POINTER_BYTES = 1023
"""LFS itself reads no larger file as a pointer."""

_ENTRY = re.compile(rb"([0-7]{6}) (blob|commit) ([0-9a-f]{40}) +(\d{1,19}|-)\t(.+)", re.DOTALL)
_VERSIONS = (
    b"version https://git-lfs.github.com/spec/v1",
    b"version https://hawser.github.com/spec/v1",
)
_OID = re.compile(rb"oid sha256:([0-9a-f]{64})")
_SIZE = re.compile(rb"size (\d{1,19})")
_OWN = frozenset({".gitattributes", ".gitignore", ".gitmodules", ".lfsconfig"})
"""What is meant for git and not for who uses the files."""


@dataclass(frozen=True, slots=True)
class GitTree:
    """The files of a commit, and what is not brought along: links and other repositories."""

    files: tuple[HubFile, ...]
    links: tuple[str, ...]
    submodules: tuple[str, ...]


def parse_tree(content: bytes, choice: Choice = EVERYTHING) -> GitTree:
    """Return what is chosen of what `git ls-tree` printed. Raises `InvalidHubTreeError`."""
    files: list[HubFile] = []
    links: list[str] = []
    submodules: list[str] = []
    for line in content.split(b"\0"):
        if not line:
            continue
        found = _ENTRY.fullmatch(line)
        if found is None:
            raise InvalidHubTreeError("git lists what cannot be read")
        mode, _, blob, size, name = found.groups()
        try:
            path = name.decode()
        except UnicodeDecodeError:
            raise InvalidHubTreeError(f"{printable(name[:200])} is not a name in UTF-8") from None
        if not choice.takes(path):
            continue
        if mode == b"160000":
            submodules.append(path)
        elif mode == b"120000":
            links.append(path)
        elif size == b"-":
            raise InvalidHubTreeError(f"git does not say how large {printable(path[:200])} is")
        elif path.rpartition("/")[2] not in _OWN:
            file = HubFile(
                path=path,
                size=int(size),
                blob=blob.decode(),
                sha256="",
                is_executable=mode == b"100755",
            )
            files.append(file)
        if len(files) > MAX_FILES or len(files) + len(links) + len(submodules) > MAX_ENTRIES:
            raise InvalidHubTreeError(
                f"the repository has more than {MAX_FILES} files, or {MAX_ENTRIES} entries",
                hint=CHOOSE_HINT,
            )
    return GitTree(tuple(files), tuple(links), tuple(submodules))


def may_be_pointers(files: Sequence[HubFile]) -> tuple[HubFile, ...]:
    """Return the files that have to be looked into."""
    return tuple(file for file in files if 0 < file.size <= MAX_POINTER_BYTES)


def parse_pointer(content: bytes) -> tuple[str, int] | None:
    """Return SHA-256 and size of what a pointer stands for; None for any other file."""
    version, *lines = content.split(b"\n")
    if version not in _VERSIONS or len(content) > MAX_POINTER_BYTES:
        return None
    oids = [found for line in lines if (found := _OID.fullmatch(line))]
    sizes = [found for line in lines if (found := _SIZE.fullmatch(line))]
    if len(oids) != 1 or len(sizes) != 1:
        return None
    return oids[0][1].decode(), int(sizes[0][1])


def with_pointers(
    files: Sequence[HubFile], pointers: Mapping[str, tuple[str, int]]
) -> tuple[HubFile, ...]:
    """Return files with those that are pointers, by their blobs, as what these stand for."""
    return tuple(
        replace(file, blob="", sha256=pointers[file.blob][0], size=pointers[file.blob][1])
        if file.blob in pointers
        else file
        for file in files
    )


def notes_of(tree: GitTree) -> tuple[str, ...]:
    """Return what is to be said about what is left out."""
    notes = []
    if tree.links:
        notes.append(f"left out, as kits hold no symbolic links: {_listed(tree.links)}")
    if tree.submodules:
        notes.append(f"left out, as they are other repositories: {_listed(tree.submodules)}")
    return tuple(notes)


def _listed(paths: Sequence[str]) -> str:
    shown = ", ".join(printable(path[:200]) for path in paths[:10])
    return shown + (f" and {more} more" if (more := len(paths) - 10) > 0 else "")
