"""What survives the gateway: blobs, names, and uploads in their middle."""

import asyncio
import io
import os

import aiohttp
import pytest

from kitd.gateway.server import Gateway
from kitd.listener import ListenError
from kitd.oci.digest import digest_of

CONTENT = os.urandom(3 << 20)


async def test_an_upload_goes_on_after_a_restart(listen, store):
    async with listen() as client:
        async with client.post("/v2/team/model/blobs/uploads/") as response:
            location = response.headers["Location"]
        async with client.patch(location, data=io.BytesIO(CONTENT[:2_000_000])) as response:
            assert response.status == 202
    async with listen() as client:
        async with client.get(location) as response:
            assert response.headers["Range"] == "0-1999999"
        headers = {"Content-Range": f"2000000-{len(CONTENT) - 1}"}
        params = {"digest": digest_of(CONTENT)}
        rest = io.BytesIO(CONTENT[2_000_000:])
        async with client.put(location, data=rest, headers=headers, params=params) as response:
            assert response.status == 201
        async with client.get(response.headers["Location"]) as response:
            assert await response.read() == CONTENT


async def test_an_upload_that_broke_off_goes_on_where_it_was(client, store):
    async with client.post("/v2/team/model/blobs/uploads/") as response:
        location = response.headers["Location"]
    _, writer = await asyncio.open_connection(client._base_url.host, client._base_url.port)
    head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(CONTENT)}\r\n\r\n"
    writer.write(head.encode() + CONTENT[: 2 << 20])
    await writer.drain()
    path = store.uploads_dir / location.rpartition("/")[2]
    async with asyncio.timeout(10):
        while path.stat().st_size < 1 << 20:
            await asyncio.sleep(0.01)
    writer.transport.abort()
    async with asyncio.timeout(10):
        while True:
            offset = path.stat().st_size
            headers = {"Content-Range": f"{offset}-{len(CONTENT) - 1}"}
            rest = io.BytesIO(CONTENT[offset:])
            async with client.patch(location, data=rest, headers=headers) as response:
                if response.status == 202:
                    break
                # The request that broke off still has to notice.
                assert response.status in (409, 416)
            await asyncio.sleep(0.01)
    async with client.put(location, params={"digest": digest_of(CONTENT)}) as response:
        assert response.status == 201


async def test_a_whole_push_that_breaks_off_leaves_nothing(client, store):
    _, writer = await asyncio.open_connection(client._base_url.host, client._base_url.port)
    url = f"/v2/team/model/blobs/uploads/?digest={digest_of(CONTENT)}"
    head = f"POST {url} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(CONTENT)}\r\n\r\n"
    writer.write(head.encode() + CONTENT[: 2 << 20])
    await writer.drain()
    async with asyncio.timeout(10):
        while not list(store.uploads_dir.iterdir()):
            await asyncio.sleep(0.01)
        writer.transport.abort()
        while list(store.uploads_dir.iterdir()):
            await asyncio.sleep(0.01)
    assert store.size_of(digest_of(CONTENT)) is None


async def refused(host, port):
    """Return once nobody listens there any more."""
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except ConnectionRefusedError:
            return
        writer.close()
        await asyncio.sleep(0.01)


async def test_stopping_takes_no_new_requests_and_lets_those_under_way_end(store, catalog):
    arrived, release, stop = asyncio.Event(), asyncio.Event(), asyncio.Event()
    listening = asyncio.get_running_loop().create_future()

    async def serve():
        async with Gateway(store, catalog).listen("127.0.0.1", 0) as address:
            listening.set_result(address)
            await stop.wait()

    async def slowly():
        yield CONTENT[:100]
        arrived.set()
        await release.wait()
        yield CONTENT[100:]

    async def push(base):
        params = {"digest": digest_of(CONTENT)}
        async with (
            aiohttp.ClientSession(base) as client,
            client.post("/v2/team/model/blobs/uploads/", params=params, data=slowly()) as response,
        ):
            return response.status

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(serve())
        host, port = await listening
        pushed = group.create_task(push(f"http://{host}:{port}"))
        await arrived.wait()
        stop.set()
        await refused(host, port)
        release.set()
    assert pushed.result() == 201
    assert store.size_of(digest_of(CONTENT)) == len(CONTENT)


async def test_an_address_in_use_is_one_clear_error(store, catalog):
    gateway = Gateway(store, catalog)
    async with gateway.listen("127.0.0.1", 0) as (host, port):
        with pytest.raises(ListenError, match=f"{host}:{port}"):
            async with Gateway(store, catalog).listen(host, port):
                pass
