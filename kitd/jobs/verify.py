"""Verify: hash every blob of the cache again, and fetch anew what the disk has lost."""

import msgspec

from kitd.jobs.port import Ports
from kitd.queue.job import Lane, Progress
from kitd.queue.kind import Done, JobContext, JobKind
from kitd.queue.retry import RetryPolicy


class VerifyArgs(msgspec.Struct, frozen=True, kw_only=True):
    """Whether what is damaged is to be fetched from a registry that has it."""

    repair: bool = False


async def run(args: VerifyArgs, context: JobContext, ports: Ports) -> Done:
    """Verify once. Raises `KitdError`."""

    def advanced(done_bytes: int, total_bytes: int) -> None:
        context.report(Progress("verifying", done_bytes, total_bytes))

    return Done(await ports.verifier.verify(repair=args.repair, advanced=advanced))


VERIFY: JobKind[VerifyArgs, Ports] = JobKind(
    name="verify",
    lane=Lane.VERIFY,
    args=VerifyArgs,
    retry=RetryPolicy(max_attempts=4),
    key=lambda args: "repair" if args.repair else "verify",
    lock=lambda _args: "cache",
    run=run,
)
