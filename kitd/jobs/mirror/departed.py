"""Tags that are gone from the source: noted, and removed from the target once that is due."""

from collections.abc import Container
from itertools import islice

from kitd.content.together import all_of
from kitd.jobs.mirror.attempt import LOOKS, Attempt
from kitd.mirror.decide import departures
from kitd.mirror.edge import Back, Gone, Memory, Note, Removed
from kitd.mirror.order import Deletes
from kitd.mirror.select import admits


async def note_departures(attempt: Attempt, missing: Container[str]) -> None:
    """Note what the source has lost, and what of that it has again.

    `missing` are tags that it was asked for and lacks.
    """
    listed = attempt.source.listed or {}
    notes: list[Note] = []
    for (tag, _), memory in attempt.target.memory.items():
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
    own = {tag: memory for (tag, _), memory in target.memory.items() if _is_own(attempt, memory)}
    decided = departures(
        {
            tag: memory.gone_us or now_us
            for tag, memory in own.items()
            if _is_gone(attempt, tag, missing)
            and not any(admits(selection, tag) for selection in order.spares)
        },
        known=len(own),
        now_us=now_us,
        grace_s=order.grace_s,
        allowed=order.wish.allow_deletes,
    )
    if decided.held is not None:
        attempt.report.remark(
            f"{decided.held}: nothing of {target.repository} is removed unless a person"
            " allows it (kitctl mirror run NAME --allow-deletes)"
        )
    rest = iter(decided.due)
    while part := tuple(islice(rest, LOOKS)):
        await all_of(
            attempt.report.guarded(_remove(attempt, tag, own[tag]), (target.edge(tag),))
            for tag in part
        )


def _is_own(attempt: Attempt, memory: Memory) -> bool:
    """Whether a copy is this mirror's to remove: what others have copied is not."""
    agreed_here = memory.rule == attempt.order.rule
    # Of a pair each side has what either of them has brought there.
    agreed_there = attempt.order.returns and memory.returned
    return memory.digest is not None and (agreed_here or agreed_there)


def _is_gone(attempt: Attempt, tag: str, missing: Container[str]) -> bool:
    return tag in missing or (attempt.sees_all and tag not in (attempt.source.listed or ()))


async def _remove(attempt: Attempt, tag: str, memory: Memory) -> None:
    target, edge = attempt.target, attempt.target.edge(tag)
    theirs = await target.look(tag, now=True)
    if theirs is not None and theirs != memory.digest:
        attempt.report.tell(edge, theirs, "skipped", why="the target was changed by others")
        return
    if theirs is not None and not attempt.order.wish.dry_run:
        await target.remote.remove_tag(edge.target_tag)
    await attempt.report.note(Removed(edge))
    attempt.report.tell(edge, memory.digest, "deleted")
