"""Edges: a tag of a source and the tag of a target that follows it, and what is known of both."""

from dataclasses import dataclass

from kitd.mirror.decide import subject_of
from kitd.mirror.route import expand_tag
from kitd.oci.digest import Digest
from kitd.oci.reference import Reference, Repository


@dataclass(frozen=True, slots=True)
class Edge:
    """One tag here, and the one there that follows it.

    Both tags are empty for what concerns all of the two repositories.
    """

    source: Repository
    tag: str
    target: Repository
    target_tag: str

    @property
    def ends(self) -> tuple[str, str]:
        """Return how people write both ends."""
        return _end(self.source, self.tag), _end(self.target, self.target_tag)

    def __str__(self) -> str:
        return " -> ".join(self.ends)


def _end(repository: Repository, tag: str) -> str:
    return str(Reference(repository, tag)) if tag else str(repository)


def target_tag(template: str, tag: str) -> str:
    """Return the tag of a target that follows one of the source."""
    # What is about a manifest is found by its digest, and by no other name.
    return tag if subject_of(tag) else expand_tag(template, tag)


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of an edge. Times are microseconds since the epoch."""

    digest: Digest | None
    """What both ends named when they were last seen equal."""
    equal_us: int
    referrers_us: int
    """When what refers to it was copied last."""
    gone_us: int | None
    """Since when the source lacks the tag."""
    rule: str | None = None
    """The mirror of the configuration that it belongs to."""
    has_failed: bool = False
    """Whether it did not work out when it was tried last."""
    returned: bool = False
    """Whether a mirror that copies the other way has agreed on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """Both ends name the same, which the target has whole."""

    edge: Edge
    digest: Digest
    with_referrers: bool
    """Whether what refers to it was looked at as well."""
    copied: bool
    sent_bytes: int = 0
    below: frozenset[Digest] = frozenset()
    """Manifests of other digests that belong to it, as far as they were seen."""
    overwrote: Digest | None = None
    """What both ends would have made a conflict of, had the source not been right."""


@dataclass(frozen=True, slots=True)
class Referred:
    """What refers to the manifest was looked at; nothing else was."""

    edge: Edge
    digest: Digest
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class Back:
    """The source has the tag again, or had it all the time."""

    edge: Edge


@dataclass(frozen=True, slots=True)
class Conflict:
    """Both ends have moved on from what they had in common, and stay as they are."""

    edge: Edge
    source: Digest
    target: Digest


@dataclass(frozen=True, slots=True)
class Eased:
    """There is nothing to be done that could fail, whatever failed before."""

    edge: Edge


@dataclass(frozen=True, slots=True)
class Failed:
    """What was to be done with the target did not work out."""

    edge: Edge
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Gone:
    """The source has lost the tag; since when is noted once."""

    edge: Edge


@dataclass(frozen=True, slots=True)
class Removed:
    """The target's tag went because the source's had gone."""

    edge: Edge
    by_person: bool = False
    """Whether a person has agreed to it."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The source's tag is gone, and what the target has in its place is somebody else's."""

    edge: Edge


Note = Agreed | Referred | Back | Conflict | Eased | Failed | Forgotten | Gone | Removed
