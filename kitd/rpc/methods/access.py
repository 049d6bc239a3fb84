"""What a caller may ask for beyond his role: the daemon is nobody's deputy.

kitd can read, write and reach what its callers cannot. Whoever is no admin gets of that what is
his: directories that he can open, projects and jobs of his own, repositories that a rule names.
"""

import fcntl
import os
import stat
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import msgspec

from kitd.blocking import run_blocking
from kitd.caller import Caller
from kitd.errors import NotFoundError
from kitd.hub.git_source import GitSource, Source
from kitd.jobs.assembly import PackArgs
from kitd.jobs.import_kit import IMPORT, ImportArgs
from kitd.jobs.mirror.kind import MIRROR
from kitd.jobs.pack import PACK
from kitd.jobs.pull import PULL, PullArgs
from kitd.jobs.push import PUSH, PushArgs
from kitd.jobs.survey import SURVEY
from kitd.mirror.order import MirrorOrder
from kitd.oci.reference import Repository, parse_reference, parse_repository
from kitd.queue.job import Job, JobRequest
from kitd.rpc.error import DeniedError, InvalidParamsError
from kitd.rpc.method import Context
from kitd.rpc.methods.services import Services
from kitd.rpc.peer import Role

_O_PATH = getattr(os, "O_PATH", 0)


def is_admin(context: Context[Services]) -> bool:
    """Whether the caller may do everything: the daemon's own user, root, and who has the role."""
    return context.access.role is Role.ADMIN


async def require_directory(context: Context[Services], path: str) -> Caller | None:
    """Return on whose behalf a directory is read; None where it is whatever kitd can read.

    An admin may name any directory, others one that they own or of which a descriptor came with the
    call. What else is there they are not told. Raises `InvalidParamsError`, `NotFoundError`,
    `DeniedError`.
    """
    if not PurePosixPath(path).is_absolute() or "\0" in path:
        raise InvalidParamsError(f"{path[:200]!r} is not an absolute path")
    try:
        status = await run_blocking(os.stat, path)
    except OSError as error:
        if is_admin(context):
            raise NotFoundError(
                f"cannot look at {path[:200]}: {error.strerror}", hint="correct the path"
            ) from error
        raise _not_his(context, path) from error
    if is_admin(context):
        return None
    shown = None
    if context.descriptor is not None:
        shown = await run_blocking(_shown_by, context.descriptor)
    caller = Caller(uid=context.peer.uid, gids=tuple(sorted(context.peer.gids)), root=shown)
    if not caller.may_begin_in(status):
        raise _not_his(context, path)
    return caller


def _not_his(context: Context[Services], path: str) -> DeniedError:
    return DeniedError(
        f"{path[:200]} is neither a directory of user {context.peer.uid}"
        " nor the one whose descriptor came with the call",
        hint="kitctl sends the descriptor of a directory that you can open; or ask an admin",
    )


def _shown_by(descriptor: int) -> tuple[int, int]:
    """Return device and inode of a directory that was opened to be read. Raises `DeniedError`."""
    try:
        status = os.fstat(descriptor)
    except OSError as error:
        # A file system in user space is its owner's alone.
        raise DeniedError(
            f"kitd cannot look at the descriptor that came with the call: {error.strerror}",
            hint="let kitd's user look into the file system that it is on",
        ) from error
    # Without the right to read, one can still be opened as a place (open(2), O_PATH).
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & _O_PATH or not stat.S_ISDIR(status.st_mode):
        raise DeniedError(
            "the descriptor that came with the call is not one of a directory, opened to be read",
            hint="open it with O_RDONLY | O_DIRECTORY",
        )
    return status.st_dev, status.st_ino


def require_kitfile(context: Context[Services], kitfile: str | None) -> str | None:
    """Return the path of a Kitfile that the caller may have read.

    Relative to the project, or absolute for an admin. Raises `InvalidParamsError`, `DeniedError`.
    """
    if kitfile is None:
        return None
    path = PurePosixPath(kitfile)
    if not kitfile or "\0" in kitfile or ".." in path.parts:
        raise InvalidParamsError(f"{kitfile[:200]!r} is not a path within the project")
    if path.is_absolute() and not is_admin(context):
        raise DeniedError(
            f"{kitfile[:200]} is outside of the project", hint="put the Kitfile into the project"
        )
    return kitfile


def require_reachable(context: Context[Services], repository: Repository) -> None:
    """Check that kitd may go to a repository for the caller's sake. Raises `DeniedError`."""
    if repository.is_local or context.access.may_reach(repository):
        return
    raise _out_of_reach(context, repository)


def _out_of_reach(context: Context[Services], repository: Repository) -> DeniedError:
    return DeniedError(
        f"user {context.peer.uid} may not use {repository} with kitd's credentials",
        hint=f"an admin can add {repository} to the repositories of a rule in rpc.access",
    )


def reach(context: Context[Services]) -> tuple[str, ...]:
    """Return globs of all repositories that kitd may go to for the caller's sake."""
    return ("**",) if is_admin(context) else tuple(map(str, context.access.repositories))


def require_source(context: Context[Services], source: Source) -> None:
    """Check that kitd may fetch from a repository of a hub or of git for the caller's sake.

    It is named as one of a registry would be, by its host and its name: at a hub in lower case, as
    hubs tell no difference, and of git as it is. By ssh others than admins are `git` there, or who
    kitd's ssh says. Raises `DeniedError`.
    """
    if is_admin(context):
        return
    if isinstance(source, GitSource):
        place = source.place
        if not place.host:
            # What git reads there it reads with kitd's rights, wherever the repository has it look.
            raise DeniedError(
                f"user {context.peer.uid} may not have kitd read a repository of this machine",
                hint="clone it, and kitctl pack the directory; or ask an admin",
            )
        if place.user not in ("", "git"):
            raise DeniedError(
                f"user {context.peer.uid} may not have kitd be {place.user} at {place.host}",
                hint=f"write git@{place.host}, or ask an admin",
            )
        repository = Repository(place.authority, source.repository)
    else:
        host = urlsplit(context.services.hub_endpoint()).netloc
        repository = Repository(host.lower(), str(source).lower())
    # A host may be called as kitd's own cache is, which everybody may use.
    if not context.access.may_reach(repository):
        raise _out_of_reach(context, repository)


def require_mirrorable(context: Context[Services], order: MirrorOrder) -> None:
    """Check that kitd may go to all ends of a mirror for the caller. Raises `DeniedError`."""
    for end in (order.source, order.target.repository):
        require_reachable(context, parse_repository(end))


def require_surveyor(context: Context[Services]) -> None:
    """Check that the caller may have a registry asked for its repositories. Raises `DeniedError`.

    Which ones a mirror goes to then is known only afterwards.
    """
    if not is_admin(context):
        raise DeniedError(
            f"user {context.peer.uid} may not let kitd ask a registry for its repositories,"
            " which this mirror begins with",
            hint="an admin of kitd can run it; mirrors without * in their repositories ask nobody",
        )


async def require_own_project(context: Context[Services], name: str) -> None:
    """Check that a project is the caller's. Raises `NotFoundError`, `DeniedError`."""
    if is_admin(context):
        return
    owner = await context.services.projects.owner_of(name)
    if owner != context.peer.uid:
        whose = "nobody's who can be told" if owner is None else f"that of user {owner}"
        raise DeniedError(
            f"the project {name} is {whose}", hint="its owner may do this, and an admin of kitd"
        )


def require_reachable_again(context: Context[Services], job: Job) -> None:
    """Check that the caller may still ask for what a job of his own does. Raises `DeniedError`.

    What a project pushes was asked for with the project.
    """
    if job.asked_by != context.peer.uid or job.reference is None:
        return
    if job.kind == MIRROR.name:
        require_mirrorable(context, msgspec.json.decode(job.args, type=MirrorOrder))
    elif job.kind == SURVEY.name:
        require_surveyor(context)
    elif job.kind == IMPORT.name:
        args = msgspec.json.decode(job.args, type=ImportArgs)
        require_source(context, args.source)
        if args.push:
            require_reachable(context, parse_repository(args.repository))
    elif job.kind != PACK.name or msgspec.json.decode(job.args, type=PackArgs).push:
        require_reachable(context, parse_reference(job.reference).repository)


def asked_today(context: Context[Services], job: Job) -> JobRequest | None:
    """Return the wish for a job of the caller's own as the rules are today; None where it is none.

    Where it may look for the kits that a kit builds on is as far as the caller may go.
    """
    if job.asked_by != context.peer.uid:
        return None
    if job.kind == PULL.name:
        pull = msgspec.json.decode(job.args, type=PullArgs)
        parents = reach(context) if pull.parents else ()
        return PULL.request(msgspec.structs.replace(pull, parents=parents))
    if job.kind == PUSH.name:
        push = msgspec.json.decode(job.args, type=PushArgs)
        parents = reach(context) if push.parents else ()
        return PUSH.request(msgspec.structs.replace(push, parents=parents))
    return None


async def require_own_job(context: Context[Services], job: Job) -> None:
    """Check that the caller asked for a job, or that it is one of his projects'.

    Jobs of a project that had its name before are not. Raises `DeniedError`.
    """
    if is_admin(context) or job.asked_by == context.peer.uid:
        return
    if job.project is not None:
        try:
            if await context.services.projects.is_as_it_was(job.project, job.created_us):
                await require_own_project(context, job.project)
                return
        except NotFoundError:
            pass  # whose it was is not known any more
    asker = "by kitd" if job.asked_by is None else f"by user {job.asked_by}"
    raise DeniedError(
        f"job {job.id} was asked for {asker}", hint="who asked may do this, and an admin of kitd"
    )
