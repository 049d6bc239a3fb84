"""What a caller may ask the daemon to read: the daemon is nobody's deputy."""

import os
from pathlib import PurePosixPath

from kitd.blocking import run_blocking
from kitd.errors import NotFoundError
from kitd.rpc.error import DeniedError, InvalidParamsError
from kitd.rpc.peer import Peer


async def require_readable(peer: Peer, path: str) -> str:
    """Return an absolute directory that the caller may have packed.

    The daemon's own user and root may name any; others only directories that they own. Raises
    `InvalidParamsError`, `NotFoundError`, `DeniedError`.
    """
    if not PurePosixPath(path).is_absolute() or "\0" in path:
        raise InvalidParamsError(f"{path[:200]!r} is not an absolute path")
    try:
        status = await run_blocking(os.stat, path)
    except OSError as error:
        raise NotFoundError(
            f"cannot look at {path[:200]}: {error.strerror}", hint="correct the path"
        ) from error
    if not _is_trusted(peer) and peer.uid != status.st_uid:
        raise DeniedError(
            f"{path[:200]} belongs to another user", hint="ask its owner, or an admin of kitd"
        )
    return path


def require_kitfile(peer: Peer, kitfile: str | None) -> str | None:
    """Return the path of a Kitfile that the caller may have read.

    Relative to the project, or absolute for those who may name any path. Raises
    `InvalidParamsError`, `DeniedError`.
    """
    if kitfile is None:
        return None
    path = PurePosixPath(kitfile)
    if not kitfile or "\0" in kitfile or ".." in path.parts:
        raise InvalidParamsError(f"{kitfile[:200]!r} is not a path within the project")
    if path.is_absolute() and not _is_trusted(peer):
        raise DeniedError(
            f"{kitfile[:200]} is outside of the project", hint="put the Kitfile into the project"
        )
    return kitfile


def _is_trusted(peer: Peer) -> bool:
    return peer.uid in (0, os.geteuid())
