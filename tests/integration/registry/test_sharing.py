"""Many that want the same content at once, or in the same registry: it travels once."""

import asyncio
import os

import pytest

from fault_registry.quirks import Quirks
from fault_registry.server import FaultRegistry
from kitd.oci.digest import digest_of
from kitd.oci.reference import Repository
from kitd.registry.settings import RegistrySettings
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent

MIB = 1 << 20
SIZE = 4 * MIB + 3
CROWD = 50
TUNES = 30


@pytest.fixture
async def peer(tmp_path):
    """A registry that counts. It is slow enough for everybody to meet."""
    quirks = Quirks(received_bytes_per_s=20e6, sent_bytes_per_s=20e6)
    async with FaultRegistry(tmp_path / "peer", quirks) as registry:
        yield registry


async def repositories(connect, host, names):
    """Return repositories that share one client."""
    client = await connect.client(RegistrySettings())
    return [await client.repository(Repository(host, name)) for name in names]


async def together(*work):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in work]
    return [task.result() for task in tasks]


async def test_fifty_that_want_one_blob_download_it_once(peer, connect, cache, tmp_path):
    target = cache.put(os.urandom(SIZE))
    (remote,) = await repositories(connect, peer.host, ["team/model"])
    await remote.push(target, cache)
    store = BlobStore(tmp_path / "back")
    store.create()
    back = CacheContent(store)
    jobs = [back.hold() for _ in range(CROWD)]

    moved = await together(*(job.push(target, remote) for job in jobs))

    assert (
        store.path_of(target.digest).read_bytes() == cache.store.path_of(target.digest).read_bytes()
    )
    blob = peer.tally.blob("team/model", target.digest)
    assert blob.sent_bytes == SIZE
    assert sum(moved) == SIZE
    for job in jobs:
        job.release()


async def test_fifty_pushes_to_a_repository_upload_once(peer, connect, cache):
    target = cache.put(os.urandom(SIZE))
    remotes = await repositories(connect, peer.host, ["team/model"] * CROWD)

    moved = await together(*(remote.push(target, cache) for remote in remotes))

    blob = peer.tally.blob("team/model", target.digest)
    assert (blob.uploads, blob.received_bytes) == (1, SIZE)
    assert peer.tally.received_bytes() == SIZE
    assert sum(moved) == SIZE
    assert peer.storage.uploads == {}, "an upload was begun for nothing"


async def test_who_waits_for_an_upload_that_fails_does_it_himself(peer, connect, cache):
    """The first is cancelled in the middle; nobody else is."""
    target = cache.put(os.urandom(SIZE))
    first, *others = await repositories(connect, peer.host, ["team/model"] * 5)
    doomed = asyncio.create_task(first.push(target, cache))
    waiting = [asyncio.create_task(other.push(target, cache)) for other in others]
    async with asyncio.timeout(20):
        while peer.tally.received_bytes() == 0:
            await asyncio.sleep(0)
        doomed.cancel()
        moved = [await push for push in waiting]
    assert target.digest in peer.storage.repository("team/model").blobs
    assert any(moved)
    with pytest.raises(asyncio.CancelledError):
        await doomed


@pytest.mark.parametrize("at_once", [False, True], ids=["one after another", "all at once"])
async def test_thirty_tunes_of_a_base_upload_what_is_unique(peer, connect, cache, at_once):
    """In sibling repositories; nobody said which of them holds what."""
    peer.tell(Quirks())
    base = [cache.put(os.urandom(300_000 + number)) for number in range(4)]
    names = [f"team/tune-{number}" for number in range(TUNES)]
    remotes = await repositories(connect, peer.host, names)
    own = [cache.put(os.urandom(20_000 + number)) for number in range(TUNES)]

    async def push(number):
        for blob in (*base, own[number]):
            await remotes[number].push(blob, cache)

    if at_once:
        await together(*(push(number) for number in range(TUNES)))
    else:
        for number in range(TUNES):
            await push(number)

    for name, tune in zip(names, own, strict=True):
        held = peer.storage.repository(name).blobs
        assert held == {tune.digest, *(blob.digest for blob in base)}
    unique = sum(blob.size for blob in (*base, *own))
    assert peer.tally.received_bytes() == unique
    mounts = sum(blob.mounts for blob in peer.tally.blobs.values())
    # One was a try: the blob was there, see `test_small_blobs.py`.
    assert mounts == (TUNES - 1) * len(base) + 1


async def test_a_blob_that_is_gone_from_where_it_was_is_uploaded(peer, connect, cache):
    """Where a blob was is hearsay: registries delete."""
    peer.tell(Quirks())
    content = os.urandom(100_000)
    target = cache.put(content)
    first, second = await repositories(connect, peer.host, ["team/one", "team/two"])
    await first.push(target, cache)
    peer.storage.repository("team/one").blobs.clear()
    assert await second.push(target, cache) == target.size
    assert peer.storage.repository("team/two").blobs == {digest_of(content)}
