"""What has come to refer to manifests that the target has already: signatures, SBOMs and so on."""

from collections.abc import Iterable, Iterator, Mapping

from kitd.content.store import ContentNotFoundError
from kitd.content.together import all_of
from kitd.jobs.mirror.attempt import Attempt, in_parts
from kitd.mirror.decide import subject_of
from kitd.mirror.edge import Edge, Referred
from kitd.oci.digest import Digest, parse_digest

REFERRERS_US = 3600 * 1_000_000
"""How long nobody looks what has come to refer to what has not changed. Events tell sooner."""
MAX_SUBJECTS = 8
"""How long a row of manifests may be of which each refers to the next."""
AT_ONCE = 16


async def refer_again(attempt: Attempt, found: Mapping[str, Digest]) -> None:
    """Copy what refers to graphs among `found` of which that was not looked at for long enough."""
    await _refer_to(attempt, _due(attempt, found))


async def refer_as_told(attempt: Attempt) -> None:
    """Copy what refers to the graphs that the order's manifests and tags of referrers are about."""
    tags = map(subject_of, attempt.order.tags or ())
    subjects = {subject[0] for subject in tags if subject is not None and not subject[1]}
    for text in attempt.order.manifests:
        subjects.update(await _subjects(attempt, parse_digest(text)))
    if not subjects:
        return
    source, target = attempt.source.repository, attempt.target.repository
    agreed = await attempt.memory.agreed_on(source, target, subjects)
    await _refer_to(
        attempt,
        (
            (digest, Edge(source, tag, target, target_tag))
            for digest, tags in agreed.items()
            for tag, target_tag in tags
        ),
    )


def _due(attempt: Attempt, found: Mapping[str, Digest]) -> Iterator[tuple[Digest, Edge]]:
    now_us = attempt.now_us()
    for tag, digest in found.items():
        memory = attempt.target.recall(tag)
        if memory is None or memory.digest != digest or attempt.target.has_referred(digest):
            continue
        if now_us - memory.referrers_us > REFERRERS_US or attempt.order.wish.thorough:
            yield digest, attempt.target.edge(tag)


async def _subjects(attempt: Attempt, digest: Digest) -> list[Digest]:
    """Return what a manifest of the source refers to, what that refers to, and so on."""
    subjects: list[Digest] = []
    for _ in range(MAX_SUBJECTS):
        try:
            manifest = await attempt.source.manifest(digest)
        except ContentNotFoundError:
            break
        if manifest.subject is None or manifest.subject.digest in subjects:
            break
        digest = manifest.subject.digest
        subjects.append(digest)
    return subjects


async def _refer_to(attempt: Attempt, due: Iterable[tuple[Digest, Edge]]) -> None:
    if not attempt.order.referrers or attempt.order.wish.dry_run:
        return
    work: dict[Digest, list[Edge]] = {}
    for digest, edge in due:
        work.setdefault(digest, []).append(edge)
    for part in in_parts(list(work.items()), AT_ONCE):
        await all_of(
            attempt.report.guarded(_refer(attempt, digest, edges), edges) for digest, edges in part
        )


async def _refer(attempt: Attempt, digest: Digest, edges: list[Edge]) -> None:
    source = attempt.source
    moved = await attempt.target.refer(source.content, await source.root(digest), source)
    attempt.report.remark(*moved.notes)
    await attempt.report.note(*(Referred(edge, digest, moved.sent_bytes) for edge in edges))
