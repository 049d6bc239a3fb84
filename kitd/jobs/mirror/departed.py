"""Tags that are gone from the source: noted, and removed from the target once that is due."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from kitd.content.together import all_of
from kitd.jobs.mirror.attempt import LOOKS, Attempt, in_parts
from kitd.mirror.decide import departures, subject_of
from kitd.mirror.edge import Back, Eased, Edge, Forgotten, Gone, Memory, Note, Removed
from kitd.mirror.order import Deletes
from kitd.mirror.removal import Fate, Outcome
from kitd.mirror.select import admits
from kitd.oci.digest import Digest

_WHY: Mapping[Outcome, str] = {
    Outcome.MOVED: "the target was changed by others",
    Outcome.SHARED: "the registry removes no tags, and what it names goes by the tag {} too",
    Outcome.LISTED: "the registry removes no tags, and what it names is part of {}",
    Outcome.CHANGED: "the target was changed meanwhile",
}


@dataclass(frozen=True, slots=True)
class _Copy:
    """A tag of the target that is to go, with what it is expected to name."""

    edge: Edge
    digest: Digest


async def note_departures(attempt: Attempt, missing: Container[str]) -> None:
    """Note what the source has lost, and what of that it has again.

    `missing` are tags that it was asked for and lacks.
    """
    listed = attempt.source.listed or {}
    notes: list[Note] = []
    for (tag, _), memory in attempt.target.memory.items():
        if not _is_own(attempt, tag, memory):
            continue
        is_gone = _is_gone(attempt, tag, missing)
        if is_gone and memory.gone_us is None:
            notes.append(Gone(attempt.target.edge(tag)))
        elif memory.gone_us is not None and not is_gone and tag in listed:
            notes.append(Back(attempt.target.edge(tag)))
    await attempt.report.note(*notes)


async def remove_departed(attempt: Attempt, missing: Container[str]) -> None:
    """Remove copies of what has been gone for long enough, unless that looks like an accident.

    How many are gone shows beside all others only: see `Attempt.sees_all`.
    """
    order, target = attempt.order, attempt.target
    if order.deletes is not Deletes.PROPAGATE or not attempt.sees_all:
        return
    now_us = attempt.now_us()
    own = {
        tag: memory for (tag, _), memory in target.memory.items() if _is_own(attempt, tag, memory)
    }
    decided = departures(
        {
            tag: memory.gone_us or now_us
            for tag, memory in own.items()
            if _is_gone(attempt, tag, missing)
            and not any(admits(selection, tag) for selection in order.spares)
        },
        known=len(own),
        removed=await attempt.memory.removed(attempt.source.repository, target.repository),
        now_us=now_us,
        grace_s=order.grace_s,
        allowed=order.wish.allow_deletes,
    )
    if decided.held is not None:
        attempt.report.remark(
            f"{decided.held}: nothing of {target.repository} is removed unless a person"
            " allows it (kitctl mirror run NAME --allow-deletes)"
        )
    copies = [_Copy(target.edge(tag), digest) for tag in decided.due if (digest := own[tag].digest)]
    await (_foresee if order.wish.dry_run else _remove)(attempt, copies)


def _is_own(attempt: Attempt, tag: str, memory: Memory) -> bool:
    """Whether a copy is this mirror's to remove: what others have copied is not."""
    if memory.digest is None:
        return False
    if memory.rule == attempt.order.rule:
        return True
    # Of a pair each side has what either of them has brought there, as far as it is for both.
    is_meant = subject_of(tag) is not None or admits(attempt.order.select, tag)
    return attempt.order.returns and memory.returned and is_meant


def _is_gone(attempt: Attempt, tag: str, missing: Container[str]) -> bool:
    """Whether the source lacks a tag; one that it lists, and whose manifest is lost, it has."""
    listed = attempt.source.listed
    return tag in missing if listed is None else tag not in listed


async def _foresee(attempt: Attempt, copies: Sequence[_Copy]) -> None:
    async def foresee(copy: _Copy) -> None:
        theirs = await attempt.target.names(copy.edge.tag)
        is_ours = theirs in (None, copy.digest)
        await _tell(attempt, copy, Fate(Outcome.REMOVED if is_ours else Outcome.MOVED))

    for part in in_parts(copies, LOOKS):
        await all_of(attempt.report.guarded(foresee(copy), (copy.edge,)) for copy in part)


async def _remove(attempt: Attempt, copies: Sequence[_Copy]) -> None:
    remote = attempt.target.remote
    whole: list[_Copy] = []

    async def remove(copy: _Copy) -> None:
        # The list is from when the job began.
        if await attempt.source.names(copy.edge.tag) is not None:
            await attempt.report.note(Back(copy.edge))
            attempt.report.tell(copy.edge, copy.digest, "skipped", why="the source has it again")
            return
        fate = await remote.remove_tag(copy.edge.target_tag, copy.digest)
        if fate.outcome is Outcome.UNSUPPORTED:
            whole.append(copy)
        else:
            await _tell(attempt, copy, fate)

    async def remove_whole() -> None:
        named = await all_of(attempt.source.names(copy.edge.tag) for copy in whole)
        by_tag = {
            copy.edge.target_tag: copy
            for copy, digest in zip(whole, named, strict=True)
            if digest is None
        }
        going = {tag: copy.digest for tag, copy in by_tag.items()}
        for tag, fate in (await remote.remove_with_manifests(going)).items():
            await _tell(attempt, by_tag[tag], fate)

    for part in (copies[:1], *in_parts(copies[1:], LOOKS)):
        if whole:
            # Who did not remove the first removes none.
            whole += part
        else:
            await all_of(attempt.report.guarded(remove(copy), (copy.edge,)) for copy in part)
    if whole:
        await attempt.report.guarded(remove_whole(), [copy.edge for copy in whole])


async def _tell(attempt: Attempt, copy: _Copy, fate: Fate) -> None:
    """Tell what became of a copy, and write it down."""
    if fate.is_gone:
        await attempt.report.note(Removed(copy.edge, by_person=attempt.order.wish.allow_deletes))
        attempt.report.tell(copy.edge, copy.digest, "deleted")
    else:
        is_theirs = fate.outcome is Outcome.MOVED
        await attempt.report.note(Forgotten(copy.edge) if is_theirs else Eased(copy.edge))
        why = _WHY[fate.outcome].format(fate.by)
        attempt.report.tell(copy.edge, copy.digest, "skipped", why=why)
