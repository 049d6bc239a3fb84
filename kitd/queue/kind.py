"""A kind of job: its arguments, its keys, its patience and what it does.

The type of the arguments is erased in `JobKind.attempt` and nowhere else, so that the executor can
hold all kinds in one mapping while each `run` sees its own struct.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import msgspec

from kitd.queue.effect import Effect
from kitd.queue.fact import Fact
from kitd.queue.job import Job, JobRequest, Lane, Progress
from kitd.queue.retry import RetryPolicy

HUMAN = 10
"""The priority of what a person waits for."""


@dataclass(frozen=True, slots=True)
class Done:
    """A successful attempt: its result, what it changes, and what is now the case.

    What jobs follow from the facts is not a kind's business: `kitd.triggers` decides.
    """

    result: msgspec.Struct
    effects: tuple[Effect, ...] = ()
    facts: tuple[Fact, ...] = ()


class JobContext(Protocol):
    """What an attempt may ask of its executor."""

    @property
    def job(self) -> Job:
        """The job as it was claimed."""
        ...

    def report(self, progress: Progress) -> None:
        """Tell how far the attempt is. Cheap; call it often."""
        ...

    def when_over(self, release: Callable[[], None]) -> None:
        """Have `release` called once the attempt's end is written, whatever it is."""
        ...


A = TypeVar("A", bound=msgspec.Struct)
P = TypeVar("P")
P_contra = TypeVar("P_contra", contravariant=True)


class AnyKind(Protocol[P_contra]):
    """A job kind whose argument type is forgotten; `P` is what the kinds are given to work with."""

    @property
    def name(self) -> str:
        """The `kind` of its jobs."""
        ...

    @property
    def retry(self) -> RetryPolicy:
        """How patient the queue is with its jobs."""
        ...

    async def attempt(self, context: JobContext, ports: P_contra) -> Done:
        """Do it once."""
        ...


@dataclass(frozen=True, slots=True)
class JobKind(Generic[A, P]):
    """A kind. `run` must be safe to repeat: an attempt killed anywhere may run again."""

    name: str
    lane: Lane
    args: type[A]
    retry: RetryPolicy
    key: Callable[[A], str]
    lock: Callable[[A], str]
    run: Callable[[A, JobContext, P], Awaitable[Done]]
    needs: Callable[[A], str | None] = lambda _args: None
    """The manifest that no collection may take before the job has ended."""
    mirror: Callable[[A], str | None] = lambda _args: None
    """The mirror of the configuration that a job is a part of."""

    def request(
        self,
        args: A,
        *,
        project: str | None = None,
        reference: str | None = None,
        priority: int = 0,
        why: str = "",
    ) -> JobRequest:
        """Return the wish for a job of this kind."""
        return JobRequest(
            kind=self.name,
            lane=self.lane,
            key=f"{self.name}:{self.key(args)}",
            lock=f"{self.name}:{self.lock(args)}",
            args=msgspec.json.encode(args, order="sorted"),
            max_attempts=self.retry.max_attempts,
            project=project,
            reference=reference,
            priority=priority,
            why=why,
            needs=self.needs(args),
            mirror=self.mirror(args),
        )

    async def attempt(self, context: JobContext, ports: P) -> Done:
        """Decode the arguments and do it once."""
        return await self.run(msgspec.json.decode(context.job.args, type=self.args), context, ports)
