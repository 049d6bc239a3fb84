"""Pack: a directory becomes a kit."""

from kitd.jobs.assembly import PackArgs, pack
from kitd.jobs.port import Ports
from kitd.queue.job import Lane
from kitd.queue.kind import JobKind
from kitd.queue.retry import RetryPolicy


def _key(args: PackArgs) -> str:
    """Return what two wishes share of which the newer replaces the older.

    They end in the same names, and nobody's wish takes the place of another user's.
    """
    if args.project is not None:
        return args.project
    reader = "" if args.reader is None else f"@{args.reader.uid}"
    return f"{args.path}>{args.repository}:{','.join(args.tags)}{reader}"


PACK: JobKind[PackArgs, Ports] = JobKind(
    name="pack",
    lane=Lane.PACK,
    args=PackArgs,
    # As often as a push: layers may go to a registry while they are read.
    retry=RetryPolicy(max_attempts=20),
    key=_key,
    lock=lambda args: args.path,
    run=pack,
)
