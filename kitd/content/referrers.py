"""Copying what refers to content: signatures, SBOMs and attestations travel with their subject.

A referrer names its subject and not the reverse (OCI image spec, manifest.md), so no walk of a
graph meets it: somebody has to be asked for a list. What a list says is hearsay. A referrer is
taken along once its manifest was read and really names the subject; one that does not, or that
cannot be had, is left out with a note and keeps nobody from the content itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from kitd.content.copy import CopyReport, copy_graph
from kitd.content.store import ContentError, Fetcher, MismatchError, Target
from kitd.content.together import all_of
from kitd.content.verify import read_manifest
from kitd.errors import Disposition, KitdError
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest, abbreviate

MAX_REFERRERS = 4096
"""Referrers that travel with one graph, those of referrers among them."""

_T = TypeVar("_T")

ListReferrers = Callable[[Digest], Awaitable[Sequence[Descriptor]]]
"""Returns what is listed as referring to a manifest; a list may end after `MAX_REFERRERS`."""
Resolve = Callable[[Digest], Awaitable[Descriptor]]
"""Returns what a digest of the list really names."""


@dataclass(frozen=True, slots=True)
class ReferrersReport:
    """What travelled along, and in a few words what did not."""

    copies: tuple[CopyReport, ...]
    """One for each referrer; what refers to another comes after that."""
    notes: tuple[str, ...]

    @property
    def sent_bytes(self) -> int:
        """The bytes that travelled."""
        return sum(copy.sent_bytes for copy in self.copies)

    @property
    def skipped_bytes(self) -> int:
        """The bytes that were there already."""
        return sum(copy.skipped_bytes for copy in self.copies)

    @property
    def manifests(self) -> tuple[Descriptor, ...]:
        """All that is there now, children before parents."""
        return tuple(node for copy in self.copies for node in copy.manifests)


async def copy_referrers(
    source: Fetcher,
    target: Target,
    subjects: Iterable[Descriptor],
    *,
    listed: ListReferrers,
    resolve: Resolve,
    concurrency: int,
) -> ReferrersReport:
    """Copy what refers to manifests that are in `target`, what refers to that, and so on.

    Raises only what may pass, so that another try copies all of them.
    """
    seen: set[tuple[Digest, Digest]] = set()
    refusals: list[str] = []
    slots = asyncio.Semaphore(concurrency)

    async def find(level: Iterable[Descriptor]) -> list[tuple[Descriptor, Descriptor]]:
        """Return subjects with what is listed as referring to them, each pair once."""
        found: list[tuple[Descriptor, Descriptor]] = []
        for subject in level:
            for referrer in await _unless_refused(listed(subject.digest), refusals) or ():
                if (subject.digest, referrer.digest) in seen:
                    continue
                if len(seen) == MAX_REFERRERS:
                    refusals.append(f"there are more than {MAX_REFERRERS}")
                    return found
                seen.add((subject.digest, referrer.digest))
                found.append((subject, referrer))
        return found

    async def follow(subject: Descriptor, referrer: Descriptor) -> CopyReport:
        root = await resolve(referrer.digest)
        named = (await read_manifest(source, root)).subject
        if named is None or named.digest != subject.digest:
            raise ContentError(
                f"{abbreviate(root.digest)} is listed as a referrer of"
                f" {abbreviate(subject.digest)} and does not name it"
            )
        return await copy_graph(
            source, target, root, concurrency=1, progress=lambda _done, _total: None
        )

    async def copy(subject: Descriptor, referrer: Descriptor) -> CopyReport | None:
        async with slots:
            return await _unless_refused(follow(subject, referrer), refusals)

    copies: list[CopyReport] = []
    level = tuple(subjects)
    while pairs := await find(level):
        copied = await all_of(copy(*pair) for pair in pairs)
        done = [report for report in copied if report is not None]
        copies += done
        level = tuple(node for report in done for node in report.manifests)
    return ReferrersReport(tuple(copies), _notes(refusals))


async def _unless_refused(work: Awaitable[_T], refusals: list[str]) -> _T | None:
    """Return what comes of `work`; what it will never give is None, with a line on why."""
    try:
        return await work
    except KitdError as error:
        # Content that is not what it was said to be stays so, whatever else retries it.
        if error.disposition is not Disposition.FAIL and not isinstance(error, MismatchError):
            raise
        refusals.append(error.message)
        return None


def _notes(refusals: Sequence[str]) -> tuple[str, ...]:
    if not refusals:
        return ()
    more = f", and {len(refusals) - 1} more" if len(refusals) > 1 else ""
    return (f"not every referrer was copied: {refusals[0]}{more}",)
