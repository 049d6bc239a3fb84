"""What a hostile registry never ends: it is refused, soon and with a clear error."""

import asyncio
import json
import resource

import pytest

from fault_registry.quirks import Quirks
from fault_registry.server import FaultRegistry
from fault_registry.storage import Manifest
from kitd.content.copy import copy_graph
from kitd.errors import Disposition, KitdError
from kitd.oci.descriptor import describe
from kitd.oci.media_type import OCI_INDEX

DEADLINE_S = 50.0
MOST_MEMORY_KIB = 150 * 1024


@pytest.fixture
async def peer(tmp_path):
    async with FaultRegistry(tmp_path / "peer") as registry:
        yield registry


def plain(target):
    return {"mediaType": target.media_type, "digest": target.digest, "size": target.size}


def put_index(peer, *nodes):
    """Put an index into the registry, whether or not what it names is there."""
    content = json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [plain(node) for node in nodes]}
    ).encode()
    target = describe(OCI_INDEX, content)
    peer.storage.repository("team/model").manifests[target.digest] = Manifest(OCI_INDEX, content)
    return target


async def refused(work):
    """Return the error with which something ends; it costs neither much time nor much memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(KitdError) as caught:
            await work
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY_KIB
    assert caught.value.disposition in (Disposition.FAIL, Disposition.RETRY)
    return caught.value


async def listed(remote):
    return [tag.name async for tag in remote.tags()]


async def copied(remote, cache, root):
    with cache.hold() as held:
        await copy_graph(remote, held, root, concurrency=4, progress=lambda *_: None)


async def fetched(remote, target):
    async with remote.fetch(target) as stream:
        return [chunk async for chunk in stream]


@pytest.mark.parametrize("endless", ["tags", "tag_page"])
async def test_a_list_of_tags_without_an_end(peer, connect, endless):
    peer.tell(Quirks(endless=endless))
    error = await refused(listed(await connect(peer.host)))
    assert error.code == "registry_protocol"
    assert peer.tally.kinds()["tags.get"] <= 1000


async def test_a_manifest_without_an_end(peer, connect, cache):
    peer.tell(Quirks(endless="manifest"))
    remote = await connect(peer.host)
    error = await refused(remote.resolve("latest"))
    assert error.code == "registry_protocol"
    error = await refused(copied(remote, cache, describe(OCI_INDEX, b"{}" * 1000)))
    assert error.code in ("digest_mismatch", "registry_protocol")


async def test_redirects_without_an_end(peer, connect, cache):
    content = cache.put(b"weights")
    remote = await connect(peer.host)
    await remote.push(content, cache)
    peer.tell(Quirks(endless="redirects", redirect_blobs=True))
    error = await refused(fetched(remote, content))
    assert "redirected more than" in error.message


async def test_indexes_inside_indexes_without_an_end(peer, connect, cache):
    root = put_index(peer)
    for _ in range(500):
        root = put_index(peer, root)
    remote = await connect(peer.host)
    error = await refused(copied(remote, cache, root))
    assert "too deep or too large" in error.message
    assert peer.tally.kinds()["manifest.get"] < 20


async def test_an_index_of_everything(peer, connect, cache):
    """Wide instead of deep: every index names a thousand others, which name the same ones."""
    leaves = [put_index(peer, describe(OCI_INDEX, str(number).encode())) for number in range(200)]
    root = put_index(peer, *(put_index(peer, *leaves[number:]) for number in range(100)))
    remote = await connect(peer.host)
    error = await refused(copied(remote, cache, root))
    # Each is read once, up to the first that is not there.
    assert error.code == "not_found"
    assert peer.tally.kinds()["manifest.get"] <= 10
