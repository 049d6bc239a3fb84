"""`kits.list_remote`: the kits of a repository in its registry, by all their tags."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from kitd.blocking import run_blocking
from kitd.content.store import ContentError
from kitd.content.together import all_of
from kitd.errors import KitdError, NotFoundError, UnavailableError
from kitd.modelkit.filter import Filter
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.manifest import InvalidManifestError
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
MAX_NOTES = 16


class RemoteParams(Params, frozen=True):
    """A repository of a registry, or one tag of it.

    With `filters` only the kits that have what one of them selects.
    """

    reference: str
    filters: tuple[str, ...] = ()


class RemoteKits(msgspec.Struct, frozen=True):
    """Kits in the order of their first tags.

    `others` counts tags that name something else, or nothing that can be read; `omitted` those that
    were not looked at, as far as the registry told of them. `notes` say of some of these why.
    """

    kits: tuple[WireKit, ...]
    others: int
    omitted: int
    notes: tuple[str, ...]


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
    listing = Listing(await context.services.origin(repository), reference, filters)
    return await listing.run(LISTING_S)


_Key = tuple[Digest, str]
"""A manifest as it is told: what one tag calls it need not be what another does."""


def _key(target: Descriptor) -> _Key:
    return target.digest, target.media_type


class Listing:
    """One look at the tags of a repository. `run` once."""

    def __init__(self, origin: Origin, reference: Reference, filters: Sequence[Filter]) -> None:
        self._origin = origin
        self._reference = reference
        self._filters = filters
        self._names: list[str] = []
        self._seen: dict[_Key, _Seen] = {}
        self._tags: dict[_Key, list[str]] = {}
        self._others = 0
        self._omitted = 0
        self._notes: list[str] = []

    async def run(self, within_s: float) -> RemoteKits:
        """Return what is known after that time. Raises `KitdError` where that is nothing at all."""
        start = 0
        turn = asyncio.timeout(within_s)
        try:
            async with turn:
                await self._find_names(within_s / 2)
                while batch := self._names[start : start + LOOKS]:
                    await self._look_at(batch)
                    start += len(batch)
        except TimeoutError:
            if not turn.expired():
                raise
            if not self._names:
                raise _silent(self._reference, within_s) from None
            self._note(f"after {within_s:g} s the others were left for another time")
        return RemoteKits(
            kits=tuple(
                msgspec.structs.replace(each.kit, tags=tuple(self._tags[key]))
                for key, each in self._seen.items()
                if each.kit is not None and each.is_wanted
            ),
            others=self._others
            + sum(len(self._tags[key]) for key, each in self._seen.items() if not each.kit),
            omitted=self._omitted + len(self._names) - start,
            notes=tuple(self._notes),
        )

    async def _find_names(self, within_s: float) -> None:
        """Find the tags to look at, or the digest, and count the others."""
        reference, origin = self._reference, self._origin
        if reference.tag is not None or reference.digest is not None:
            # One that is not there is an error, where one of many may just have gone.
            await origin.resolve(reference.identifier)
            self._names.append(reference.identifier)
            return
        turn = asyncio.timeout(within_s)
        try:
            async with turn, aclosing(origin.tags()) as tags:
                async for tag in tags:
                    if len(self._names) < MAX_TAGS:
                        self._names.append(tag.name)
                    else:
                        self._omitted += 1
        except TimeoutError:
            if not turn.expired():
                raise
            if not self._names:
                raise _silent(reference, within_s) from None
            self._note(f"the registry was still naming tags after {within_s:g} s")

    async def _look_at(self, names: Sequence[str]) -> None:
        """Read what some tags name. When it is cancelled nothing of it counts."""
        found = await all_of(map(self._resolve, names))
        targets = {_key(each): each for each in found if isinstance(each, Descriptor)}
        fresh = [each for key, each in targets.items() if key not in self._seen]
        read = await all_of(map(self._look, fresh))
        for name, target in zip(names, found, strict=True):
            if isinstance(target, KitdError):
                self._others += 1
                self._note(f"{name}: {target.message}")
            elif target is not None:
                self._tags.setdefault(_key(target), []).extend(() if ":" in name else (name,))
        for target, seen in zip(fresh, read, strict=True):
            if isinstance(seen, KitdError):
                name = next(iter(self._tags[_key(target)]), target.digest)
                self._note(f"{name}: {seen.message}")
            self._seen[_key(target)] = seen if isinstance(seen, _Seen) else _Seen(None)

    async def _resolve(self, identifier: str) -> Descriptor | KitdError | None:
        try:
            return await self._origin.resolve(identifier)
        except NotFoundError:
            return None
        except (ContentError, InvalidManifestError) as error:
            return error

    async def _look(self, target: Descriptor) -> _Seen | KitdError:
        try:
            _, manifest, opened = await open_kit(self._origin, target)
        except NOT_A_KIT:
            return _Seen(None)
        except ContentError as error:
            return error
        package = opened.kitfile.package
        kit = WireKit(
            repo=str(Reference(self._reference.repository)),
            digest=target.digest,
            tags=(),
            model_name=package.name,
            size=sum(layer.size for layer in manifest.layers),
            author=package.authors[0] if package.authors else "",
        )
        return _Seen(kit, is_wanted=await run_blocking(has_any, opened.kitfile, self._filters))

    def _note(self, text: str) -> None:
        if len(self._notes) < MAX_NOTES:
            self._notes.append(text)


def _silent(reference: Reference, within_s: float) -> UnavailableError:
    return UnavailableError(
        f"the registry named no tag of {reference} within {within_s:g} s", hint="try again later"
    )


METHODS: tuple[Method[Services], ...] = (
    method("kits.list_remote", Role.READ, RemoteParams, RemoteKits, list_remote, cost=Cost.OUTSIDE),
)
