"""Runs attempts: claims what is ready, judges how it ends, writes the end once.

One dispatcher wakes on commits and due times and fills the slots of each lane; each attempt is a
task in a task group, so nothing runs without an owner. The ledger's fence, not this class, is what
guarantees that an attempt that was given up cannot do harm.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec
import structlog

from kitd.clock import Clock
from kitd.errors import Disposition, KitdError
from kitd.queue.effect import Effect
from kitd.queue.fact import Fact
from kitd.queue.job import Failure, Job, JobRequest, Lane, Progress
from kitd.queue.kind import AnyKind, Done
from kitd.queue.retry import ComeBack, GiveUp, RetryPolicy, StepAside, judge
from kitd.queue.transition import FencedError

P = TypeVar("P")

log = structlog.get_logger(__name__)

SAFETY_TICK_S = 30.0
"""How often the dispatcher looks even if nothing woke it."""
STALLED_S = 1.0
"""How long it waits where the ledger could not be written."""


class JobStore(Protocol):
    """What the executor needs of the ledger; see `kitd.ledger.job_ledger` for the contracts."""

    async def promote(self) -> int | None:
        """Make due jobs ready; return when the next one is due, in microseconds."""
        ...

    async def claim(self, lanes: Mapping[Lane, int]) -> Sequence[Job]:
        """Start up to so many jobs of each lane."""
        ...

    async def succeed(
        self,
        attempt: Job,
        result: bytes,
        effects: Iterable[Effect],
        requests: Iterable[JobRequest],
    ) -> None:
        """End an attempt well."""
        ...

    async def fail(self, attempt: Job, failure: Failure) -> None:
        """End a job for good."""
        ...

    async def back_off(
        self, attempt: Job, failure: Failure, delay_s: float, *, burned: bool
    ) -> None:
        """End an attempt that will be followed by another."""
        ...

    async def step_aside(self, attempt: Job, failure: Failure) -> None:
        """End an attempt whose job will be asked for anew if need be."""
        ...

    async def interrupt(self, attempt: Job) -> None:
        """Put a running job back because kitd stops."""
        ...

    async def cancelled(self, attempt: Job) -> None:
        """End an attempt that was cancelled."""
        ...


class _Attempt:
    """One running attempt: its job, how far it is, and a way to stop its work."""

    def __init__(self, job: Job, changed: Callable[[Job, Progress], None]) -> None:
        self.job = job
        self.progress: Progress | None = None
        self.cancelled = False
        self._working: asyncio.Task[object] | None = None
        self._changed = changed

    def report(self, progress: Progress) -> None:
        self.progress = progress
        self._changed(self.job, progress)

    async def perform(self, kind: AnyKind[P], ports: P) -> Done:
        """Do the work. Only this can be cancelled: the writing of an attempt's end cannot."""
        if self.cancelled:
            raise asyncio.CancelledError
        self._working = asyncio.current_task()
        try:
            return await kind.attempt(self, ports)
        finally:
            self._working = None

    def cancel(self) -> None:
        self.cancelled = True
        # A task that has not begun would end without a word if it were cancelled.
        if self._working is not None:
            self._working.cancel()


class Executor(Generic[P]):
    """Runs the jobs of a store with the given kinds and slots. `run` until cancelled."""

    def __init__(
        self,
        store: JobStore,
        kinds: Mapping[str, AnyKind[P]],
        ports: P,
        slots: Mapping[Lane, int],
        clock: Clock,
        *,
        follow: Callable[[Fact], tuple[JobRequest, ...]],
        progress: Callable[[Job, Progress], None] = lambda _job, _progress: None,
        finished: Callable[[Job], None] = lambda _job: None,
    ) -> None:
        self._store = store
        self._kinds = kinds
        self._ports = ports
        self._slots = slots
        self._clock = clock
        self._follow = follow
        self._changed = progress
        self._finished = finished
        self._wake = asyncio.Event()
        self._running: dict[int, _Attempt] = {}

    def wake(self) -> None:
        """Look for work now."""
        self._wake.set()

    def progress_of(self, job_id: int) -> Progress | None:
        """Return how far a running job is."""
        attempt = self._running.get(job_id)
        return None if attempt is None else attempt.progress

    def cancel(self, job_id: int) -> None:
        """Stop a running attempt whose cancellation the ledger has recorded."""
        attempt = self._running.get(job_id)
        if attempt is not None:
            attempt.cancel()

    async def run(self) -> None:
        """Dispatch until cancelled; the running jobs are put back before that ends.

        One that was claimed but had not begun stays running in the ledger: recovery puts it back.
        """
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                try:
                    delay_s = await self._dispatch(group)
                except KitdError as error:
                    if error.disposition is not Disposition.RETRY:
                        raise
                    log.warning("queue.stalled", code=error.code, error=error.message)
                    delay_s = STALLED_S
                try:
                    async with asyncio.timeout(delay_s):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    async def _dispatch(self, group: asyncio.TaskGroup) -> float:
        """Start what may run; return after how many seconds to look again."""
        due_us = await self._store.promote()
        for job in await self._store.claim(self._free()):
            attempt = _Attempt(job, self._changed)
            self._running[job.id] = attempt
            group.create_task(self._attempt(attempt), name=f"job-{job.id}")
        if due_us is None:
            return SAFETY_TICK_S
        return min(SAFETY_TICK_S, max(0.0, (due_us - self._clock.now_us()) / 1_000_000))

    def _free(self) -> Mapping[Lane, int]:
        used = [attempt.job.lane for attempt in self._running.values()]
        return {lane: max(0, slots - used.count(lane)) for lane, slots in self._slots.items()}

    async def _attempt(self, attempt: _Attempt) -> None:
        job = attempt.job
        try:
            named = {"job": job.id, "project": job.project, "reference": job.reference}
            bound = {key: value for key, value in named.items() if value is not None}
            with structlog.contextvars.bound_contextvars(**bound):
                await self._once(attempt)
        except FencedError:
            log.warning("job.fenced", job=job.id)
        finally:
            del self._running[job.id]
            self._finished(job)
            self.wake()

    async def _once(self, attempt: _Attempt) -> None:
        job = attempt.job
        kind = self._kinds.get(job.kind)
        if kind is None:
            message = f"this kitd does not know jobs of the kind {job.kind}"
            hint = "the ledger was written by another version"
            await _insist(lambda: self._store.fail(job, Failure("unknown_kind", message, hint)))
            return
        try:
            await self._succeeded(job, await attempt.perform(kind, self._ports))
        except asyncio.CancelledError:
            await self._stopped(attempt)
            if not attempt.cancelled:
                raise
        except FencedError:
            raise
        except KitdError as error:
            await self._failed(job, error, kind.retry)
        except Exception as error:  # the boundary: a defect must not take the daemon with it
            log.exception("job.defect", kind=job.kind)
            defect = KitdError(
                f"a defect in kitd: {type(error).__name__}: {error}",
                hint="the log has the details; please report it",
            )
            await self._failed(job, defect, kind.retry)

    async def _succeeded(self, job: Job, done: Done) -> None:
        result = msgspec.json.encode(done.result)
        requests = [request for fact in done.facts for request in self._follow(fact)]
        await _insist(lambda: self._store.succeed(job, result, done.effects, requests))
        log.info("job.succeeded", kind=job.kind)

    async def _stopped(self, attempt: _Attempt) -> None:
        job = attempt.job
        if attempt.cancelled:
            await _insist(lambda: self._store.cancelled(job))
            log.info("job.cancelled", kind=job.kind)
            return
        try:
            await self._store.interrupt(job)
        except KitdError as error:
            if error.disposition is not Disposition.RETRY:
                raise
            # kitd stops, with or without this: its next life will find the job and put it back.
            log.warning("job.end_not_written", code=error.code, error=error.message)

    async def _failed(self, job: Job, error: KitdError, policy: RetryPolicy) -> None:
        # Jitter needs no secrecy.
        match judge(error, job, policy, random.random()):  # noqa: S311
            case GiveUp(failure):
                await _insist(lambda: self._store.fail(job, failure))
                log.warning("job.failed", kind=job.kind, code=failure.code, error=failure.message)
            case StepAside(failure):
                await _insist(lambda: self._store.step_aside(job, failure))
                log.info("job.superseded", kind=job.kind, code=failure.code, error=failure.message)
            case ComeBack(failure, delay_s, burned):
                await _insist(lambda: self._store.back_off(job, failure, delay_s, burned=burned))
                log.warning(
                    "job.retrying",
                    kind=job.kind,
                    code=failure.code,
                    error=failure.message,
                    delay_s=round(delay_s, 1),
                )


async def _insist(write: Callable[[], Awaitable[object]]) -> None:
    """Write an attempt's end, however long the disk under the ledger takes to recover.

    Until it is written the job counts as running, which is the truth that a restart would find.
    """
    delay_s = 0.5
    while True:
        try:
            await write()
        except KitdError as error:
            if error.disposition is not Disposition.RETRY:
                raise
            log.warning("job.end_not_written", code=error.code, error=error.message)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, SAFETY_TICK_S)
        else:
            return
