"""`kits.list_remote`: the kits of a repository in its registry, by all their tags."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from kitd.blocking import run_blocking
from kitd.content.together import all_of
from kitd.errors import NotFoundError
from kitd.modelkit.filter import Filter
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.reference import Reference, parse_reference
from kitd.rpc.error import InvalidParamsError
from kitd.rpc.fairness import Cost
from kitd.rpc.method import Context, Method, Params, method
from kitd.rpc.methods.access import require_reachable
from kitd.rpc.methods.kit_shelf import NOT_A_KIT, WireKit, has_any, open_kit, parse_filters
from kitd.rpc.methods.services import Origin, Services
from kitd.rpc.peer import Role

MAX_TAGS = 1000
"""Tags that are looked at; the others are counted."""
LOOKS = 6
"""Kits that are read at once."""
LISTING_S = 60.0
"""After so long what is known by then is the answer: others wait for their turn."""


class RemoteParams(Params, frozen=True):
    """A repository of a registry, or one tag of it.

    With `filters` only the kits that have what one of them selects.
    """

    reference: str
    filters: tuple[str, ...] = ()


class RemoteKits(msgspec.Struct, frozen=True):
    """Kits in the order of their first tags.

    `others` counts tags that name something else, `omitted` those that were not looked at.
    """

    kits: tuple[WireKit, ...]
    others: int
    omitted: int


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was read of one manifest; None for what is no kit."""

    kit: WireKit | None
    is_wanted: bool = False


async def list_remote(context: Context[Services], params: RemoteParams) -> RemoteKits:
    """List the kits of a repository in its registry."""
    filters = parse_filters(params.filters)
    reference = parse_reference(params.reference)
    repository = reference.repository
    if repository.is_local:
        raise InvalidParamsError(
            f"{repository.name} names no registry to ask",
            hint=f"name one, such as registry.example.com/{repository.name}",
        )
    require_reachable(context, repository)
    monotonic_s = context.services.monotonic_s
    end_s = monotonic_s() + LISTING_S
    origin = await context.services.origin(repository)
    names, omitted = await _names(origin, reference)
    seen: dict[Digest, _Seen] = {}
    tags: dict[Digest, list[str]] = {}
    for start in range(0, len(names), LOOKS):
        if monotonic_s() > end_s:
            omitted += len(names) - start
            break
        batch = names[start : start + LOOKS]
        found = await all_of(_resolve(origin, name) for name in batch)
        for name, target in zip(batch, found, strict=True):
            if target is not None:
                tags.setdefault(target.digest, []).extend(() if ":" in name else (name,))
        fresh = {each.digest: each for each in found if each and each.digest not in seen}
        read = await all_of(_look(origin, reference, each, filters) for each in fresh.values())
        seen.update(zip(fresh, read, strict=True))
    return RemoteKits(
        kits=tuple(
            msgspec.structs.replace(each.kit, tags=tuple(tags[digest]))
            for digest, each in seen.items()
            if each.kit is not None and each.is_wanted
        ),
        others=sum(len(tags[digest]) for digest, each in seen.items() if each.kit is None),
        omitted=omitted,
    )


async def _names(origin: Origin, reference: Reference) -> tuple[Sequence[str], int]:
    """Return the tags to look at, or the digest, and how many others there are."""
    if reference.tag is not None or reference.digest is not None:
        # One that is not there is an error, where one of many may just have gone.
        await origin.resolve(reference.identifier)
        return [reference.identifier], 0
    names: list[str] = []
    omitted = 0
    async for tag in origin.tags():
        if len(names) < MAX_TAGS:
            names.append(tag.name)
        else:
            omitted += 1
    return names, omitted


async def _resolve(origin: Origin, identifier: str) -> Descriptor | None:
    try:
        return await origin.resolve(identifier)
    except NotFoundError:
        return None


async def _look(
    origin: Origin, reference: Reference, target: Descriptor, filters: Sequence[Filter]
) -> _Seen:
    try:
        _, manifest, opened = await open_kit(origin, target)
    except NOT_A_KIT:
        return _Seen(None)
    package = opened.kitfile.package
    kit = WireKit(
        repo=str(Reference(reference.repository)),
        digest=target.digest,
        tags=(),
        model_name=package.name,
        size=sum(layer.size for layer in manifest.layers),
        author=package.authors[0] if package.authors else "",
    )
    return _Seen(kit, is_wanted=await run_blocking(has_any, opened.kitfile, filters))


METHODS: tuple[Method[Services], ...] = (
    method("kits.list_remote", Role.READ, RemoteParams, RemoteKits, list_remote, cost=Cost.OUTSIDE),
)
