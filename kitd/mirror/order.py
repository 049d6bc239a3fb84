"""What a mirror is asked to do: two repositories, and which tags of one the other follows.

These are the arguments of a job, so that a job that waits does what was asked for and not what the
configuration says by then. Text forms, checked where they come in.
"""

import enum

import msgspec


class Conflicts(enum.StrEnum):
    """What becomes of a target's tag that somebody else has moved as well."""

    OVERWRITE = "overwrite"
    """The source is right."""
    KEEP = "keep"
    """The target is left alone, and the conflict is told."""


class Deletes(enum.StrEnum):
    """What becomes of a target's tag when the source's is gone."""

    IGNORE = "ignore"
    PROPAGATE = "propagate"


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which tags of a repository are meant: those that pass everything that is given.

    `include` and `exclude` are globs of whole tags, `regex` matches a whole tag, `semver` is a
    range of versions. Of those that pass, `newest` leaves so many and `max_age_s` the younger ones.
    """

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    regex: str | None = None
    semver: str | None = None
    newest: int | None = None
    max_age_s: float | None = None


class TargetOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Where a repository is copied to; `tag` is a template with `{tag}` for the source's tag."""

    repository: str
    tag: str = "{tag}"


class MirrorWish(msgspec.Struct, frozen=True, kw_only=True):
    """How a mirror is to go about it this time."""

    thorough: bool = False
    """Believe nothing that is remembered: look at both ends."""
    dry_run: bool = False
    allow_deletes: bool = False
    """Whether a person has agreed to deletions that would look like an accident."""


AS_USUAL = MirrorWish()


class MirrorOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One repository to copy to another."""

    rule: str | None
    """The mirror of the configuration; None where a person named both ends."""
    source: str
    target: TargetOrder
    by_many: bool = False
    """Whether it goes to other targets, too, so that what is read is best kept for them."""
    tags: tuple[str, ...] | None = None
    """Only these tags, of those that are meant; None for all, unless there are `manifests`."""
    manifests: tuple[str, ...] = ()
    """Digests of manifests that came without a tag, and may refer to what is mirrored."""
    select: Selection = Selection()
    referrers: bool = True
    digest_tags: bool = True
    """Whether tags such as `sha256-….sig`, which older tools keep signatures under, come along with
    what they are about."""
    deletes: Deletes = Deletes.IGNORE
    grace_s: float = 86_400.0
    """How long a source's tag is gone before its copies go."""
    conflicts: Conflicts = Conflicts.OVERWRITE
    returns: bool = False
    """Whether another mirror carries back what becomes of the target's tags."""
    deletes_return: bool = False
    """Whether it carries back that they are gone."""
    spares: tuple[Selection, ...] = ()
    """What other mirrors copy to the same tags, and would leave there."""
    wish: MirrorWish = AS_USUAL
