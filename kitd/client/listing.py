"""What is in a directory, for `kits.generate`: read with the caller's own rights."""

import json
import os
import stat
from pathlib import Path
from typing import Any, NamedTuple

from kitd.client.protocol import Document
from kitd.client.staging import is_staging_name
from kitd.errors import KitdError

CROWD = 1000
"""Files of a directory that are told one by one."""
MAX_DOCUMENT_BYTES = 1_000_000
"""A request has at most a mebibyte."""
MAX_LICENCE_BYTES = 64 << 10
MAX_LICENCES = 4
MAX_IGNORE_BYTES = 16 << 10
IGNORE_NAME = ".kitignore"
_LICENCE = ("license", "licence", "copying")
TELLING_NAMES = frozenset({
    ".gitignore", ".gitattributes", ".gitmodules", ".gitkeep", ".hgignore", ".dvcignore",
    ".dockerignore", ".kitd-hold", ".env", ".ds_store", ".lsoverride", "thumbs.db", "desktop.ini",
    "ehthumbs.db", "agents.md", "skill.md", "claude.md",
})  # fmt: skip
"""Files that mean something by their whole names, in lower case: kitd has them by heart, too."""


class ListingError(KitdError):
    """A directory cannot be listed, or holds more than a Kitfile could name."""

    code = "listing"


class Seen(NamedTuple):
    """A directory's content for `kits.generate`, and what of it cannot be told."""

    document: Document
    unnamed: int
    """Names that are not UTF-8, which no Kitfile can hold."""
    unreadable: tuple[str, ...]
    """Directories that the caller may not list."""


def list_directory(root: Path) -> Seen:
    """Return what is in a directory and directly below it. Follows no link.

    Raises `ListingError`.
    """
    listing = _Listing()
    try:
        handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ListingError(f"cannot open {root}: {error.strerror}") from error
    try:
        return listing.of(root, handle)
    except OSError as error:
        raise ListingError(f"cannot list {root}: {error.strerror}") from error
    finally:
        os.close(handle)


class _Listing:
    def __init__(self) -> None:
        self._unnamed = 0
        self._unreadable: list[str] = []

    def of(self, root: Path, handle: int) -> Seen:
        files, names, count = self._look(handle)
        if count > CROWD:
            raise ListingError(
                f"{root} itself holds {count} files, which is more than a Kitfile should name",
                hint="put them into directories, or write the Kitfile by hand",
            )
        directories = []
        for name in names:
            try:
                child = os.open(
                    name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle
                )
            except OSError:
                self._unreadable.append(name)
                continue
            try:
                inside, below, total = self._look(child)
            except OSError:
                self._unreadable.append(name)
                continue
            finally:
                os.close(child)
            directories.append(
                {"name": name, "files": inside, "directories": below[:CROWD], "count": total}
            )
        names_here = [file["name"] for file in files]
        licences = [name for name in names_here if name.lower().startswith(_LICENCE)]
        document: dict[str, Any] = {"files": files, "directories": directories}
        document["licences"] = {
            name: _text(handle, name, MAX_LICENCE_BYTES) for name in licences[:MAX_LICENCES]
        }
        if IGNORE_NAME in names_here:
            rules = _text(handle, IGNORE_NAME, MAX_IGNORE_BYTES + 1)
            if len(rules) > MAX_IGNORE_BYTES:
                raise ListingError(
                    f"the {IGNORE_NAME} of {root} is larger than {MAX_IGNORE_BYTES} bytes",
                    hint="write the Kitfile by hand; a pack takes the .kitignore as it is",
                )
            document["ignore"] = rules
        if len(json.dumps(document)) > MAX_DOCUMENT_BYTES:
            raise ListingError(
                f"{root} and the directories in it hold more names than a Kitfile should have",
                hint="write the Kitfile by hand: whole directories can be entries",
            )
        return Seen(document, self._unnamed, tuple(self._unreadable))

    def _look(self, handle: int) -> tuple[list[Document], list[str], int]:
        """Return a directory's files, its directories, and how many files it has."""
        with os.scandir(handle) as entries:
            # The file system's order would make of equal directories different Kitfiles.
            found = sorted(entries, key=lambda entry: entry.name)
        found = [entry for entry in found if not is_staging_name(entry.name)]
        named = [entry for entry in found if _is_text(entry.name)]
        self._unnamed += len(found) - len(named)
        directories = [entry.name for entry in named if entry.is_dir(follow_symlinks=False)]
        files = [entry for entry in named if entry.is_file(follow_symlinks=False)]
        count = len(files)
        if count > CROWD:
            telling = [entry for entry in files if entry.name.lower() in TELLING_NAMES]
            # One of each kind stands for the others.
            kinds = {_kind(entry.name): entry for entry in files}
            files = list(dict.fromkeys((*telling, *kinds.values())))
        told: list[Document] = [
            {"name": entry.name, "size": entry.stat(follow_symlinks=False).st_size}
            for entry in files[:CROWD]
        ]
        return told, directories, count


def _kind(name: str) -> tuple[str, bool]:
    """Return what names share that are of one kind."""
    _, dot, suffix = name.rpartition(".")
    return dot + suffix if dot else "", ".prompt" in name.lower()


def _is_text(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _text(directory: int, name: str, max_bytes: int) -> str:
    """Return the beginning of a file; "" where it cannot be read."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(
            name, "rb", opener=lambda path, _: os.open(path, flags, dir_fd=directory)
        ) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return ""
            text = file.read(max_bytes).decode("utf-8", "replace")
            return "" if "\0" in text else text
    except OSError:
        return ""
