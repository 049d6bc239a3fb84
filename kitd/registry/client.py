"""The way in: repositories for whoever asks, one set of connections for each registry."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar

import structlog
from yarl import URL

from kitd.errors import KitdError
from kitd.oci.reference import InvalidReferenceError, Repository
from kitd.oci.tag_list import parse_repositories
from kitd.registry.auth.scope import catalog
from kitd.registry.download import ReadAhead
from kitd.registry.errors import RegistryTlsError
from kitd.registry.governor import Closed, Closure
from kitd.registry.listing import NAMES_A_PAGE, list_pages
from kitd.registry.mirrored import MirroredRepository, MirrorMemory, MirrorRepository
from kitd.registry.presence import MountMemory
from kitd.registry.referrers import ReferrersMemory
from kitd.registry.repository import RemoteRepository, Shared
from kitd.registry.request import Request
from kitd.registry.settings import RegistrySettings, origin_of
from kitd.registry.traffic import Traffic
from kitd.registry.transfer_memory import TransferMemory, VolatileMemory
from kitd.registry.transport import Surroundings, Transport
from kitd.registry.upload_session import UploadSession
from kitd.registry.upload_turns import UploadTurns

OPENING_S = 5.0
"""How long the files with a registry's certificates may take to be read."""

T = TypeVar("T")

log = structlog.get_logger(__name__)


class RegistryClient:
    """Owns the transports: use as an async context manager.

    `settings_of` gives the settings of a registry (`host[:port]`) as they are now. After a change
    new repositories use new connections; those in use keep theirs. Without a `memory` what uploads
    leave behind is forgotten with the client.
    """

    def __init__(
        self,
        settings_of: Callable[[str], RegistrySettings],
        surroundings: Surroundings,
        memory: TransferMemory | None = None,
    ) -> None:
        self._settings_of = settings_of
        self._surroundings = surroundings
        self._shared = Shared(
            memory=memory or VolatileMemory(),
            turns=UploadTurns(),
            read_ahead=ReadAhead(),
            referrers=ReferrersMemory(surroundings.clock),
            mounts=MountMemory(surroundings.clock),
        )
        self._transports: dict[tuple[str, RegistrySettings], asyncio.Task[Transport]] = {}
        self._mirrors = MirrorMemory(surroundings.clock)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        openings = tuple(self._transports.values())
        for opening in openings:
            opening.cancel()
        if openings:
            await asyncio.wait(openings)
        for opening in openings:
            if not opening.cancelled() and opening.exception() is None:
                await opening.result().close()

    async def repository(
        self, repository: Repository, *, mount_from: Sequence[str] = ()
    ) -> RemoteRepository:
        """Return a repository as a content store; nothing is sent.

        `mount_from` are names of repositories of the same registry that may lend blobs. Raises
        `InvalidReferenceError` for one that is local, `RegistryTlsError`.
        """
        if repository.is_local:
            raise InvalidReferenceError(
                f"{repository.name} is on no registry",
                hint=f"name one, such as registry.example.com/{repository.name}",
            )
        transport = await self._transport(repository.registry)
        mirrors = await self._mirrors_of(repository, transport.settings)
        if not mirrors:
            return RemoteRepository(repository, transport, self._shared, mount_from=mount_from)
        return MirroredRepository(
            repository,
            transport,
            self._shared,
            mount_from=mount_from,
            mirrors=mirrors,
            mirror_memory=self._mirrors,
        )

    async def origin(self, repository: Repository) -> RemoteRepository:
        """Return a repository of the registry itself, whatever is read in its place otherwise.

        Raises `RegistryTlsError`.
        """
        transport = await self._transport(repository.registry)
        return RemoteRepository(repository, transport, self._shared)

    async def _mirrors_of(
        self, repository: Repository, settings: RegistrySettings
    ) -> Sequence[MirrorRepository]:
        found = []
        for mirror in settings.mirrors:
            try:
                transport = await self._transport(mirror.registry)
            except RegistryTlsError as error:
                log.warning("mirror.unusable", mirror=mirror.registry, error=error.describe())
                continue
            remote = RemoteRepository(
                mirror.repository(repository),
                transport.asking_for(repository.registry),
                self._shared,
            )
            found.append(MirrorRepository(remote, mirror.tags))
        return found

    async def abandon(self, repository: Repository, session: UploadSession) -> None:
        """Tell a registry that an upload will not go on. It need not listen: nothing is raised."""
        try:
            remote = await self.repository(repository)
        except KitdError:
            return
        await remote.uploads("an upload").cancel(session)

    async def repositories(self, registry: str) -> AsyncIterator[str]:
        """Yield the names of a registry's repositories. Many registries tell nobody.

        Raises `RegistryError`.
        """
        transport = await self._transport(registry)
        request = Request(
            operation="list the repositories",
            method="GET",
            url=transport.url(f"_catalog?n={NAMES_A_PAGE}"),
            scopes=(catalog(),),
        )
        async for page in list_pages(transport, request, parse_repositories):
            for name in page:
                yield name

    async def ping(self, registry: str) -> str | None:
        """Ask whether a registry is there and takes the credentials; return its `Date`, if any.

        Raises `RegistryError`.
        """
        transport = await self._transport(registry)
        # How it is now, and not how it is once a retry succeeds.
        request = Request(operation="log in", method="GET", url=transport.url(""), patient=False)
        async with transport.send(request) as response:
            return response.headers.get("Date")

    @property
    def traffic(self) -> Traffic:
        """What was asked of registries since the start."""
        return self._surroundings.traffic

    def closed(self) -> Mapping[str, Closed]:
        """Return the registries that are asked for nothing now, and for how long.

        They have the names (`host[:port]`) that references call them; hosts that they redirect to
        have their own.
        """
        return self._by_name(self._surroundings.admissions.closed())

    def troubled(self) -> Mapping[str, frozenset[Closure]]:
        """Return the registries that were closed and have not proven well since, and for what."""
        return self._by_name(self._surroundings.admissions.troubled())

    def _by_name(self, found: Mapping[URL, T]) -> Mapping[str, T]:
        names: dict[URL, set[str]] = defaultdict(set)
        for registry, settings in self._transports:
            names[origin_of(registry, settings)].add(registry)
        return {
            name: value
            for origin, value in found.items()
            for name in names.get(origin) or {str(origin).partition("://")[2]}
        }

    async def _transport(self, registry: str) -> Transport:
        key = (registry, self._settings_of(registry))
        opening = self._transports.get(key)
        if opening is None or (opening.done() and opening.exception() is not None):
            opening = asyncio.create_task(Transport.open(*key, self._surroundings))
            self._transports[key] = opening
        # Whoever has no patience leaves it under way. The file system may be gone, and its thread
        # with it: one is enough.
        await asyncio.wait([opening], timeout=OPENING_S)
        if not opening.done():
            raise RegistryTlsError(
                "the files with its certificates cannot be read in time",
                host=registry,
                operation="prepare TLS",
                hint="check the file system that ca_file, client_cert or certs.d is on",
            )
        return opening.result()
