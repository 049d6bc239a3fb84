"""A row of the matrix: kits go to one registry, and from there to a cache.

A cell is one shape of kits in repositories of its own.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp

from fault_registry.access import IDENTITY_TOKEN, PASSWORD, USER
from fault_registry.habits import Habit
from fault_registry.server import FaultRegistry
from kitd.content.copy import copy_graph, walk
from kitd.content.store import Fetcher, Target
from kitd.content.verify import read
from kitd.errors import Disposition, KitdError
from kitd.oci.descriptor import Descriptor
from kitd.oci.media_type import OCI_INDEX
from kitd.oci.reference import Repository
from kitd.registry.client import RegistryClient
from kitd.registry.repository import RemoteRepository
from kitd.registry.settings import PasswordFile, RegistrySettings, TokenFile, UploadMode
from kitd.registry.transport import Surroundings
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent
from matrix.shapes import SHAPES, Contents, Kit

CONCURRENCY = 4


@dataclass(frozen=True, slots=True)
class Peer:
    """A registry as the clients under test are told of it."""

    host: str
    settings: RegistrySettings
    registry: FaultRegistry | None = None
    """What it really is, unless it is another's."""
    attempts: int = 1


@asynccontextmanager
async def peer_of(habit: Habit, place: Path) -> AsyncIterator[Peer]:
    """Run a fault registry that has the habit."""
    password, token = place / "password", place / "token"
    password.write_text(PASSWORD)
    token.write_text(IDENTITY_TOKEN)
    for path in (password, token):
        path.chmod(0o600)
    async with FaultRegistry(place / "registry", habit.quirks) as registry:
        direct = habit.host == "127.0.0.1"
        settings = RegistrySettings(
            plain_http=True,
            proxy=None if direct else f"http://{registry.host}",
            credentials=TokenFile(token) if habit.identity else PasswordFile(USER, password),
            upload_mode=UploadMode.AUTO if habit.chunk_bytes is None else UploadMode.CHUNKED,
            chunk_bytes=habit.chunk_bytes,
        )
        yield Peer(registry.host if direct else habit.host, settings, registry, habit.attempts)


@dataclass(frozen=True, slots=True)
class Row:
    """A registry, a client that pushes to it, and one that pulls and knows nothing of the other."""

    peer: Peer
    pusher: RegistryClient
    puller: RegistryClient

    async def copy(self, shape: str, place: Path) -> None:
        """Copy kits of a shape to the registry and back, and compare them.

        Raises what went wrong, `AssertionError` among it.
        """
        contents = Contents(seed=shape)
        kits = SHAPES[shape](contents)
        lenders = tuple(f"{shape}/{kit.repository}" for kit in kits)
        for kit in kits:
            remote = await self.pusher.repository(self._where(shape, kit), mount_from=lenders)
            await self._copy(contents, remote, kit.root)
            await self._patiently(partial(remote.tag, kit.root, "v1"))
        store = BlobStore(place)
        store.create()
        with CacheContent(store).hold() as cache:
            for kit in kits:
                remote = await self.puller.repository(self._where(shape, kit))
                await self._patiently(partial(self._check, remote, kit.root))
                await self._copy(remote, cache, kit.root)
                for node in await walk(contents, kit.root):
                    content = await read(cache, node, max_bytes=node.size)
                    assert content == contents.contents[node.digest], f"{node} is not what it was"
                await self._check_referrers(f"{shape}/{kit.repository}", kit.root, contents)

    async def _copy(self, source: Fetcher, target: Target, root: Descriptor) -> None:
        await self._patiently(
            partial(
                copy_graph,
                source,
                target,
                root,
                concurrency=CONCURRENCY,
                progress=lambda _done, _total: None,
            )
        )

    async def _patiently(self, attempt: Callable[[], Awaitable[object]]) -> None:
        """Try as often as the registry's habit allows, as the queue does."""
        for left in reversed(range(self.peer.attempts)):
            try:
                await attempt()
            except KitdError as error:
                if left == 0 or error.disposition is not Disposition.RETRY:
                    raise
            else:
                return

    def _where(self, shape: str, kit: Kit) -> Repository:
        return Repository(self.peer.host, f"{shape}/{kit.repository}")

    async def _check(self, remote: RemoteRepository, root: Descriptor) -> None:
        """Find a kit by what names it."""
        # Indexes of referrers have names, too.
        named = [tag.name async for tag in remote.tags()]
        named = [tag for tag in named if not tag.startswith("sha256-")]
        assert named == ["v1"]
        found = await remote.resolve(root.digest)
        assert (found.digest, found.size) == (root.digest, root.size)

    async def _check_referrers(self, name: str, root: Descriptor, contents: Contents) -> None:
        """Look, as another client would, whether a kit's subject is known to have this referrer."""
        subject = json.loads(contents.contents[root.digest]).get("subject")
        if subject is None:
            return
        tag = subject["digest"].replace(":", "-")
        if self.peer.registry is None:
            url = f"http://{self.peer.host}/v2/{name}/manifests/{tag}"
            headers = {"Accept": OCI_INDEX}
            async with (
                aiohttp.ClientSession() as session,
                session.get(url, headers=headers) as response,
            ):
                assert response.status == 200, "there is no list of referrers"
                listed = (await response.json(content_type=None))["manifests"]
        else:
            repository = self.peer.registry.storage.repository(name)
            if self.peer.registry.quirks.referrers:
                listed = repository.referrers(subject["digest"])
            else:
                index = repository.manifest(tag)
                assert index is not None, "there is no list of referrers"
                listed = index[1].document["manifests"]
        assert root.digest in {one["digest"] for one in listed}, "it is not in the list"


@asynccontextmanager
async def row_of(peer: Peer) -> AsyncIterator[Row]:
    """Prepare the clients."""
    async with (
        RegistryClient(lambda _: peer.settings, Surroundings()) as pusher,
        RegistryClient(lambda _: peer.settings, Surroundings()) as puller,
    ):
        yield Row(peer, pusher, puller)
