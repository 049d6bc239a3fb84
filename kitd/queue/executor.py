"""Runs attempts: claims what is ready, judges how it ends, writes the end once.

One dispatcher wakes on commits and due times and fills the slots of each lane. Each attempt is two
tasks: one does the work, one waits for it and writes its end. The second is in a task group, so
nothing runs without an owner, and does not wait for ever: work that ignores its cancellation, like
a read from a file system that is gone, is given up. The ledger's fence, not this class, is what
guarantees that an attempt that was given up cannot do harm.

Where a disk is full everything pauses at once, and what failed of it is not counted: trying the
next job could only fill the last block, and burn its attempts.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import msgspec
import structlog

from kitd.errors import Disposition, KitdError
from kitd.queue.effect import Effect
from kitd.queue.fact import Fact
from kitd.queue.job import Failure, Job, JobRequest, Lane, Progress
from kitd.queue.kind import AnyKind, Done
from kitd.queue.retry import (
    ComeBack,
    Die,
    GiveUp,
    Pause,
    RetryPolicy,
    StepAside,
    failure_of,
    judge,
)
from kitd.queue.transition import FencedError

P = TypeVar("P")

log = structlog.get_logger(__name__)

SAFETY_TICK_S = 30.0
"""How often the dispatcher looks even if nothing woke it."""
STALLED_S = 1.0
"""How long it waits where the ledger could not be written."""
GIVE_UP_S = 10.0
"""What work gets to end that was cancelled."""
LAST_WRITE_S = 1.0
"""What the ledger gets for the end of an attempt when kitd stops."""
PROBE_S = 2.0
"""How often a full disk is looked at."""


Observe = Callable[[Job, str, float, msgspec.Struct | None], None]
"""Is told of each attempt that ended: the event's word, its seconds, and a success's result."""


class JobStore(Protocol):
    """What the executor needs of the ledger; see `kitd.ledger.job_ledger` for the contracts."""

    async def promote(self) -> float | None:
        """Make due jobs ready; return in how many seconds the next one is due."""
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
        self, attempt: Job, failure: Failure, delay_s: float, *, burned: bool, crashed: bool
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

    async def paused(self, reason: Failure) -> None:
        """Tell that nothing begins for now."""
        ...

    async def resumed(self) -> None:
        """Tell that jobs begin again."""
        ...


class Room(Protocol):
    """The disks that jobs fill; see `kitd.daemon.disk_guard`."""

    async def make_way(self) -> None:
        """Give up what was kept back, so that the ledger can be written."""
        ...

    async def is_back(self) -> bool:
        """Whether there is room to work again; if so, something is kept back again."""
        ...


class _Attempt:
    """One running attempt: its job, how far it is, and a way to stop its work."""

    def __init__(self, job: Job, changed: Callable[[Job, Progress], None]) -> None:
        self.job = job
        self.progress: Progress | None = None
        self.cancelled = False
        self.given_up = False
        self.began_s = time.monotonic()
        self._work: asyncio.Task[Done] | None = None
        self._patience_ended = asyncio.get_running_loop().create_future()
        self._releases: list[Callable[[], None]] = []
        self._changed = changed

    def report(self, progress: Progress) -> None:
        if self.given_up:
            return
        self.progress = progress
        self._changed(self.job, progress)

    def when_over(self, release: Callable[[], None]) -> None:
        self._releases.append(release)

    def over(self) -> None:
        """Let go of what the work held until its end was written."""
        for release in self._releases:
            release()

    def begin(self, work: Coroutine[Any, Any, Done]) -> asyncio.Task[Done]:
        """Start the work, unless a person was faster."""
        self._work = asyncio.create_task(work, name=f"work-{self.job.id}")
        if self.cancelled:
            self._stop()
        return self._work

    def cancel(self) -> None:
        if self.cancelled:
            return
        self.cancelled = True
        if self._work is not None:
            self._stop()

    async def ended(self) -> None:
        """Return once the work is done, or was cancelled and is not done after `GIVE_UP_S`.

        When this is cancelled, the work is, and this raises after as much time.
        """
        assert self._work is not None
        try:
            await asyncio.wait(
                {self._work, self._patience_ended}, return_when=asyncio.FIRST_COMPLETED
            )
        except asyncio.CancelledError:
            self._work.cancel()
            await asyncio.wait({self._work}, timeout=GIVE_UP_S)
            raise

    def _stop(self) -> None:
        assert self._work is not None
        self._work.cancel()
        asyncio.get_running_loop().call_later(GIVE_UP_S, self._patience_ended.cancel)


class Executor(Generic[P]):
    """Runs the jobs of a store with the given kinds and slots. `run` until cancelled."""

    def __init__(  # noqa: PLR0913 - the last three only listen
        self,
        store: JobStore,
        kinds: Mapping[str, AnyKind[P]],
        ports: P,
        slots: Mapping[Lane, int],
        room: Room,
        *,
        follow: Callable[[Fact], tuple[JobRequest, ...]],
        progress: Callable[[Job, Progress], None] = lambda _job, _progress: None,
        finished: Callable[[Job], None] = lambda _job: None,
        observe: Observe = lambda _job, _end, _took_s, _result: None,
    ) -> None:
        self._store = store
        self._kinds = kinds
        self._ports = ports
        self._slots = slots
        self._room = room
        self._follow = follow
        self._changed = progress
        self._finished = finished
        self._observe = observe
        self._wake = asyncio.Event()
        self._looked = asyncio.Event()
        self._running: dict[int, _Attempt] = {}
        self._left: set[asyncio.Task[Done]] = set()
        self._paused: Failure | None = None
        self._crowded = asyncio.Event()

    @property
    def paused(self) -> Failure | None:
        """Why nothing begins, or None if jobs do."""
        return self._paused

    def wake(self) -> None:
        """Look for work now."""
        self._wake.set()

    async def answer(self) -> None:
        """Return once the dispatcher has looked for work: it is alive."""
        looked = self._looked
        self.wake()
        await looked.wait()

    def resize(self, slots: Mapping[Lane, int]) -> None:
        """Use so many slots from now on; what runs beyond them goes on."""
        self._slots = slots
        self.wake()

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

        One whose work does not end within `GIVE_UP_S`, or that was claimed but had not begun, stays
        running in the ledger: recovery puts it back. Raises an `ExceptionGroup` with what is wrong
        with the ledger itself, and with what is fatal to kitd.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._wait_for_room(), name="room")
            while True:
                self._wake.clear()
                try:
                    delay_s = await self._dispatch(group)
                except KitdError as error:
                    self._note_trouble("queue.stalled", error)
                    delay_s = STALLED_S
                self._looked.set()
                self._looked = asyncio.Event()
                try:
                    async with asyncio.timeout(delay_s):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    async def _dispatch(self, group: asyncio.TaskGroup) -> float:
        """Start what may run; return after how many seconds to look again."""
        due_s = await self._store.promote()
        for job in await self._store.claim(self._free()):
            attempt = _Attempt(job, self._changed)
            self._running[job.id] = attempt
            group.create_task(self._attempt(attempt), name=f"job-{job.id}")
        return SAFETY_TICK_S if due_s is None else min(SAFETY_TICK_S, due_s)

    def _free(self) -> Mapping[Lane, int]:
        used = Counter(attempt.job.lane for attempt in self._running.values())
        free = {lane: max(0, slots - used[lane]) for lane, slots in self._slots.items()}
        if self._paused is None:
            return free
        # What makes room may always run.
        return {Lane.COLLECT: free.get(Lane.COLLECT, 0)}

    def _note_trouble(self, event: str, error: KitdError) -> None:
        """Note an error of the ledger that may pass; raise one that may not."""
        match error.disposition:
            case Disposition.RETRY:
                log.warning(event, code=error.code, error=error.message)
            case Disposition.PAUSE:
                self._pause(failure_of(error))
            case _:
                raise error

    def _pause(self, reason: Failure) -> None:
        """Let nothing begin until there is room."""
        if self._paused is None:
            self._paused = reason
            self._crowded.set()
            log.warning("queue.paused", code=reason.code, error=reason.message, hint=reason.hint)

    async def _wait_for_room(self) -> None:
        while True:
            await self._crowded.wait()
            reason = self._paused
            assert reason is not None
            await self._room.make_way()
            await self._tell(partial(self._store.paused, reason))
            while True:
                if await self._room.is_back():
                    break
                await asyncio.sleep(PROBE_S)
            self._paused = None
            self._crowded.clear()
            log.info("queue.resumed")
            self.wake()
            await self._tell(self._store.resumed)

    async def _tell(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write what is for people only, if the ledger takes it."""
        try:
            await write()
        except KitdError as error:
            self._note_trouble("queue.not_told", error)

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
            attempt.over()
            del self._running[job.id]
            self._finished(job)
            self.wake()

    async def _once(self, attempt: _Attempt) -> None:
        job = attempt.job
        kind = self._kinds.get(job.kind)
        if kind is None:
            message = f"this kitd does not know jobs of the kind {job.kind}"
            hint = "the ledger was written by another version"
            failure = Failure("unknown_kind", message, hint)
            await self._insist(lambda: self._store.fail(job, failure))
            return
        work = attempt.begin(kind.attempt(attempt, self._ports))
        try:
            await attempt.ended()
        except asyncio.CancelledError:
            self._leave(attempt, work)
            try:
                async with asyncio.timeout(LAST_WRITE_S):
                    await self._write_stop(attempt, kind, work)
            except TimeoutError:
                log.warning("job.end_not_written", code="timed_out", error="kitd stops")
            raise
        self._leave(attempt, work)
        await self._write_end(attempt, kind, work)

    def _leave(self, attempt: _Attempt, work: asyncio.Task[Done]) -> None:
        """Wait no more for work that has not ended; it is kept until it does."""
        if work.done():
            return
        attempt.given_up = True
        log.error("job.given_up", kind=attempt.job.kind, after_s=GIVE_UP_S)
        self._left.add(work)
        work.add_done_callback(self._end_late)

    def _end_late(self, work: asyncio.Task[Done]) -> None:
        self._left.discard(work)
        # Taken, so that nobody is warned of an exception that nobody asked for.
        error = None if work.cancelled() else work.exception()
        log.info(
            "job.ended_late", work=work.get_name(), error=None if error is None else str(error)
        )

    async def _write_stop(
        self, attempt: _Attempt, kind: AnyKind[P], work: asyncio.Task[Done]
    ) -> None:
        """Write what became of an attempt when kitd stops, if anything did.

        What cannot be written, and what has not ended, is found and put back by the next life.
        """
        if not work.done():
            return
        if attempt.cancelled or not work.cancelled():
            await self._write_end(attempt, kind, work)
            return
        try:
            await self._store.interrupt(attempt.job)
        except KitdError as error:
            self._note_trouble("job.end_not_written", error)

    async def _write_end(
        self, attempt: _Attempt, kind: AnyKind[P], work: asyncio.Task[Done]
    ) -> None:
        """Write what became of an attempt. Raises what is fatal to kitd."""
        job = attempt.job
        if attempt.cancelled and (attempt.given_up or work.cancelled()):
            await self._insist(lambda: self._store.cancelled(job))
            log.info("job.cancelled", kind=job.kind)
            self._note_end(attempt, "cancelled")
            return
        if work.cancelled():
            # Neither a person nor the end of kitd did that.
            log.error("job.defect", kind=job.kind, error="it cancelled itself")
            await self._failed(attempt, _defect("it cancelled itself"), kind.retry)
            return
        try:
            await self._succeeded(attempt, work.result())
        except FencedError:
            raise
        except KitdError as error:
            await self._failed(attempt, error, kind.retry)
        except Exception as error:  # the boundary: a defect must not take the daemon with it
            log.exception("job.defect", kind=job.kind)
            await self._failed(attempt, _defect(f"{type(error).__name__}: {error}"), kind.retry)

    def _note_end(self, attempt: _Attempt, end: str, result: msgspec.Struct | None = None) -> None:
        self._observe(attempt.job, end, time.monotonic() - attempt.began_s, result)

    async def _succeeded(self, attempt: _Attempt, done: Done) -> None:
        job = attempt.job
        result = msgspec.json.encode(done.result)
        # What follows is asked for by whoever asked for this.
        requests = [
            replace(request, asked_by=job.asked_by)
            for fact in done.facts
            for request in self._follow(fact)
        ]
        await self._insist(lambda: self._store.succeed(job, result, done.effects, requests))
        log.info("job.succeeded", kind=job.kind)
        self._note_end(attempt, "succeeded", done.result)

    async def _failed(self, attempt: _Attempt, error: KitdError, policy: RetryPolicy) -> None:
        job = attempt.job
        # Jitter needs no secrecy.
        match judge(error, job, policy, random.random()):  # noqa: S311
            case GiveUp(failure):
                await self._insist(lambda: self._store.fail(job, failure))
                log.warning("job.failed", kind=job.kind, code=failure.code, error=failure.message)
                self._note_end(attempt, "failed")
            case StepAside(failure):
                await self._insist(lambda: self._store.step_aside(job, failure))
                log.info("job.superseded", kind=job.kind, code=failure.code, error=failure.message)
                self._note_end(attempt, "superseded")
            case ComeBack(failure, delay_s, burned, crashed):
                await self._back_off(job, failure, delay_s, burned=burned, crashed=crashed)
                self._note_end(attempt, "retrying")
            case Pause(failure, delay_s):
                self._pause(failure)
                await self._back_off(job, failure, delay_s, burned=False, crashed=False)
                self._note_end(attempt, "retrying")
            case Die():
                raise error

    async def _back_off(
        self, job: Job, failure: Failure, delay_s: float, *, burned: bool, crashed: bool
    ) -> None:
        await self._insist(
            lambda: self._store.back_off(job, failure, delay_s, burned=burned, crashed=crashed)
        )
        log.warning(
            "job.retrying",
            kind=job.kind,
            code=failure.code,
            error=failure.message,
            delay_s=round(delay_s, 1),
        )

    async def _insist(self, write: Callable[[], Awaitable[object]]) -> None:
        """Write an attempt's end, however long the disk under the ledger takes to recover.

        Until it is written the job counts as running, which is the truth that a restart would find.
        """
        delay_s = 0.5
        while True:
            try:
                await write()
            except KitdError as error:
                self._note_trouble("job.end_not_written", error)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, SAFETY_TICK_S)
            else:
                return


def _defect(what: str) -> KitdError:
    hint = "the log has the details; please report it"
    return KitdError(f"a defect in kitd: {what}", hint=hint)
