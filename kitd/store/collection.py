"""What of the cache may go, in which order, and why the rest stays. Pure.

A kit goes whole, in a bundle with what only makes sense together with it: the index that lists it
and what refers to it. Nothing that a kept kit consists of or refers to goes, and nothing that
refers to a kept kit: a signature is worth as much as what it signs.

Two things are unknown here, and are the collector's to find out before it acts: whether a registry
that is said to hold a kit still does, and whether anything was used since the inventory was taken.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kitd.config.model import CacheConfig
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.reference import Reference, Repository

GRACE_S = 3600.0
"""How old a blob has to be that no kit needs: its manifest may be on its way."""
PARTIAL_KEPT_S = 7 * 24 * 3600.0
"""How long it is remembered what has arrived of a blob that nobody went on with."""
_SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedKit:
    """A manifest of the catalogue, with all that speaks for keeping it.

    Two of them are equal if nothing happened to the kit in between.
    """

    target: Descriptor
    children: tuple[Descriptor, ...]
    """Config and layers, or the manifests of an index."""
    subject: Digest | None
    used_us: int
    tags: tuple[Reference, ...]
    repositories: tuple[Repository, ...]
    """Those of the cache that know it."""
    locations: tuple[Repository, ...]
    """Those elsewhere that a push or a pull proved to hold it."""
    pinned_as: str | None = None
    needed_by: int | None = None
    """A job that waits or runs."""
    project: str | None = None
    """The project whose last kit this is."""
    built_on_by: Digest | None = None
    """A kit that builds on this one by digest, in a repository whose registry may not have it."""
    may_be_built_on: bool = False
    """Some kit was not looked at yet, and may build on this one in the same way."""

    @property
    def digest(self) -> Digest:
        """The digest of its manifest."""
        return self.target.digest

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Its manifest and everything that is directly below it."""
        return (self.target, *self.children)

    @property
    def name(self) -> str:
        """What a person calls it."""
        if self.tags:
            return str(self.tags[0])
        if self.repositories:
            return str(Reference(self.repositories[0], digest=self.digest))
        return self.digest


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A file of the blob store; `written_us` is when it was last known to be wanted."""

    digest: Digest
    size: int
    written_us: int


@dataclass(frozen=True, slots=True)
class Space:
    """What the cache takes of its disk, and what is left of that, in bytes."""

    used_bytes: int
    free_bytes: int

    def freed(self, count: int) -> "Space":
        """Return what it is once `count` bytes were removed."""
        return Space(self.used_bytes - count, self.free_bytes + count)


@dataclass(frozen=True, slots=True)
class Bundle:
    """Kits that go together or not at all."""

    kits: tuple[CachedKit, ...]

    @property
    def is_elsewhere(self) -> bool:
        """Whether registries are said to hold all of it."""
        return all(kit.locations for kit in self.kits)

    @property
    def used_us(self) -> int:
        """When any of it was last used."""
        return max(kit.used_us for kit in self.kits)

    @property
    def blobs(self) -> frozenset[Digest]:
        """Its manifests and all that is below them."""
        return frozenset(blob.digest for kit in self.kits for blob in kit.blobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a collection goes by."""

    kept: Mapping[Digest, str]
    """Manifests that stay, and why."""
    bundles: tuple[Bundle, ...]
    """Kits that may go: first what is elsewhere, each least recently used first."""
    unreferenced: tuple[StoredBlob, ...]
    """Blobs that no kit needs, oldest first: they go in any case."""
    spared: Mapping[Digest, str]
    """Blobs that no kit needs and that stay for now, and why."""


def excess_bytes(space: Space, limits: CacheConfig) -> int:
    """Return how many bytes are too many, by the limit that asks for more.

    For a disk that others fill the cache can give what it has, down to what is to be kept.
    """
    collectable = max(0, space.used_bytes - limits.keep_at_least_bytes)
    too_little_free = limits.leave_free_bytes - space.free_bytes
    return max(0, space.used_bytes - limits.use_at_most_bytes, min(too_little_free, collectable))


def may_go(space: Space, limits: CacheConfig, freed_bytes: int) -> bool:
    """Whether a kit has to go that would make so much room, and is not one too many."""
    remaining_bytes = space.used_bytes - freed_bytes
    return excess_bytes(space, limits) > 0 and remaining_bytes >= limits.keep_at_least_bytes


def plan_collection(
    kits: Sequence[CachedKit],
    blobs: Iterable[StoredBlob],
    leased: Collection[Digest],
    *,
    keep_recent_s: float,
    now_us: int,
) -> Plan:
    """Sort everything into what stays, with the reason, and what may go, in order."""
    kept = _kept(kits, leased, keep_recent_s, now_us)
    bundles = _bundles([kit for kit in kits if kit.digest not in kept])
    needed = {blob.digest for kit in kits for blob in kit.blobs}
    unreferenced, spared = [], {}
    for blob in blobs:
        if blob.digest in needed:
            continue
        reason = "in use" if blob.digest in leased else _too_young(blob, now_us)
        if reason is None:
            unreferenced.append(blob)
        else:
            spared[blob.digest] = reason
    return Plan(
        kept=kept,
        bundles=tuple(sorted(bundles, key=lambda each: (not each.is_elsewhere, *_rank(each)))),
        unreferenced=tuple(sorted(unreferenced, key=lambda blob: (blob.written_us, blob.digest))),
        spared=spared,
    )


def expendable_partials(
    partials: Iterable[StoredBlob],
    blobs: Iterable[StoredBlob],
    leased: Collection[Digest],
    space: Space,
    limits: CacheConfig,
    *,
    now_us: int,
) -> Mapping[Digest, str]:
    """Return of which blobs that has to go which has arrived, and why: what is oldest goes first.

    They are cheaper to lose than a kit. `space` is what there is without them having gone.
    """
    complete = {blob.digest for blob in blobs}
    going = {}
    for partial in sorted(partials, key=lambda each: (each.written_us, each.digest)):
        if partial.digest in leased:
            continue
        if partial.digest in complete:
            reason = "the blob came from elsewhere"
        elif not _is_within(_passed_s(partial.written_us, now_us), PARTIAL_KEPT_S):
            reason = f"nobody went on with it for {_span(_passed_s(partial.written_us, now_us))}"
        elif excess_bytes(space, limits):
            reason = "the cache needs the room"
        else:
            continue
        going[partial.digest] = reason
        space = space.freed(partial.size)
    return going


def least_recently_used(bundles: Iterable[Bundle]) -> tuple[Bundle, ...]:
    """Return bundles in the order in which they go, wherever else they are."""
    return tuple(sorted(bundles, key=_rank))


def _rank(bundle: Bundle) -> tuple[int, Digest]:
    return bundle.used_us, min(kit.digest for kit in bundle.kits)


def _passed_s(at_us: int, now_us: int) -> float:
    return (now_us - at_us) / _SECOND_US


def _is_within(passed_s: float, span_s: float) -> bool:
    """Whether that little time has passed; a time far ahead was noted by a clock that was wrong."""
    return -span_s < passed_s < span_s


def _too_young(blob: StoredBlob, now_us: int) -> str | None:
    passed_s = _passed_s(blob.written_us, now_us)
    if _is_within(passed_s, GRACE_S):
        return f"no kit needs it yet: written {_span(passed_s)} ago"
    return None


def _span(passed_s: float) -> str:
    seconds = max(0, int(passed_s))
    return f"{seconds} s" if seconds < 60 else f"{seconds // 60} min"


def _kept(
    kits: Sequence[CachedKit], leased: Collection[Digest], keep_recent_s: float, now_us: int
) -> dict[Digest, str]:
    """Return the kits that stay: each for a reason of its own, or for the sake of another."""
    by_digest = {kit.digest: kit for kit in kits}
    referrers: defaultdict[Digest, list[CachedKit]] = defaultdict(list)
    for kit in kits:
        if kit.subject is not None:
            referrers[kit.subject].append(kit)
    kept: dict[Digest, str] = {}
    newly: list[CachedKit] = []

    def keep(digest: Digest, reason: str) -> None:
        if digest in by_digest and digest not in kept:
            kept[digest] = reason
            newly.append(by_digest[digest])

    for kit in kits:
        passed_s = _passed_s(kit.used_us, now_us)
        if kit.digest in leased:
            keep(kit.digest, "in use")
        elif (reason := _own_reason(kit, by_digest)) is not None:
            keep(kit.digest, reason)
        elif _is_within(passed_s, keep_recent_s):
            keep(kit.digest, f"used {_span(passed_s)} ago")
    while newly:
        kit = newly.pop()
        for child in kit.children:
            keep(child.digest, f"part of {kit.name}")
        if kit.subject is not None:
            keep(kit.subject, f"{kit.name} refers to it")
        for referrer in referrers[kit.digest]:
            keep(referrer.digest, f"refers to {kit.name}")
    return kept


def _own_reason(kit: CachedKit, by_digest: Mapping[Digest, CachedKit]) -> str | None:
    if kit.pinned_as is not None:
        return f"pinned as {kit.pinned_as}"
    if kit.needed_by is not None:
        return f"needed by job {kit.needed_by}"
    if kit.project is not None:
        return f"the last kit of project {kit.project}"
    if kit.tags and not kit.locations:
        return f"{kit.tags[0]} is in no registry that kitd knows of"
    if kit.built_on_by is not None:
        child = by_digest.get(kit.built_on_by)
        return f"{kit.built_on_by if child is None else child.name} builds on it"
    if kit.may_be_built_on:
        return "it is not known yet whether a kit builds on it"
    return None


def _bundles(kits: Sequence[CachedKit]) -> list[Bundle]:
    """Join kits that name each other: a union-find over digests."""
    leaders = {kit.digest: kit.digest for kit in kits}

    def leader(digest: Digest) -> Digest:
        while leaders[digest] != digest:
            leaders[digest] = digest = leaders[leaders[digest]]
        return digest

    for kit in kits:
        for other in (*(child.digest for child in kit.children), kit.subject):
            if other in leaders:
                leaders[leader(other)] = leader(kit.digest)
    members: defaultdict[Digest, list[CachedKit]] = defaultdict(list)
    for kit in kits:
        members[leader(kit.digest)].append(kit)
    return [Bundle(tuple(group)) for group in members.values()]


class SharedBlobs:
    """How much room each bundle would make as others go before it."""

    def __init__(
        self,
        kits: Iterable[CachedKit],
        blobs: Iterable[StoredBlob],
        leased: Collection[Digest],
    ) -> None:
        self._needed = Counter(digest for kit in kits for digest in _digests(kit))
        self._sizes = {blob.digest: blob.size for blob in blobs if blob.digest not in leased}

    def only_of(self, bundle: Bundle) -> Mapping[Digest, int]:
        """Return the blobs that no other kit needs, with what they take, in bytes."""
        within = Counter(digest for kit in bundle.kits for digest in _digests(kit))
        return {
            digest: self._sizes[digest]
            for digest, count in within.items()
            if digest in self._sizes and count == self._needed[digest]
        }

    def freed_by(self, bundle: Bundle) -> int:
        """Return how many bytes would go with the bundle."""
        return sum(self.only_of(bundle).values())

    def remove(self, bundle: Bundle) -> None:
        """Note that the bundle went."""
        # Not `-=`, which goes through all that is left each time.
        self._needed.subtract(digest for kit in bundle.kits for digest in _digests(kit))


def _digests(kit: CachedKit) -> frozenset[Digest]:
    return frozenset(blob.digest for blob in kit.blobs)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a collection would do with a kit or a blob, and why."""

    kind: str
    digest: Digest
    name: str
    size: int
    goes: bool
    why: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a collection would do if every registry holds what it is said to hold."""

    decisions: tuple[Decision, ...]
    """Of every kit and every other blob, what goes first."""
    freed_bytes: int
    over_bytes: int


def forecast(
    kits: Sequence[CachedKit],
    blobs: Sequence[StoredBlob],
    leased: Collection[Digest],
    remains: Mapping[Digest, int],
    space: Space,
    limits: CacheConfig,
    *,
    now_us: int,
    partials: Sequence[StoredBlob] = (),
) -> Forecast:
    """Tell what a collection would do, and why.

    `remains` are those of damaged blobs that nothing needs any more, in bytes: they go in any case.
    `partials` are what has arrived of blobs that are not complete.
    """
    plan = plan_collection(kits, blobs, leased, keep_recent_s=limits.keep_recent_s, now_us=now_us)
    shared = SharedBlobs(kits, blobs, leased)
    going: dict[Digest, str] = {}
    freed: set[Digest] = {blob.digest for blob in plan.unreferenced}
    left = space.freed(sum(remains.values()) + sum(blob.size for blob in plan.unreferenced))
    given_up = expendable_partials(partials, blobs, leased, left, limits, now_us=now_us)
    left = left.freed(sum(each.size for each in partials if each.digest in given_up))
    for bundle in plan.bundles:
        freed_bytes = shared.freed_by(bundle)
        if may_go(left, limits, freed_bytes):
            freed.update(shared.only_of(bundle))
            shared.remove(bundle)
            left = left.freed(freed_bytes)
            going.update({kit.digest: _why_gone(kit, now_us) for kit in bundle.kits})
    decisions = [
        *(_decide_kit(kit, plan, going) for kit in kits),
        *_decide_blobs(kits, blobs, plan, freed, going),
        *(_decide_partial(each, given_up, leased, now_us) for each in partials),
        *(
            Decision("damaged", digest, digest, size, goes=True, why="nothing needs what is left")
            for digest, size in remains.items()
        ),
    ]
    return Forecast(
        tuple(sorted(decisions, key=lambda each: not each.goes)),
        space.used_bytes - left.used_bytes,
        excess_bytes(left, limits),
    )


def _why_gone(kit: CachedKit, now_us: int) -> str:
    unused = f"not used for {_span(_passed_s(kit.used_us, now_us))}"
    if kit.locations:
        return f"{kit.locations[0]} has it, {unused}"
    return f"it has no tag, {unused}"


def _decide_kit(kit: CachedKit, plan: Plan, going: Mapping[Digest, str]) -> Decision:
    size = sum(blob.size for blob in kit.blobs)
    goes = kit.digest in going
    why = going.get(kit.digest) or plan.kept.get(kit.digest) or "the limits hold without that"
    return Decision("kit", kit.digest, kit.name, size, goes, why)


def _decide_partial(
    partial: StoredBlob, given_up: Mapping[Digest, str], leased: Collection[Digest], now_us: int
) -> Decision:
    kept = (
        f"the next pull goes on with it: written {_span(_passed_s(partial.written_us, now_us))} ago"
    )
    why = given_up.get(partial.digest) or ("in use" if partial.digest in leased else kept)
    name = f"part of {partial.digest}"
    return Decision(
        "partial", partial.digest, name, partial.size, goes=partial.digest in given_up, why=why
    )


def _decide_blobs(
    kits: Sequence[CachedKit],
    blobs: Sequence[StoredBlob],
    plan: Plan,
    freed: Collection[Digest],
    going: Mapping[Digest, str],
) -> Iterable[Decision]:
    # A kit that stays explains a blob better than one that goes.
    owners = {
        blob.digest: kit.name
        for kit in sorted(kits, key=lambda kit: kit.digest not in going)
        for blob in kit.blobs
    }
    manifests = {kit.digest for kit in kits}
    for blob in blobs:
        if blob.digest in manifests:
            continue
        goes = blob.digest in freed
        owner = owners.get(blob.digest)
        if owner is not None:
            why = f"only part of {owner}" if goes else f"part of {owner}"
        else:
            why = plan.spared.get(blob.digest, "no kit needs it")
        yield Decision("blob", blob.digest, blob.digest, blob.size, goes, why)
