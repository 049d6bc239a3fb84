"""A push to kitd's own registry, and a collection at the same time."""

import asyncio
import json
import os
import time

import aiohttp
import pytest

from kitd.gateway.server import Gateway
from kitd.oci.descriptor import describe
from kitd.oci.media_type import OCI_MANIFEST
from kitd.store.lease import LeaseBook

LAYER, CONFIG = b"weights", b"{}"


@pytest.fixture
def leases():
    return LeaseBook()


@pytest.fixture
async def client(store, catalog, leases):
    gateway = Gateway(store, catalog, leases)
    async with (
        gateway.listen("127.0.0.1", 0) as (host, port),
        aiohttp.ClientSession(f"http://{host}:{port}") as client,
    ):
        yield client


def old(store, content):
    """Store a blob long ago."""
    digest = store.put(content).digest
    os.utime(store.path_of(digest), (time.time() - 7200,) * 2)
    return digest


def is_young(store, digest):
    return store.path_of(digest).stat().st_mtime > time.time() - 60


async def test_a_client_that_asks_for_a_blob_has_a_while_to_use_it(client, store, leases):
    digest = old(store, LAYER)
    async with client.get(f"/v2/team/model/blobs/{digest}") as response:
        assert response.status == 200
    assert not leases.is_leased(digest)
    async with client.head(f"/v2/team/model/blobs/{digest}") as response:
        assert response.status == 200
    assert leases.is_leased(digest)
    # And after a restart, too.
    assert is_young(store, digest)


async def test_a_blob_that_is_mounted_or_uploaded_again_stays_for_its_manifest(
    client, store, leases
):
    mounted, uploaded = old(store, LAYER), old(store, CONFIG)
    async with client.post(f"/v2/team/model/blobs/uploads/?mount={mounted}&from=x/y") as response:
        assert response.status == 201
    async with client.post("/v2/team/model/blobs/uploads/") as response:
        place = response.headers["Location"]
    async with client.put(f"{place}?digest={uploaded}", data=CONFIG) as response:
        assert response.status == 201
    for digest in (mounted, uploaded):
        assert leases.is_leased(digest)
        assert is_young(store, digest)


async def test_a_mount_of_what_goes_waits_and_is_refused(client, store, leases):
    digest = old(store, LAYER)
    with leases.condemn([digest]):
        asked = asyncio.create_task(client.post(f"/v2/team/model/blobs/uploads/?mount={digest}"))
        # Somebody else is answered meanwhile.
        async with client.get("/v2/") as response:
            assert response.status == 200
        assert not asked.done()
        store.remove(digest)
    async with await asked as response:
        assert response.status == 202


async def test_a_manifest_whose_blob_goes_meanwhile_is_refused(client, store, leases, catalog):
    layer, config = describe("l", LAYER), describe("c", CONFIG)
    store.put(LAYER)
    store.put(CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "c", "digest": config.digest, "size": config.size},
        "layers": [{"mediaType": "l", "digest": layer.digest, "size": layer.size}],
    }
    with leases.condemn([layer.digest]):
        asked = asyncio.create_task(
            client.put(
                "/v2/team/model/manifests/v1",
                data=json.dumps(manifest),
                headers={"Content-Type": OCI_MANIFEST},
            )
        )
        async with client.get("/v2/") as response:
            assert response.status == 200
        store.remove(layer.digest)
    async with await asked as response:
        assert response.status == 404
        assert (await response.json())["errors"][0]["code"] == "MANIFEST_BLOB_UNKNOWN"
    assert await catalog.tagged() == []
    assert not leases.leased()
