"""Mirror: let tags of other repositories follow those of one, with all that they name.

One read of the source serves all targets. A tag moves last, once everything below it is there, and
what is remembered of both ends keeps those from being asked who have nothing new to say.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

import msgspec

from kitd.content.copy import walk
from kitd.content.shared import SharedSource
from kitd.content.store import ContentNotFoundError
from kitd.content.together import all_of
from kitd.content.verify import read, read_manifest
from kitd.errors import Disposition, KitdError
from kitd.jobs.mirror_target import MirrorTarget, Moved
from kitd.jobs.port import MirrorRemote, Ports
from kitd.jobs.transfer import Bytes
from kitd.mirror.decide import Decision, Verdict, decide, departures, digest_tags, subject_of
from kitd.mirror.edge import (
    Agreed,
    Back,
    Conflict,
    Edge,
    Failed,
    Gone,
    Memory,
    Note,
    Referred,
    Removed,
)
from kitd.mirror.order import AS_USUAL, Conflicts, Deletes, MirrorOrder
from kitd.mirror.select import admits, needs_ages, select
from kitd.oci.created import MAX_CONFIG_BYTES, created_by_annotation, created_by_config
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest, parse_digest
from kitd.oci.reference import Reference, parse_repository
from kitd.queue.job import Lane, Progress
from kitd.queue.kind import HUMAN, Done, JobContext, JobKind
from kitd.queue.retry import PartlyDoneError, RetryPolicy

LOOKS = 16
"""Tags that are asked about at once."""
BELIEVED_US = 24 * 3600 * 1_000_000
"""How long a target is believed to have what it was seen to have."""
REFERRERS_US = 3600 * 1_000_000
"""How long nobody looks what has come to refer to what has not changed. Events tell sooner."""
MAX_TURNS = 3
"""How often a tag is followed that moves while it is copied."""
RESERVE = 0.2
"""What of a registry's quota of pulls is left to people."""
LONGEST_REST_S = 1800.0
"""After so long it is looked whether there are pulls again."""
FRESH_S = 1.0
"""How long it is believed that a tag of the source is where it was."""
FEW_LOOKS = 3
"""With more tags than that to look for, a target is asked for all it has."""
MAX_REPORTED = 1000
"""Edges that a result shows, those first that are not unchanged."""


class MirrorIncompleteError(PartlyDoneError):
    """Some tags could not be copied; the others were."""

    code: ClassVar[str] = "mirror_incomplete"
    disposition: ClassVar[Disposition] = Disposition.RETRY


class MirrorRefusedError(PartlyDoneError):
    """Some tags cannot be copied, however often that is tried; the others were."""

    code: ClassVar[str] = "mirror_refused"


class PullsSpentError(KitdError):
    """The registry allows few more pulls for now, and those are left to people."""

    code: ClassVar[str] = "pulls_spent"
    disposition: ClassVar[Disposition] = Disposition.RETRY


class MovingTagError(KitdError):
    """A tag is set anew while what it names is copied, again and again."""

    code: ClassVar[str] = "moving_tag"
    disposition: ClassVar[Disposition] = Disposition.RETRY


class EdgeResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one tag at one target.

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


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Work:
    """A tag that a target lacks, or of which it is not known whether it has all."""

    target: MirrorTarget
    tag: str
    digest: Digest
    theirs: Digest | None
    """What the target's tag named when it was looked at."""
    looked_s: float
    is_there: bool = False


@dataclass(slots=True)
class _Found:
    """What of a source is meant, as it is now."""

    digests: dict[str, Digest] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    listed: Mapping[str, Digest | None] | None = None
    """All tags, where the source was asked for them."""


class _Referrers:
    """What a source lists as referring to its manifests, asked for once for all targets.

    `tags` are all that it has, if that is known.
    """

    def __init__(self, source: MirrorRemote) -> None:
        self.tags: Container[str] | None = None
        self._source = source
        self._listed: dict[Digest, asyncio.Task[Sequence[Descriptor]]] = {}

    async def listed(self, subject: Digest) -> Sequence[Descriptor]:
        """Return what is listed, unchecked."""
        asking = self._listed.get(subject)
        if asking is None or (asking.done() and (asking.cancelled() or asking.exception())):
            asking = asyncio.create_task(self._ask(subject))
            self._listed[subject] = asking
        return await asyncio.shield(asking)

    async def close(self) -> None:
        """End what is still being asked."""
        for asking in self._listed.values():
            asking.cancel()
        await asyncio.gather(*self._listed.values(), return_exceptions=True)

    async def _ask(self, subject: Digest) -> Sequence[Descriptor]:
        return await self._source.referrers(subject, self.tags)

    async def resolve(self, digest: Digest) -> Descriptor:
        """Return what a digest of the list really names."""
        return await self._source.resolve(digest)


class _Mirror:
    """One attempt."""

    def __init__(
        self,
        order: MirrorOrder,
        context: JobContext,
        ports: Ports,
        source: MirrorRemote,
        shared: SharedSource,
        targets: Sequence[MirrorTarget],
    ) -> None:
        self._order = order
        self._context = context
        self._ports = ports
        self._repository = parse_repository(order.source)
        self._source = source
        self._shared = shared
        self._targets = targets
        self._referrers = _Referrers(source)
        self._looks = asyncio.Semaphore(LOOKS)
        self._pulling = 0
        self._roots: dict[Digest, Descriptor] = {}
        self._seen_s: dict[str, float] = {}
        """When the source was asked for a tag, and not for a list of them."""
        self._is_absent = False
        self._results: list[EdgeResult] = []
        self._failures: list[KitdError] = []
        self._notes: list[str] = []
        self._done_bytes = 0
        self._total_bytes = 0

    async def run(self) -> Done:
        """Do all that is to be done, and report it. Raises `KitdError` if some of it failed."""
        try:
            return await self._run()
        finally:
            await self._referrers.close()

    async def _run(self) -> Done:
        found = await self._find()
        self._referrers.tags = found.listed
        work = await self._judge(found)
        if not self._order.wish.dry_run:
            found_more = await self._companions(found, work)
            work += await self._judge(found_more)
            found.digests.update(found_more.digests)
        await self._copy(work)
        await self._refer_again(found)
        await self._remove(found)
        if self._failures:
            raise self._summary()
        return Done(self._result())

    # Which tags there are.

    async def _find(self) -> _Found:
        """Return the tags that are meant and what they name."""
        order, found = self._order, _Found()
        # What is among the newest shows beside the others.
        ranks = order.select.newest is not None or order.select.max_age_s is not None
        if (order.tags is None and not order.manifests) or ranks:
            found.listed = await self._list()
        meant = tuple(found.listed or ()) if order.tags is None and found.listed else order.tags
        admitted = [tag for tag in meant or () if admits(order.select, tag)]
        if ranks:
            admitted = await self._newest(found, admitted)
        await self._resolve(found, admitted)
        if order.rule is None and order.tags and found.gone:
            # Whoever names a tag wants that one, and not whatever there is.
            gone = Reference(self._repository, min(found.gone))
            raise ContentNotFoundError(f"there is no {gone}", hint="correct the tag")
        if order.digest_tags:
            known = self._agreed_digests() | set(found.digests.values())
            companions = [tag for tag in meant or () if _is_companion(tag, known)]
            await self._resolve(found, companions)
        return found

    async def _list(self) -> Mapping[str, Digest | None]:
        try:
            return {tag.name: tag.digest async for tag in self._source.tags()}
        except ContentNotFoundError:
            if self._order.tags is None and not any(target.memory for target in self._targets):
                raise
            # It was there once: whatever has happened to it is no reason to empty its mirrors.
            self._notes.append(f"{self._repository} is not there: nothing is removed")
            self._is_absent = True
            return {}

    async def _newest(self, found: _Found, tags: Sequence[str]) -> list[str]:
        """Return those of `tags` that are new enough among all that are admitted."""
        listed = [tag for tag in found.listed or () if admits(self._order.select, tag)]
        made_us: dict[str, int | None] = dict.fromkeys(listed)
        if needs_ages(self._order.select):
            everything = _Found(listed=found.listed)
            await self._resolve(everything, listed)
            ages = await self._ages(set(everything.digests.values()))
            made_us |= {tag: ages.get(digest) for tag, digest in everything.digests.items()}
        chosen = set(select(self._order.select, made_us, self._ports.clock.now_us()))
        # What is gone is not among them, and has to be noted as that.
        return [tag for tag in tags if tag in chosen or tag not in made_us]

    async def _ages(self, digests: set[Digest]) -> Mapping[Digest, int]:
        """Return when manifests were made; those that are new are read for it."""
        known = await self._ports.mirrors.ages(digests)
        read = await all_of(self._age(digest) for digest in digests - known.keys())
        learned = {digest: at_us for digest, at_us in read if at_us is not None}
        if learned and not self._order.wish.dry_run:
            await self._ports.mirrors.learn_ages(learned)
        return {**known, **learned}

    async def _age(self, digest: Digest) -> tuple[Digest, int | None]:
        async with self._looks:
            root = await self._root(digest)
            manifest = await read_manifest(self._source, root)
            at_us, config = created_by_annotation(manifest.annotations), manifest.config
            if at_us is None and config is not None and config.size <= MAX_CONFIG_BYTES:
                content = await read(self._source, config, max_bytes=MAX_CONFIG_BYTES)
                at_us = created_by_config(content)
            return digest, at_us

    async def _resolve(self, found: _Found, tags: Iterable[str]) -> None:
        """Find out what tags name; those that are gone are noted as that."""

        async def resolve(tag: str) -> None:
            listed = (found.listed or {}).get(tag)
            if listed is not None:
                found.digests[tag] = listed
                return
            edges = [target.edge(tag) for target in self._targets]
            digest = await self._guarded(self._look_up(found, tag), edges)
            if digest is not None:
                found.digests[tag] = digest

        await all_of(resolve(tag) for tag in tags)

    async def _look_up(self, found: _Found, tag: str) -> Digest | None:
        """Return what a tag of the source names; one that is gone is noted as that."""
        async with self._looks:
            try:
                return await self._read(tag)
            except ContentNotFoundError:
                found.gone.add(tag)
                return None

    async def _read(self, tag: str) -> Digest:
        is_known = any(target.recall(tag) for target in self._targets)
        if is_known or needs_ages(self._order.select) or self._spent() is not None:
            root = await self._source.resolve(tag)
        else:
            # It will be copied: one request tells what it is, and has it.
            with self._pull():
                root, content = await self._source.read_tag(tag)
            self._shared.offer(root, content)
        self._roots[root.digest] = root
        self._seen_s[tag] = time.monotonic()
        return root.digest

    @contextmanager
    def _pull(self) -> Iterator[None]:
        self._pulling += 1
        try:
            yield
        finally:
            self._pulling -= 1

    def _spent(self) -> PullsSpentError | None:
        """Return why nothing more is pulled, where the rest is left to people."""
        left = self._source.pulls_left()
        if left is None or self._context.job.priority >= HUMAN:
            return None
        remaining, limit, window_s = left
        # What is on its way was not counted yet when that was said.
        if remaining - self._pulling > limit * RESERVE:
            return None
        error = PullsSpentError(
            f"{self._repository.registry} allows {remaining} of {limit} pulls for now,"
            " which are left to people",
            hint="log in for more, or have it copied all the same: kitctl mirror run NAME",
        )
        error.retry_after_s = min(window_s, LONGEST_REST_S)
        return error

    async def _root(self, digest: Digest) -> Descriptor:
        root = self._roots.get(digest)
        if root is None:
            root = self._roots[digest] = await self._source.resolve(digest)
        return root

    def _agreed_digests(self) -> set[Digest]:
        return {
            memory.digest
            for target in self._targets
            for memory in target.memory.values()
            if memory.digest is not None
        }

    async def _companions(self, found: _Found, work: Sequence[_Work]) -> _Found:
        """Return the digest tags of what will be copied, where they were not listed yet."""
        more = _Found(listed=found.listed)
        if not self._order.digest_tags or not work or found.listed is not None:
            return more
        more.listed = await self._list()
        wanted = {tag for each in work for tag in digest_tags(each.digest)}
        await self._resolve(more, (wanted & more.listed.keys()) - found.digests.keys())
        return more

    # What is to be done with them.

    async def _judge(self, found: _Found) -> list[_Work]:
        """Return what has to be copied; of everything else the outcome is noted."""
        open_edges = [
            (target, tag, digest)
            for tag, digest in sorted(found.digests.items())
            for target in self._targets
            if not self._is_settled(target, tag, digest)
        ]
        counts = Counter(target for target, _, _ in open_edges)
        for target in self._targets:
            if counts[target] > FEW_LOOKS:
                await self._guarded(target.list_tags(), ())
        judged = await all_of(self._judge_one(*each) for each in open_edges)
        return [work for work in judged if work is not None]

    def _is_settled(self, target: MirrorTarget, tag: str, digest: Digest) -> bool:
        """Whether nothing is to be done, by what is remembered."""
        memory = target.recall(tag)
        if self._order.wish.thorough or memory is None or memory.digest != digest:
            return False
        is_old = self._ports.clock.now_us() - memory.equal_us > BELIEVED_US
        if is_old or memory.gone_us is not None:
            return False
        self._tell(target.edge(tag), digest, "unchanged")
        return True

    async def _judge_one(self, target: MirrorTarget, tag: str, digest: Digest) -> _Work | None:
        async def judge() -> _Work | None:
            async with self._looks:
                theirs = await target.look(tag)
            return await self._follow(target, tag, digest, theirs)

        return await self._guarded(judge(), (target.edge(tag),))

    async def _follow(
        self, target: MirrorTarget, tag: str, digest: Digest, theirs: Digest | None
    ) -> _Work | None:
        memory, order = target.recall(tag), self._order
        agreed = memory.digest if memory is not None else None
        decision = decide(digest, theirs, agreed, conflicts=order.conflicts, returns=order.returns)
        edge = target.edge(tag)
        if decision.is_conflict and theirs is not None:
            overwritten = decision.verdict is Verdict.COPY
            await self._note(Conflict(edge, digest, theirs, overwritten))
            outcome = "overwritten" if overwritten else "left alone"
            self._notes.append(f"{edge}: both have changed, the target is {outcome}")
        match decision:
            case Decision(Verdict.COPY):
                return _Work(target, tag, digest, theirs, time.monotonic())
            case Decision(Verdict.EQUAL):
                believed = agreed == digest and not order.wish.thorough
                if believed or target.has(digest):
                    await self._agree(edge, digest, Moved(), copied=False)
                    return None
                # Its manifest is there; whether all below it is has not been seen.
                return _Work(target, tag, digest, theirs, time.monotonic(), is_there=True)
            case Decision(Verdict.LEFT):
                self._tell(edge, theirs, "skipped", why="the target has moved on")
            case Decision(Verdict.KEPT):
                self._tell(edge, theirs, "skipped", why="the target was changed by others")
        return None

    # Doing it.

    async def _copy(self, work: Sequence[_Work]) -> None:
        """Copy every graph to the targets that lack it, each target at its own pace."""
        groups: dict[tuple[MirrorTarget, Digest], list[_Work]] = {}
        for each in work:
            groups.setdefault((each.target, each.digest), []).append(each)
        await all_of(
            self._copy_group(target, digest, group) for (target, digest), group in groups.items()
        )

    async def _copy_group(
        self,
        target: MirrorTarget,
        digest: Digest,
        group: Sequence[_Work],
    ) -> None:
        async with target.slots:
            edges = tuple(each.target.edge(each.tag) for each in group)
            if self._order.wish.dry_run:
                await self._guarded(self._foresee(target, digest, group), edges)
            else:
                await self._guarded(self._carry(target, digest, group), edges)

    async def _carry(
        self,
        target: MirrorTarget,
        digest: Digest,
        group: Sequence[_Work],
    ) -> None:
        """Copy one graph to one target and let its tags name it."""
        spent = None if self._shared.has(digest) else self._spent()
        if spent is not None:
            raise spent
        moved = await self._bring(target, digest, group)
        self._notes.extend(moved.notes)
        for each in group:
            edge = target.edge(each.tag)
            if each.tag in moved.left:
                await self._chase(target, each.tag)
                continue
            await self._agree(edge, digest, moved, copied=not each.is_there)
            # What several tags share is told with the first.
            moved = Moved()

    async def _chase(self, target: MirrorTarget, tag: str, turn: int = 1) -> None:
        """Follow a tag that has moved on while what it named was copied."""
        digest = await self._source_names(tag)
        edge = target.edge(tag)
        if digest is None or turn == MAX_TURNS:
            self._tell(edge, digest, "skipped", why="its tags keep moving")
            moving = Reference(self._repository, tag)
            self._failures.append(MovingTagError(f"{moving} keeps moving"))
            return
        work = await self._follow(target, tag, digest, await target.look(tag, now=True))
        if work is None:
            return

        moved = await self._bring(target, digest, (work,))
        if moved.left:
            await self._chase(target, tag, turn + 1)
        else:
            await self._agree(edge, digest, moved, copied=True)

    async def _bring(self, target: MirrorTarget, digest: Digest, group: Sequence[_Work]) -> Moved:
        """Copy one graph to one target and let those tags name it that still should."""
        work = {each.tag: each for each in group if not each.is_there}

        async def still(tag: str) -> bool:
            return await self._is_still_so(work[tag])

        return await target.carry(
            self._shared,
            await self._root(digest),
            tuple(work),
            referrers=self._referrers if self._order.referrers else None,
            still=still,
            progress=self._progress(),
        )

    async def _is_still_so(self, work: _Work) -> bool:
        """Whether both ends are as they were when it was decided what is done."""
        now_s = time.monotonic()
        was_asked = now_s - self._seen_s.get(work.tag, -FRESH_S) < FRESH_S
        if not was_asked and await self._source_names(work.tag) != work.digest:
            return False
        # Where the source is right whatever there is, the look would change nothing.
        careful = self._order.returns or self._order.conflicts is Conflicts.KEEP
        if not careful or now_s - work.looked_s < FRESH_S:
            return True
        return await work.target.look(work.tag, now=True) == work.theirs

    async def _source_names(self, tag: str) -> Digest | None:
        try:
            root = await self._source.resolve(tag)
        except ContentNotFoundError:
            return None
        self._roots[root.digest] = root
        self._seen_s[tag] = time.monotonic()
        return root.digest

    async def _foresee(self, target: MirrorTarget, digest: Digest, group: Sequence[_Work]) -> None:
        """Tell what a copy would take."""
        nodes = await walk(self._source, await self._root(digest))
        sent_bytes = await target.foresee(nodes)
        for each in group:
            action = "unchanged" if each.is_there else "copied"
            self._tell(target.edge(each.tag), digest, action, sent_bytes)
            sent_bytes = 0

    # What refers to what has not changed.

    async def _refer_again(self, found: _Found) -> None:
        """Copy what has come to refer to manifests that the targets have already."""
        if not self._order.referrers or self._order.wish.dry_run:
            return
        asked = {
            subject[0]
            for subject in map(subject_of, self._order.tags or ())
            if subject is not None and not subject[1]
        }
        for text in self._order.manifests:
            subject = await self._subject(parse_digest(text))
            asked |= {subject} if subject else set()
        work: dict[tuple[MirrorTarget, Digest], list[Edge]] = {}
        for target in self._targets:
            for digest, edge in self._due(target, found, asked):
                work.setdefault((target, digest), []).append(edge)
        await all_of(
            self._guarded(self._refer(target, digest, edges), edges)
            for (target, digest), edges in work.items()
        )

    def _due(
        self, target: MirrorTarget, found: _Found, asked: set[Digest]
    ) -> Iterable[tuple[Digest, Edge]]:
        """Yield what a target has and whose referrers were not looked at for long enough."""
        now_us = self._ports.clock.now_us()
        for (tag, _), memory in target.memory.items():
            digest = memory.digest
            if digest is None or target.has_referred(digest):
                continue
            old = now_us - memory.referrers_us > REFERRERS_US or self._order.wish.thorough
            if digest in asked or (old and found.digests.get(tag) == digest):
                yield digest, target.edge(tag)

    async def _subject(self, digest: Digest) -> Digest | None:
        """Return what a manifest of the source refers to, None for nothing or no manifest."""
        try:
            manifest = await read_manifest(self._source, await self._source.resolve(digest))
        except ContentNotFoundError:
            return None
        return None if manifest.subject is None else manifest.subject.digest

    async def _refer(self, target: MirrorTarget, digest: Digest, edges: Sequence[Edge]) -> None:
        async with target.slots:
            moved = await target.refer(self._shared, await self._root(digest), self._referrers)
        self._notes.extend(moved.notes)
        await self._note(*(Referred(edge, digest, moved.sent_bytes) for edge in edges))

    # What is gone.

    async def _remove(self, found: _Found) -> None:
        """Note which tags are gone, and remove their copies once that is so for long enough."""
        for target in self._targets:
            if not self._order.wish.dry_run:
                await self._note_gone(target, found)
            # How many are gone shows beside all others only.
            sees_all = self._sees_all(found) and not self._is_absent
            if self._order.deletes is Deletes.PROPAGATE and sees_all:
                await self._remove_from(target, found)

    async def _note_gone(self, target: MirrorTarget, found: _Found) -> None:
        """Note what the source has lost, and what of that it has again."""
        if self._is_absent:
            return
        notes: list[Note] = []
        for (tag, _), memory in target.memory.items():
            is_gone = self._is_gone(tag, found)
            if is_gone and memory.gone_us is None:
                notes.append(Gone(target.edge(tag)))
            elif memory.gone_us is not None and not is_gone and tag in (found.listed or ()):
                notes.append(Back(target.edge(tag)))
        await self._note(*notes)

    def _is_gone(self, tag: str, found: _Found) -> bool:
        return tag in found.gone or (self._sees_all(found) and tag not in (found.listed or ()))

    def _sees_all(self, found: _Found) -> bool:
        """Whether what is not listed is gone."""
        return self._order.tags is None and found.listed is not None

    async def _remove_from(self, target: MirrorTarget, found: _Found) -> None:
        now_us = self._ports.clock.now_us()
        # What others have copied is not this mirror's to remove.
        own = {
            tag: memory
            for (tag, _), memory in target.memory.items()
            if memory.rule == self._order.rule and memory.digest is not None
        }
        gone = {
            tag: memory.gone_us or now_us
            for tag, memory in own.items()
            if self._is_gone(tag, found)
        }
        decided = departures(
            gone,
            known=len(own),
            now_us=now_us,
            grace_s=self._order.grace_s,
            allowed=self._order.wish.allow_deletes,
        )
        if decided.held is not None:
            self._notes.append(
                f"{decided.held}: nothing of {target.repository} is removed unless a person"
                " allows it (kitctl mirror run NAME --allow-deletes)"
            )
        await all_of(self._remove_one(target, tag, own[tag]) for tag in decided.due)

    async def _remove_one(self, target: MirrorTarget, tag: str, memory: Memory) -> None:
        edge = target.edge(tag)

        async def remove() -> None:
            theirs = await target.look(tag, now=True)
            if theirs is not None and theirs != memory.digest:
                self._tell(edge, theirs, "skipped", why="the target was changed by others")
                return
            if not self._order.wish.dry_run:
                if theirs is not None:
                    await target.remote.remove_tag(edge.target_tag)
                await self._note(Removed(edge))
            self._tell(edge, memory.digest, "deleted")

        async with target.slots:
            await self._guarded(remove(), (edge,))

    # Telling.

    async def _guarded(self, work: Awaitable[_T], edges: Sequence[Edge]) -> _T | None:
        """Return what comes of work; what fails of it fails those edges and no others."""
        try:
            return await work
        except KitdError as error:
            if error.disposition in (Disposition.FATAL, Disposition.PAUSE):
                raise
            self._failures.append(error)
            for edge in edges:
                self._tell(edge, None, "failed", why=error.message)
            if not self._order.wish.dry_run:
                await self._note(*(Failed(edge, error.code, error.message) for edge in edges))
            return None

    async def _agree(self, edge: Edge, digest: Digest, moved: Moved, *, copied: bool) -> None:
        action = "copied" if copied or moved.sent_bytes else "unchanged"
        self._tell(edge, digest, action, moved.sent_bytes)
        if self._order.wish.dry_run:
            return
        await self._note(
            Agreed(
                edge=edge,
                digest=digest,
                with_referrers=moved.referred,
                copied=action == "copied",
                sent_bytes=moved.sent_bytes,
            )
        )

    async def _note(self, *notes: Note) -> None:
        await self._ports.mirrors.note(self._order.rule, notes)

    def _tell(
        self,
        edge: Edge,
        digest: Digest | None,
        action: str,
        sent_bytes: int = 0,
        *,
        why: str | None = None,
    ) -> None:
        self._results.append(
            EdgeResult(
                source=str(Reference(edge.source, edge.tag)),
                target=str(Reference(edge.target, edge.target_tag)),
                digest=digest,
                action=action,
                bytes=sent_bytes,
                why=why,
            )
        )

    def _progress(self) -> Callable[[int, int], None]:
        """Return what is told of one copy, which is added to what is told of all."""
        done, total = 0, 0

        def progress(done_bytes: int, total_bytes: int) -> None:
            nonlocal done, total
            self._done_bytes += done_bytes - done
            self._total_bytes += total_bytes - total
            done, total = done_bytes, total_bytes
            self._context.report(Progress("mirroring", self._done_bytes, self._total_bytes))

        return progress

    def _summary(self) -> KitdError:
        """Return the error for all that failed."""
        first = self._failures[0]
        failed = sum(result.action == "failed" for result in self._results)
        others = f" ({failed} of {len(self._results)} tags failed)" if failed > 1 else ""
        message = f"{self._repository} was not mirrored whole: {first.message}{others}"
        if all(failure.disposition is Disposition.FAIL for failure in self._failures):
            return MirrorRefusedError(message, hint=first.hint, result=self._result())
        error = MirrorIncompleteError(message, hint=first.hint, result=self._result())
        # As early as one of them may be tried again.
        passing = [each for each in self._failures if each.disposition is not Disposition.FAIL]
        waits = [failure.retry_after_s for failure in passing]
        if all(wait_s is not None for wait_s in waits):
            error.retry_after_s = min(wait_s for wait_s in waits if wait_s is not None)
        return error

    def _result(self) -> MirrorResult:
        counts = Counter(result.action for result in self._results)
        shown = sorted(
            self._results,
            key=lambda result: (result.action == "unchanged", result.source, result.target),
        )
        if self._context.job.priority < HUMAN:
            # Nobody waits for these, and a schedule would fill the ledger with them.
            shown = [result for result in shown if result.action != "unchanged"]
        notes = self._notes
        if len(shown) > MAX_REPORTED:
            notes = [*notes, f"{len(shown) - MAX_REPORTED} more tags are not shown"]
        # A copy counts what it mounted as skipped.
        mounted_bytes = sum(target.remote.mounted_bytes for target in self._targets)
        foreseen_bytes = sum(target.mounted_bytes for target in self._targets)
        return MirrorResult(
            edges=tuple(shown[:MAX_REPORTED]),
            counts=counts,
            bytes=Bytes(
                sent=sum(target.sent_bytes for target in self._targets),
                mounted=mounted_bytes + foreseen_bytes,
                skipped=sum(target.skipped_bytes for target in self._targets) - mounted_bytes,
            ),
            dry_run=self._order.wish.dry_run,
            notes=tuple(dict.fromkeys(notes)),
        )


def _is_companion(tag: str, subjects: set[Digest]) -> bool:
    """Whether older tools keep under a tag what is about one of these manifests."""
    subject = subject_of(tag)
    return subject is not None and bool(subject[1]) and subject[0] in subjects


async def run(order: MirrorOrder, context: JobContext, ports: Ports) -> Done:
    """Mirror once. Raises `KitdError`."""
    repository = parse_repository(order.source)
    source = await ports.mirror_remote(repository)
    targets = []
    for target in order.targets:
        where = parse_repository(target.repository)
        memory = await ports.mirrors.edges(repository, where)
        remote = await ports.mirror_remote(where)
        targets.append(
            MirrorTarget(repository, where, target.tag, remote, memory, transfers=ports.transfers)
        )
    held = ports.cache.hold()
    context.when_over(held.release)
    # What only one wants goes there straight.
    keeps = ports.keeps if len(targets) > 1 else _never
    async with SharedSource(source, held, keeps) as shared:
        return await _Mirror(order, context, ports, source, shared, targets).run()


def _never(_size: int) -> bool:
    return False


def _key(order: MirrorOrder) -> str:
    kind = "plan" if order.wish.dry_run else "mirror"
    if order.wish != AS_USUAL:
        # What a person wishes for is not served by what is done as usual.
        kind += f" {msgspec.json.encode(order.wish).decode()}"
    if order.rule is None:
        # Nothing but the same wish stands for what a person asked for.
        return f"{kind} {msgspec.json.encode(order).decode()}"
    what = ",".join((*(order.tags or ()), *order.manifests)) or "*"
    return f"{kind} {order.rule} {order.source} {what}"


def _lock(order: MirrorOrder) -> str:
    # Mirrors that carry to each other take turns: neither sees half of what the other does.
    ends = sorted({order.source, *(target.repository for target in order.targets)})
    return " ".join(ends) + (" plan" if order.wish.dry_run else "")


MIRROR: JobKind[MirrorOrder, Ports] = JobKind(
    name="mirror",
    lane=Lane.MIRROR,
    args=MirrorOrder,
    retry=RetryPolicy(max_attempts=20),
    key=_key,
    lock=_lock,
    run=run,
    mirror=lambda args: args.rule,
)
