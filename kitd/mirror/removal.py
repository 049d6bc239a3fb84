"""Which manifests may go where a registry removes no tags, but manifests with all their tags."""

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter

from kitd.oci.digest import Digest


class Outcome(enum.StrEnum):
    """What became of a tag that was to go."""

    REMOVED = "removed"
    ABSENT = "absent"
    """It was not there, or it went by itself."""
    MOVED = "moved"
    """It names something else than was expected, and stays."""
    SHARED = "shared"
    """A tag that stays names the same manifest."""
    LISTED = "listed"
    """An index that stays lists the manifest, itself or by another index."""
    CHANGED = "changed"
    """Somebody else has changed the repository meanwhile; it can be tried again."""
    UNSUPPORTED = "unsupported"
    """The registry removes no tags; its manifest may go with it: see `plan_removal`."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a tag; `by` is the tag that keeps it, for what is shared or listed."""

    outcome: Outcome
    by: str | None = None

    @property
    def is_gone(self) -> bool:
        """Whether the tag is not there any more."""
        return self.outcome in {Outcome.REMOVED, Outcome.ABSENT}


@dataclass(frozen=True, slots=True)
class Removal:
    """What may be done about tags that are to go."""

    digests: tuple[Digest, ...]
    """Manifests that may be deleted, indexes before what they list."""
    kept: Mapping[str, Fate]
    """The tags that do not go with them, and why."""


def plan_removal(
    tags: Mapping[str, Digest],
    children: Mapping[Digest, Collection[Digest]],
    going: Mapping[str, Digest],
) -> Removal:
    """Return which manifests may be deleted so that `going` goes, and nothing else is touched.

    `tags` are all of a repository, with what each names; `children` is what each index lists that a
    tag names, and each index below it, without circles. `going` are the tags that are to go, with
    what each is expected to name. A manifest may be deleted if all tags that name it are to go, and
    no tag that stays names an index that lists it, at whatever depth. What refers to it (its
    signatures) is no reason to keep it.
    """
    staying = {tag: tags[tag] for tag in sorted(tags) if going.get(tag) != tags[tag]}
    sharers: dict[Digest, str] = {}
    listers: dict[Digest, str] = {}
    for tag, digest in staying.items():
        sharers.setdefault(digest, tag)
        pending = [digest]
        while pending:
            for child in children.get(pending.pop(), ()):
                if child not in listers:
                    listers[child] = tag
                    pending.append(child)
    kept: dict[str, Fate] = {}
    doomed: set[Digest] = set()
    for tag, digest in going.items():
        if tag not in tags:
            kept[tag] = Fate(Outcome.ABSENT)
        elif tags[tag] != digest:
            kept[tag] = Fate(Outcome.MOVED)
        elif digest in sharers:
            kept[tag] = Fate(Outcome.SHARED, sharers[digest])
        elif digest in listers:
            kept[tag] = Fate(Outcome.LISTED, listers[digest])
        else:
            doomed.add(digest)
    return Removal(tuple(_indexes_first(doomed, children)), kept)


def _indexes_first(
    doomed: Collection[Digest], children: Mapping[Digest, Collection[Digest]]
) -> list[Digest]:
    order = TopologicalSorter[Digest](dict.fromkeys(sorted(doomed), ()))
    for index, listed in children.items():
        for child in listed:
            order.add(child, index)
    return [digest for digest in order.static_order() if digest in doomed]
