"""Survey: find out which repositories of a registry a mirror concerns.

For mirrors whose globs leave that open. Many registries list their repositories to nobody: then
what events have told of so far is all there is.
"""

import msgspec

from kitd.errors import Disposition, KitdError
from kitd.jobs.port import Ports
from kitd.mirror.order import AS_USUAL, MirrorWish
from kitd.oci.reference import parse_repository
from kitd.oci.repository_glob import parse_repository_glob
from kitd.queue.fact import RepositoriesFound
from kitd.queue.job import Lane
from kitd.queue.kind import Done, JobContext, JobKind
from kitd.queue.retry import RetryPolicy

MAX_REPOSITORIES = 10_000


class SurveyArgs(msgspec.Struct, frozen=True, kw_only=True):
    """A mirror of the configuration, and whole globs of the repositories that it concerns."""

    rule: str
    repositories: tuple[str, ...]
    wish: MirrorWish = AS_USUAL
    priority: int = 0
    """Of the jobs that follow."""


class SurveyResult(msgspec.Struct, frozen=True, kw_only=True):
    """The repositories that were found; each is mirrored by a job of its own."""

    repositories: tuple[str, ...]
    notes: tuple[str, ...] = ()


async def run(args: SurveyArgs, _context: JobContext, ports: Ports) -> Done:
    """Look once. Raises `KitdError`."""
    globs = [parse_repository_glob(text) for text in args.repositories]
    known = await ports.mirrors.sources(args.rule)
    found = {each for each in known if any(glob.matches(each) for glob in globs)}
    notes = []
    # All of them are of one registry.
    registry = args.repositories[0].partition("/")[0]
    try:
        async for name in ports.repositories(registry):
            repository = parse_repository(f"{registry}/{name}")
            if repository in found or not any(glob.matches(repository) for glob in globs):
                continue
            if len(found) >= MAX_REPOSITORIES:
                notes.append(f"there are more than {MAX_REPOSITORIES} repositories")
                break
            found.add(repository)
    except KitdError as error:
        if not found or error.disposition is not Disposition.FAIL:
            raise
        notes.append(f"only what events told of is mirrored: {error.message}")
    repositories = tuple(sorted(found))
    fact = RepositoriesFound(
        rule=args.rule, repositories=repositories, wish=args.wish, priority=args.priority
    )
    result = SurveyResult(repositories=tuple(map(str, repositories)), notes=tuple(notes))
    return Done(result, facts=(fact,))


SURVEY: JobKind[SurveyArgs, Ports] = JobKind(
    name="survey",
    lane=Lane.MIRROR,
    args=SurveyArgs,
    retry=RetryPolicy(max_attempts=8),
    key=lambda args: f"{args.rule} {msgspec.json.encode(args.wish).decode()}",
    lock=lambda args: args.rule,
    run=run,
    mirror=lambda args: args.rule,
)
