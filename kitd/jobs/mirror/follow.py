"""Having the target's tags follow the source's: what is to be done with each, and doing it."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar

from kitd.content.copy import manifests_of, walk
from kitd.content.together import all_of
from kitd.errors import Disposition, KitdError
from kitd.jobs.mirror.attempt import Attempt
from kitd.jobs.mirror.find import Finder
from kitd.jobs.mirror.target import Moved
from kitd.mirror.decide import Decision, Verdict, decide, subject_of
from kitd.mirror.edge import Agreed, Conflict, Eased
from kitd.mirror.order import Conflicts
from kitd.oci.digest import Digest
from kitd.oci.reference import Reference
from kitd.queue.fact import RepositoryChanged

GRAPHS = 16
"""Graphs that the target gets at once."""
BELIEVED_US = 24 * 3600 * 1_000_000
"""How long a target is believed to have what it was seen to have."""
MAX_TURNS = 3
"""How often a tag is followed that moves while it is copied."""
MANY_LEFT = 32
"""With more tags than that for another mirror, it looks at all of them."""
FEW_LOOKS = 3
"""With more tags than that to look for, a target is asked for all it has."""


class MovingTagError(KitdError):
    """A tag is set anew while what it names is copied, again and again."""

    code: ClassVar[str] = "moving_tag"
    disposition: ClassVar[Disposition] = Disposition.RETRY


@dataclass(frozen=True, slots=True)
class _Work:
    """A tag that the target lacks, or of which it is not known whether it has all."""

    tag: str
    digest: Digest
    theirs: Digest | None
    """What the target's tag named when it was looked at."""
    is_there: bool = False
    overwrites: bool = False
    """Whether what the target's tag named had been put there by others, and the source is right."""


class Follower:
    """Has tags followed. What goes wrong with one is told of that one."""

    def __init__(self, attempt: Attempt, finder: Finder) -> None:
        self._attempt = attempt
        self._finder = finder
        self._order = attempt.order
        self._source = attempt.source
        self._target = attempt.target
        self._report = attempt.report
        self._slots = asyncio.Semaphore(GRAPHS)
        self._turn = asyncio.Lock()
        self._left: set[str] = set()

    async def follow(self, found: Mapping[str, Digest]) -> None:
        """Let the target's tags name what the source's do, digest tags before what they are about.

        Who finds something by its tag may look for its signatures.
        """
        groups: dict[Digest, list[_Work]] = {}
        for each in await self._judge(found):
            groups.setdefault(each.digest, []).append(each)
        manifests = await all_of(self._manifests(digest, works) for digest, works in groups.items())
        about = await self._finder.about(frozenset[Digest]().union(*manifests))
        if about:
            await self.follow(about)
        await all_of(self._copy_group(digest, group) for digest, group in groups.items())
        self._source.forget(found.keys())

    async def _manifests(self, digest: Digest, group: Sequence[_Work]) -> frozenset[Digest]:
        """Return the manifests of a graph, of which older tools may keep signatures under tags."""
        # Nobody signs signatures that way.
        if not self._order.digest_tags or all(subject_of(each.tag) for each in group):
            return frozenset()
        try:
            root = await self._source.root(digest)
            nodes = await manifests_of(self._source.content, root)
        except KitdError:
            # Whoever copies the graph meets that, too, and tells of it.
            return frozenset()
        return frozenset(node.digest for node in nodes)

    def left(self) -> RepositoryChanged | None:
        """Return what of the target is for another mirror to carry back; None for nothing.

        That may have looked already, and have found what it could not carry: the source's tag moved
        too, and is back where it was.
        """
        if not self._left or self._order.wish.dry_run:
            return None
        if len(self._left) > MANY_LEFT:
            return RepositoryChanged(repository=self._target.repository, whole=True)
        return RepositoryChanged(repository=self._target.repository, tags=tuple(sorted(self._left)))

    # What is to be done with them.

    async def _judge(self, found: Mapping[str, Digest]) -> list[_Work]:
        """Return what has to be copied; of everything else the outcome is noted."""
        unsettled = {
            tag: digest for tag, digest in found.items() if not self._is_settled(tag, digest)
        }
        if len(unsettled) > FEW_LOOKS:
            await self._target.list_tags()
        judged = await all_of(self._judge_one(tag, digest) for tag, digest in unsettled.items())
        return [work for work in judged if work is not None]

    def _is_settled(self, tag: str, digest: Digest) -> bool:
        """Whether nothing is to be done, by what is remembered."""
        memory = self._target.recall(tag)
        if self._order.wish.thorough or memory is None or memory.digest != digest:
            return False
        is_old = self._attempt.now_us() - memory.equal_us > BELIEVED_US
        if is_old or memory.gone_us is not None or memory.has_failed:
            return False
        self._report.tell(self._target.edge(tag), digest, "unchanged")
        return True

    async def _judge_one(self, tag: str, digest: Digest) -> _Work | None:
        async def judge() -> _Work | None:
            async with self._attempt.looks:
                theirs = await self._target.look(tag)
            return await self._decide(tag, digest, theirs)

        return await self._report.guarded(judge(), (self._target.edge(tag),))

    async def _decide(self, tag: str, digest: Digest, theirs: Digest | None) -> _Work | None:
        memory, order, edge = self._target.recall(tag), self._order, self._target.edge(tag)
        agreed = memory.digest if memory is not None else None
        decision = decide(
            digest,
            theirs,
            agreed,
            conflicts=order.conflicts,
            returns=order.returns,
            deletes_return=order.deletes_return and not order.wish.thorough,
        )
        is_conflict = decision.is_conflict and theirs is not None
        match decision:
            case Decision(Verdict.COPY):
                return _Work(tag, digest, theirs, overwrites=is_conflict)
            case Decision(Verdict.EQUAL):
                believed = agreed == digest and not order.wish.thorough
                if believed or self._target.has(digest):
                    await self._agree(tag, digest, Moved(), copied=False)
                    return None
                # Its manifest is there; whether all below it is has not been seen.
                return _Work(tag, digest, theirs, is_there=True)
            case Decision(Verdict.LEFT):
                self._left.add(edge.target_tag)
                what = "removed" if theirs is None else "moved"
                why = f"it was {what} at the target, which another mirror carries back"
                self._report.tell(edge, theirs, "skipped", why=why)
            case Decision(Verdict.KEPT):
                self._report.tell(edge, theirs, "skipped", why="the target was changed by others")
        if is_conflict and theirs is not None:
            self._report.remark(f"{edge}: both have changed, the target is left alone")
            await self._report.note(Conflict(edge, digest, theirs))
        if memory is not None and memory.has_failed:
            await self._report.note(Eased(edge))
        return None

    # Doing it.

    async def _copy_group(self, digest: Digest, group: Sequence[_Work]) -> None:
        """Copy a graph and let its tags name it."""
        edges = tuple(self._target.edge(each.tag) for each in group)
        work = self._foresee if self._order.wish.dry_run else self._carry
        # What is begun with few pulls has to be finished with them.
        turn = self._turn if self._source.pulls.are_few else nullcontext()
        async with self._slots, turn:
            await self._report.guarded(work(digest, group), edges)

    async def _carry(self, digest: Digest, group: Sequence[_Work]) -> None:
        moved = await self._bring(digest, group)
        for each in group:
            if each.tag in moved.left:
                edge = self._target.edge(each.tag)
                await self._report.guarded(self._chase(each.tag), (edge,))
                continue
            await self._agree(each.tag, digest, moved, copied=not each.is_there, work=each)
            # What several tags share is told with the first.
            moved = Moved(referred=moved.referred, left=moved.left)

    async def _chase(self, tag: str) -> None:
        """Follow a tag that has moved on while what it named was copied."""
        for _ in range(MAX_TURNS):
            digest = await self._source.names(tag)
            if digest is None:
                self._report.tell(self._target.edge(tag), None, "skipped", why="it is gone")
                return
            work = await self._decide(tag, digest, await self._target.names(tag))
            if work is None:
                return
            moved = await self._bring(digest, (work,))
            if not moved.left:
                await self._agree(tag, digest, moved, copied=not work.is_there, work=work)
                return
        raise MovingTagError(f"{Reference(self._source.repository, tag)} keeps moving")

    async def _bring(self, digest: Digest, group: Sequence[_Work]) -> Moved:
        """Copy one graph and let those tags name it that still should."""
        work = {each.tag: each for each in group if not each.is_there}

        async def still(tag: str) -> bool:
            return await self._is_still_so(work[tag])

        moved = await self._target.carry(
            self._source.content,
            await self._source.root(digest),
            tuple(work),
            referrers=self._source if self._order.referrers else None,
            still=still,
            progress=self._report.progress(),
        )
        self._report.remark(*moved.notes)
        return moved

    async def _is_still_so(self, work: _Work) -> bool:
        """Whether both ends are as they were when it was decided what is done."""
        was_asked = self._source.was_asked(work.tag)
        if not was_asked and await self._source.names(work.tag) != work.digest:
            return False
        # Where the source is right whatever there is, the look would change nothing.
        careful = self._order.returns or self._order.conflicts is Conflicts.KEEP
        return not careful or await self._target.names(work.tag) == work.theirs

    async def _foresee(self, digest: Digest, group: Sequence[_Work]) -> None:
        """Tell what a copy would take."""
        nodes = await walk(self._source.content, await self._source.root(digest))
        sent_bytes = await self._target.foresee(nodes)
        for each in group:
            action = "copied" if sent_bytes or not each.is_there else "unchanged"
            self._report.tell(self._target.edge(each.tag), digest, action, sent_bytes)
            sent_bytes = 0

    async def _agree(
        self, tag: str, digest: Digest, moved: Moved, *, copied: bool, work: _Work | None = None
    ) -> None:
        """Tell that both ends name the same, and write it down."""
        edge = self._target.edge(tag)
        action = "copied" if copied or moved.sent_bytes else "unchanged"
        overwrote = work.theirs if work is not None and work.overwrites else None
        if overwrote is not None:
            self._report.remark(f"{edge}: both have changed, the target is overwritten")
        self._report.tell(edge, digest, action, moved.sent_bytes)
        await self._report.note(
            Agreed(
                edge=edge,
                digest=digest,
                with_referrers=moved.referred,
                copied=action == "copied",
                sent_bytes=moved.sent_bytes,
                below=frozenset(node.digest for node in moved.manifests) - {digest},
                overwrote=overwrote,
            )
        )
