"""What becomes of a mirror's tags: told to people, and written down."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import ClassVar, TypeVar

import msgspec

from kitd.errors import Disposition, KitdError
from kitd.jobs.port import MirrorMemory
from kitd.jobs.transfer import Bytes
from kitd.mirror.edge import Edge, Failed, Note
from kitd.mirror.order import MirrorOrder
from kitd.oci.digest import Digest
from kitd.queue.job import Progress
from kitd.queue.kind import HUMAN, JobContext
from kitd.queue.retry import PartlyDoneError

MAX_REPORTED = 1000
"""Edges that a result shows, those first that are not unchanged."""
MAX_NOTES = 100

_T = TypeVar("_T")


class MirrorIncompleteError(PartlyDoneError):
    """Some tags could not be copied; the others were."""

    code: ClassVar[str] = "mirror_incomplete"
    disposition: ClassVar[Disposition] = Disposition.RETRY


class MirrorRefusedError(PartlyDoneError):
    """Some tags cannot be copied, however often that is tried; the others were."""

    code: ClassVar[str] = "mirror_refused"


class EdgeResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one tag at its target.

    `action` is copied, unchanged, skipped, deleted or failed; `bytes` were sent for it.
    """

    source: str
    target: str
    digest: str | None
    action: str
    bytes: int = 0
    why: str | None = None


class MirrorResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of all tags; `counts` are those of all edges, by action."""

    edges: tuple[EdgeResult, ...]
    counts: Mapping[str, int]
    bytes: Bytes
    dry_run: bool = False
    notes: tuple[str, ...] = ()


class Report:
    """What has become of the tags of an attempt so far. Its memory is bounded."""

    def __init__(self, order: MirrorOrder, context: JobContext, memory: MirrorMemory) -> None:
        self._order = order
        self._context = context
        self._memory = memory
        self._counts: Counter[str] = Counter()
        self._shown: list[EdgeResult] = []
        self._unchanged: list[EdgeResult] = []
        self._notes: dict[str, None] = {}
        self._more_notes = 0
        self._first: KitdError | None = None
        self._may_pass = False
        self._waits_s: float | None = None
        self._waits_all = True
        self._done_bytes = 0
        self._total_bytes = 0

    @property
    def has_failed(self) -> bool:
        """Whether anything did not work out."""
        return self._first is not None

    def tell(
        self,
        edge: Edge,
        digest: Digest | None,
        action: str,
        sent_bytes: int = 0,
        *,
        why: str | None = None,
    ) -> None:
        """Tell what became of an edge."""
        self._counts[action] += 1
        is_news = action != "unchanged"
        # Nobody waits for those of a schedule, which would fill the ledger with what is as it was.
        if not is_news and self._context.job.priority < HUMAN:
            return
        shown = self._shown if is_news else self._unchanged
        if len(shown) < MAX_REPORTED:
            source, target = edge.ends
            shown.append(
                EdgeResult(
                    source=source,
                    target=target,
                    digest=digest,
                    action=action,
                    bytes=sent_bytes,
                    why=why,
                )
            )

    def remark(self, *notes: str) -> None:
        """Tell people something else."""
        for note in notes:
            if len(self._notes) < MAX_NOTES:
                self._notes[note] = None
            elif note not in self._notes:
                self._more_notes += 1

    async def note(self, *notes: Note) -> None:
        """Write down how edges stand, unless nothing is done but told."""
        if not self._order.wish.dry_run:
            await self._memory.note(self._order.rule, notes)

    async def guarded(self, work: Awaitable[_T], edges: Sequence[Edge]) -> _T | None:
        """Return what comes of work; what fails of it fails those edges and no others."""
        try:
            return await work
        except KitdError as error:
            if error.disposition in (Disposition.FATAL, Disposition.PAUSE):
                raise
            await self.fail(error, edges)
            return None

    async def fail(self, error: KitdError, edges: Sequence[Edge]) -> None:
        """Tell that edges have failed, and write it down."""
        self._first = self._first or error
        if error.disposition is not Disposition.FAIL:
            self._may_pass = True
            if error.retry_after_s is None:
                self._waits_all = False
            elif self._waits_s is None or error.retry_after_s < self._waits_s:
                self._waits_s = error.retry_after_s
        for edge in edges:
            self.tell(edge, None, "failed", why=error.message)
        await self.note(*(Failed(edge, error.code, error.message) for edge in edges))

    def progress(self) -> Callable[[int, int], None]:
        """Return what is told of one copy, which is added to what is told of all."""
        done, total = 0, 0

        def progress(done_bytes: int, total_bytes: int) -> None:
            nonlocal done, total
            self._done_bytes += done_bytes - done
            self._total_bytes += total_bytes - total
            done, total = done_bytes, total_bytes
            self._context.report(Progress("mirroring", self._done_bytes, self._total_bytes))

        return progress

    def error(self, moved: Bytes) -> KitdError:
        """Return the error for all that failed."""
        assert self._first is not None
        failed, count = self._counts["failed"], self._counts.total()
        others = f" ({failed} of {count} tags failed)" if failed > 1 else ""
        message = f"{self._order.source} was not mirrored whole: {self._first.message}{others}"
        result = self.result(moved)
        if not self._may_pass:
            return MirrorRefusedError(message, hint=self._first.hint, result=result)
        error = MirrorIncompleteError(message, hint=self._first.hint, result=result)
        if self._waits_all:
            # As early as one of them may be tried again.
            error.retry_after_s = self._waits_s
        return error

    def result(self, moved: Bytes) -> MirrorResult:
        """Return what became of all; `moved` is what was sent."""

        def by_name(result: EdgeResult) -> tuple[str, str]:
            return result.source, result.target

        shown = sorted(self._shown, key=by_name) + sorted(self._unchanged, key=by_name)
        shown = shown[:MAX_REPORTED]
        notes = list(self._notes)
        told = self._counts.total()
        if self._context.job.priority < HUMAN:
            told -= self._counts["unchanged"]
        if self._more_notes:
            notes.append(f"there are {self._more_notes} more warnings")
        if told > len(shown):
            notes.append(f"{told - len(shown)} more tags are not shown")
        return MirrorResult(
            edges=tuple(shown),
            counts=dict(self._counts),
            bytes=moved,
            dry_run=self._order.wish.dry_run,
            notes=tuple(notes),
        )
