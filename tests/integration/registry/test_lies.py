"""A registry that does not say the truth: nothing wrong is published, and an error says so."""

import os

import pytest

from fault_registry.quirks import Quirks
from fault_registry.server import FaultRegistry
from kitd.content.store import MismatchError
from kitd.errors import Disposition, KitdError
from kitd.oci.descriptor import describe
from kitd.oci.media_type import OCI_INDEX
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent

SIZE = 2_000_003


@pytest.fixture
async def peer(tmp_path):
    async with FaultRegistry(tmp_path / "peer") as registry:
        yield registry


@pytest.fixture
def back(tmp_path):
    """An empty cache to copy to."""
    store = BlobStore(tmp_path / "back")
    store.create()
    with CacheContent(store).hold() as held:
        yield held


@pytest.fixture
async def remote(peer, connect):
    return await connect(peer.host)


@pytest.fixture
async def target(remote, cache):
    """A blob that the registry has."""
    target = cache.put(os.urandom(SIZE))
    await remote.push(target, cache)
    return target


async def until_done(attempt, most):
    """Try again as the queue does."""
    for left in reversed(range(most)):
        try:
            return await attempt()
        except KitdError as error:
            if left == 0 or error.disposition is not Disposition.RETRY:
                raise
    raise AssertionError("the last attempt returns or raises")


async def test_a_blob_with_another_digest_is_not_published(peer, remote, back, target):
    peer.tell(Quirks(corrupt_blobs=1000))
    with pytest.raises(MismatchError):
        await back.push(target, remote)
    assert not await back.exists(target)


async def test_a_blob_that_was_wrong_once_comes_right_in_the_end(peer, remote, back, target):
    """What was wrong of it is not gone on with."""
    peer.tell(Quirks(corrupt_blobs=1))
    await until_done(lambda: back.push(target, remote), 3)
    assert await back.exists(target)
    assert peer.tally.blob("team/model", target.digest).sent_bytes <= 2 * SIZE


@pytest.mark.parametrize("lie", [-1, 1, 100_000, -SIZE])
async def test_a_length_that_is_a_lie_publishes_nothing(peer, remote, back, target, lie):
    peer.tell(Quirks(length_lie=lie))
    with pytest.raises(KitdError):
        await back.push(target, remote)
    assert not await back.exists(target)


async def test_an_upload_that_was_stored_as_something_else_has_failed(peer, remote, cache):
    peer.tell(Quirks(digest_header="wrong"))
    target = cache.put(os.urandom(1000))
    with pytest.raises(KitdError, match="stored"):
        await remote.push(target, cache)


async def test_a_manifest_that_is_called_something_else_is_refused(peer, remote, cache):
    content = b'{"schemaVersion":2,"mediaType":"%s","manifests":[]}' % OCI_INDEX.encode()
    target = cache.put(content, OCI_INDEX)
    await remote.push(target, cache)
    peer.tell(Quirks(digest_header="wrong"))
    with pytest.raises(MismatchError):
        await remote.resolve(target.digest)


@pytest.mark.parametrize("ranges", ["ignored", "refused"])
async def test_without_ranges_a_cut_download_begins_again(peer, remote, back, target, ranges):
    peer.tell(Quirks(ranges=ranges, cut_sent_bytes=SIZE // 2, cuts=2))
    await until_done(lambda: back.push(target, remote), 6)
    assert await back.exists(target)


async def test_a_registry_without_head_is_pushed_to_and_pulled_from(peer, remote, cache, back):
    peer.tell(Quirks(head=False))
    target = cache.put(os.urandom(1000))
    assert await remote.push(target, cache) == 1000
    await back.push(target, remote)
    assert await back.exists(target)
    assert not await remote.exists(describe("application/octet-stream", b"nobody's"))
