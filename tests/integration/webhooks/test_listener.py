"""Where deliveries are received: a port or a socket in the file system, until kitd stops."""

import asyncio
import socket
import stat

import aiohttp
import pytest

from kitd.config.address import TcpAddress, UnixAddress
from kitd.daemon.webhook_listener import WebhookListener
from kitd.listener import ListenError
from kitd.rpc.endpoint import AlreadyRunningError, EndpointError
from kitd.webhooks.receiver import Receiver
from kitd.webhooks.server import WebhookServer
from told import push, signed


@pytest.fixture
def listener(desk, parts):
    """Make a listener for a place."""

    def listener(place):
        return WebhookListener(WebhookServer(Receiver(desk, parts.clock, parts.secrets)), place)

    return listener


async def send(path):
    body = push()
    async with (
        aiohttp.UnixConnector(str(path)) as connector,
        aiohttp.ClientSession(connector=connector) as client,
        client.post("http://kitd/hooks/one", data=body, headers=signed(body)) as response,
    ):
        return response.status


async def stopped(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_socket_in_the_file_system(listener, tmp_path):
    """Anybody may connect: what lets him in is the secret. A dead one is replaced."""
    path = tmp_path / "hooks.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    first = listener(UnixAddress(path))
    running = asyncio.create_task(first.run())
    assert await first.opened() == f"unix:{path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert [await send(path), await send(path)] == [202, 200]
    with pytest.raises(AlreadyRunningError):
        await listener(UnixAddress(path)).run()
    assert await send(path) == 200
    await stopped(running)
    assert not path.exists()


async def test_something_else_in_the_place_of_the_socket_stays(listener, tmp_path):
    path = tmp_path / "hooks.sock"
    path.write_text("precious")
    with pytest.raises(EndpointError) as caught:
        await listener(UnixAddress(path)).run()
    assert "webhooks.listen" in caught.value.hint
    assert path.read_text() == "precious"


async def test_a_port_that_is_taken_is_named(listener):
    first = listener(TcpAddress("127.0.0.1", 0))
    running = asyncio.create_task(first.run())
    host, _, port = (await first.opened()).partition(":")
    with pytest.raises(ListenError, match=f"{host}:{port}") as caught:
        await listener(TcpAddress(host, int(port))).run()
    assert "webhooks.listen" in caught.value.hint
    await stopped(running)


async def test_nowhere(listener):
    nowhere = listener(None)
    running = asyncio.create_task(nowhere.run())
    assert await nowhere.opened() is None
    await stopped(running)


async def test_a_delivery_under_way_is_answered_before_the_stop(listener):
    here = listener(TcpAddress("127.0.0.1", 0))
    running = asyncio.create_task(here.run())
    host, _, port = (await here.opened()).partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = push()
    lines = ["POST /hooks/one HTTP/1.1", "Host: a", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in signed(body).items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body[:5])
    async with asyncio.timeout(20):
        while not here._server._held_bytes:
            await asyncio.sleep(0.01)
        running.cancel()
        writer.write(body[5:])
        assert (await reader.readline()).startswith(b"HTTP/1.1 202")
    writer.close()
    await stopped(running)
