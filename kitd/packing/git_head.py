"""Which commit a project's own `.git` directory is at, without running git.

git takes locks in the tree it looks at, even to look (`git status` rewrites the index), so kitd
reads the two files that matter (gitrepository-layout(5)). A worktree's `.git` file is not followed.
"""

import re

from kitd.caller import Caller
from kitd.packing.scan import UnreadableByCallerError, read_beneath

MAX_BYTES = 1 << 20

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REF = re.compile(r"ref: (refs/[A-Za-z0-9._/-]+)")


def head_commit(root: int, reader: Caller | None) -> str | None:
    """Return the commit that HEAD names below an open project directory, or None.

    None also where the reader could not read it himself.
    """
    head = (_read(root, ".git/HEAD", reader) or "").strip()
    if match := _REF.fullmatch(head):
        name = match.group(1)
        if ".." in name:
            return None
        head = (_read(root, f".git/{name}", reader) or _packed(root, name, reader) or "").strip()
    return head if _COMMIT.fullmatch(head) else None


def _packed(root: int, name: str, reader: Caller | None) -> str | None:
    for line in (_read(root, ".git/packed-refs", reader) or "").splitlines():
        commit, _, ref = line.partition(" ")
        if ref == name:
            return commit
    return None


def _read(root: int, path: str, reader: Caller | None) -> str | None:
    try:
        return read_beneath(root, path, MAX_BYTES, reader).decode("utf-8", "replace")
    except (OSError, UnreadableByCallerError):
        return None
