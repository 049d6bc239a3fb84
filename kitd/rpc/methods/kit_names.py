"""`kits.tag`, `kits.remove` and `kits.remove_all`: names of kits, given and taken away."""

from collections.abc import Sequence

import msgspec

from kitd.errors import KitdError
from kitd.ledger.shelf import Gone, Removal
from kitd.mirror.removal import Outcome
from kitd.oci.digest import Digest
from kitd.oci.reference import (
    DEFAULT_TAG,
    Reference,
    check_tag,
    parse_reference,
    parse_tagged,
)
from kitd.rpc.error import DeniedError, InvalidParamsError
from kitd.rpc.fairness import Cost
from kitd.rpc.method import Context, Method, method
from kitd.rpc.methods.access import is_admin, require_reachable
from kitd.rpc.methods.idempotency import Idempotent
from kitd.rpc.methods.services import Origin, Services
from kitd.rpc.peer import Role

MAX_NAMES = 64
"""Tags of one call."""


class TagParams(Idempotent, frozen=True, kw_only=True):
    """A kit of the cache, and what else it is called: `target` may be `repository:tag,tag`."""

    reference: str
    target: str


class Tagged(msgspec.Struct, frozen=True):
    """The kit, and its new names."""

    digest: str
    references: tuple[str, ...]


class RemoveParams(Idempotent, frozen=True, kw_only=True):
    """A kit by tag (`repository:tag,tag`) or digest, in the cache or, if `remote`, its registry.

    A tag is taken away; with `force`, or where it is the only one in the cache, its kit is.
    """

    reference: str
    force: bool = False
    remote: bool = False


class RemoveAllParams(Idempotent, frozen=True, kw_only=True):
    """Every kit of the cache without a tag; with `force`, for an admin, every kit."""

    force: bool = False


class WireGone(msgspec.Struct, frozen=True):
    """A name that is gone, and the kit that it named."""

    reference: str
    digest: str


class WireKept(msgspec.Struct, frozen=True):
    """A kit that stays."""

    reference: str
    why: str


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it: tags that went, kits that went with all their tags, kits that stay.

    `omitted` counts kits that are not listed. `collectable_bytes` are those of blobs of the cache
    that no kit needs any more: `cache.gc` frees them.
    """

    untagged: tuple[WireGone, ...]
    removed: tuple[WireGone, ...]
    kept: tuple[WireKept, ...] = ()
    omitted: int = 0
    collectable_bytes: int = 0


class NotUntaggedError(KitdError):
    """The registry does not take this tag away."""

    code = "conflict"


class PartlyRemovedError(KitdError):
    """Some of the tags that were to go from a registry are gone, and one could not be."""

    code = "partly_removed"


async def tag(context: Context[Services], params: TagParams) -> Tagged:
    """Give a kit of the cache further tags, in its own or another repository."""
    source = parse_reference(params.reference).with_default_tag()
    target, more = parse_tagged(params.target)
    tags = tuple(dict.fromkeys((target.tag or DEFAULT_TAG, *more)))
    _check_number(tags)
    digest = await context.services.shelf.tag(source, target.repository, tags)
    names = (str(Reference(target.repository, tag=name)) for name in tags)
    return Tagged(digest, tuple(names))


async def remove(context: Context[Services], params: RemoveParams) -> Removed:
    """Take a tag from a kit, or a kit from its repository."""
    references = _named(params.reference)
    if not params.remote:
        return _wire(await context.services.shelf.remove(references, force=params.force))
    repository = references[0].repository
    if repository.is_local:
        raise InvalidParamsError(
            f"{references[0]} names no registry to remove it from",
            hint=f"name one, such as registry.example.com/{repository.name}",
        )
    require_reachable(context, repository)
    origin = await context.services.origin(repository)
    # A name that is not there is told before anything goes.
    targets = [(each, (await origin.resolve(each.identifier)).digest) for each in references]
    total = Removal()
    for reference, digest in targets:
        try:
            gone = await _remove_there(origin, reference, digest, force=params.force)
        except KitdError as error:
            if total == Removal():
                raise
            raise _partly(total, reference, error) from error
        total = total.and_then(gone)
    return _wire(total)


async def remove_all(context: Context[Services], params: RemoveAllParams) -> Removed:
    """Take all kits without a tag from the cache, or all kits."""
    if params.force and not is_admin(context):
        raise DeniedError(
            f"user {context.peer.uid} may not remove every kit of the cache",
            hint="an admin of kitd can; without --force kits that have no tag are removed",
        )
    return _wire(await context.services.shelf.remove_all(force=params.force))


def _named(text: str) -> Sequence[Reference]:
    """Return the references of `repository:tag,tag` or `repository@digest`."""
    first, *more = text.split(",")
    reference = parse_reference(first).with_default_tag()
    if more and reference.digest is not None:
        raise InvalidParamsError(f"{first} has a digest, and takes no tags after a comma")
    _check_number(more)
    others = (Reference(reference.repository, tag=check_tag(name)) for name in more)
    return tuple(dict.fromkeys((reference, *others)))


def _check_number(tags: Sequence[str]) -> None:
    if len(tags) > MAX_NAMES:
        raise InvalidParamsError(f"at most {MAX_NAMES} tags at once")


async def _remove_there(
    origin: Origin, reference: Reference, digest: Digest, *, force: bool
) -> Removal:
    gone = (Gone(reference, digest),)
    if reference.tag is None or force:
        was_there = await origin.delete_manifest(digest)
        return Removal(removed=gone) if was_there else Removal()
    fate = await origin.remove_tag(reference.tag, digest)
    if fate.is_gone:
        return Removal(untagged=gone)
    raise _not_untagged(reference, digest, fate.outcome)


def _partly(total: Removal, reference: Reference, error: KitdError) -> PartlyRemovedError:
    went = ", ".join(str(gone.reference) for gone in (*total.untagged, *total.removed))
    return PartlyRemovedError(f"{went} went before {reference}: {error.message}", hint=error.hint)


def _not_untagged(reference: Reference, digest: Digest, outcome: Outcome) -> NotUntaggedError:
    if outcome is Outcome.MOVED:
        return NotUntaggedError(
            f"{reference} names another kit since a moment ago", hint="look again, and try again"
        )
    return NotUntaggedError(
        f"{reference.repository.registry} takes no tags from kits, it only deletes kits with all"
        " their tags",
        hint=f"kitctl remove --remote --force {reference} deletes {digest}",
    )


def _wire(removal: Removal) -> Removed:
    return Removed(
        untagged=_gone(removal.untagged),
        removed=_gone(removal.removed),
        kept=tuple(WireKept(str(kept.reference), kept.why) for kept in removal.kept),
        omitted=removal.omitted,
        collectable_bytes=removal.collectable_bytes,
    )


def _gone(names: Sequence[Gone]) -> tuple[WireGone, ...]:
    return tuple(WireGone(str(each.reference), each.digest) for each in names)


METHODS: tuple[Method[Services], ...] = (
    method("kits.tag", Role.SUBMIT, TagParams, Tagged, tag),
    method("kits.remove", Role.SUBMIT, RemoveParams, Removed, remove, cost=Cost.OUTSIDE),
    method("kits.remove_all", Role.SUBMIT, RemoveAllParams, Removed, remove_all, cost=Cost.LEDGER),
)
