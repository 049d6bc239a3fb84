"""The gate for trees that git is at work on (gitrepository-layout(5), git-worktree(1)).

git is not run: it takes locks in the tree it looks at, even to look.
"""

import os
from collections.abc import Iterator, Mapping

from kitd.packing.gate.lease import has_writer
from kitd.packing.gate.tool import Sign, find_upwards, shown
from kitd.packing.scan import FILE_FLAGS

_LOCKS: Mapping[str, str] = {
    "index.lock": "git is changing the tree",
    "HEAD.lock": "git is changing what is checked out",
}
_UNFINISHED: Mapping[str, str] = {
    "rebase-merge": "a rebase is not finished",
    "rebase-apply": "a rebase or an am is not finished",
    "MERGE_HEAD": "a merge is not finished",
    "CHERRY_PICK_HEAD": "a cherry-pick is not finished",
    "REVERT_HEAD": "a revert is not finished",
}
_LINK = b"gitdir: "
_MAX_LINK_BYTES = 4096 + len(_LINK)


def signs(root: str) -> Iterator[Sign]:
    """Yield what says that git is at work on the repository that a project is, or is in."""
    directory = _git_directory(root)
    if directory is None:
        return
    for name, detail in _LOCKS.items():
        path = os.path.join(directory, name)
        try:
            lock = os.open(path, FILE_FLAGS)
        except FileNotFoundError:
            continue
        except OSError:
            yield Sign(shown(path, root), detail)
            continue
        try:
            # git has it open for as long as it works.
            since_ns = None if has_writer(lock) else os.fstat(lock).st_mtime_ns
        finally:
            os.close(lock)
        yield Sign(shown(path, root), detail, since_ns)
    for name, detail in _UNFINISHED.items():
        path = os.path.join(directory, name)
        if os.path.lexists(path):
            yield Sign(shown(path, root), detail)


def _git_directory(root: str) -> str | None:
    found = find_upwards(root, ".git")
    if found is None or os.path.isdir(found):
        return found
    # In a worktree and in a submodule it is a file that says where the directory is.
    try:
        file = os.open(found, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        link = os.read(file, _MAX_LINK_BYTES)
    except OSError:
        return None
    finally:
        os.close(file)
    if not link.startswith(_LINK) or b"\0" in link:
        return None
    target = os.fsdecode(link.removeprefix(_LINK).rstrip(b"\r\n"))
    return os.path.normpath(os.path.join(os.path.dirname(found), target))
