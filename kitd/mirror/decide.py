"""What follows from how both ends of a mirror stand, and what was last known of them."""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass

from kitd.mirror.order import Conflicts
from kitd.oci.digest import Digest

MANY = 50
"""More tags than that look like an accident where they go within a day, whatever their share is."""
SHARE = 0.2
"""So do more than this share of all, where it is more than `FEW`."""
FEW = 5
FEW_SHARE = 0.5
"""So do more than this share of all, however few they are."""
AT_ONCE_US = 24 * 3600 * 1_000_000
"""What goes within this time goes at once: a source may be emptied tag by tag."""

# Of a sha512 the first half: a tag has no room for more.
_SUBJECT_TAG = re.compile(r"(sha256|sha512)-([0-9a-f]{64})(\.[a-z]{1,16})?")


class Verdict(enum.Enum):
    """What is done with a target's tag."""

    COPY = enum.auto()
    EQUAL = enum.auto()
    """Both ends name the same."""
    LEFT = enum.auto()
    """The target has moved on, and another mirror carries that back."""
    KEPT = enum.auto()
    """Both have moved on, and the target is left as it is."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done, and whether both ends have moved on from what they had in common."""

    verdict: Verdict
    is_conflict: bool = False


def decide(
    source: Digest,
    target: Digest | None,
    agreed: Digest | None,
    *,
    conflicts: Conflicts,
    returns: bool,
    deletes_return: bool,
) -> Decision:
    """Return what becomes of a target's tag.

    `agreed` is what both ends named when they were last seen equal, None if they never were;
    `returns` says that another mirror carries changes of the target back to the source, and
    `deletes_return` that this is so for what is gone there.
    """
    if source == target:
        return Decision(Verdict.EQUAL)
    if target is None and source == agreed and deletes_return:
        return Decision(Verdict.LEFT)
    if target is None or target == agreed:
        return Decision(Verdict.COPY)
    if source == agreed and returns:
        return Decision(Verdict.LEFT)
    # A target that nobody but a mirror writes to is put right without a word.
    is_conflict = source != agreed and (agreed is not None or returns)
    if conflicts is Conflicts.OVERWRITE:
        return Decision(Verdict.COPY, is_conflict)
    return Decision(Verdict.KEPT, is_conflict)


@dataclass(frozen=True, slots=True)
class Departures:
    """Tags that are gone from a source: whose copies go now, and why none does if so."""

    due: tuple[str, ...] = ()
    held: str | None = None


def departures(
    gone: Mapping[str, int],
    *,
    known: int,
    removed: int,
    now_us: int,
    grace_s: float,
    allowed: bool,
) -> Departures:
    """Return the tags whose copies are to go; `gone` says since when (microseconds).

    `known` is how many tags have copies, those that are gone included, and `removed` how many
    copies went within `AT_ONCE_US`. Too many are held until a person allows it: a source that was
    emptied, or that is another one by now, looks the same. Those count as well whose grace goes on:
    a source is emptied one tag after the other.
    """
    due = tuple(sorted(tag for tag, us in gone.items() if now_us - us >= grace_s * 1_000_000))
    count, total = len(gone) + removed, known + removed
    share = FEW_SHARE if count <= FEW else SHARE
    if due and not allowed and (count > MANY or count > share * total):
        lately = f", {removed} of them removed within a day" if removed else ""
        return Departures((), f"{count} of {total} tags are gone from the source{lately}")
    return Departures(due)


def subject_of(tag: str) -> tuple[Digest, str] | None:
    """Return what a digest tag is about, and its ending: `.sig` of cosign, none for referrers.

    Source: OCI distribution spec, "Referrers Tag Schema"; cosign keeps signatures the same way.
    """
    match = _SUBJECT_TAG.fullmatch(tag)
    if match is None:
        return None
    return Digest(f"{match[1]}:{match[2]}"), match[3] or ""


def digest_tags(subject: Digest) -> tuple[str, ...]:
    """Return the tags under which cosign keeps what is about a manifest."""
    name = subject.replace(":", "-")
    return tuple(f"{name}{ending}" for ending in (".sig", ".att", ".sbom"))
