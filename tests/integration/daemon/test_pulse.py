"""Who has to answer before the service manager hears that kitd is alive."""

import asyncio
import contextlib
import socket

import pytest

from kitd.clock import SystemClock
from kitd.daemon.notify import ServiceManager
from kitd.daemon.pulse import Pulse
from kitd.errors import KitdError


@pytest.fixture
def manager(tmp_path):
    """A service manager with a watchdog of 0.3 s, and what it hears."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(tmp_path / "notify"))
    sock.setblocking(False)
    yield ServiceManager(address=str(tmp_path / "notify"), watchdog_s=0.3), sock
    sock.close()


@contextlib.asynccontextmanager
async def pulse(service, **probes):
    async def status():
        return "all is well"

    beating = Pulse(probes, status, service, SystemClock())
    task = asyncio.create_task(beating.run())
    try:
        yield beating
    finally:
        task.cancel()
        await asyncio.wait([task])


async def hear(sock, timeout_s=5.0):
    async with asyncio.timeout(timeout_s):
        return (await asyncio.get_running_loop().sock_recv(sock, 4096)).decode()


async def well():
    pass


async def test_it_beats_while_all_answer(manager):
    service, sock = manager
    async with pulse(service, loop=well, ledger=well):
        for _ in range(3):
            assert await hear(sock) == "WATCHDOG=1\nSTATUS=all is well"


async def test_it_is_silent_while_one_does_not_answer(manager):
    """Each of the others being alive is no reason to keep kitd running."""
    service, sock = manager
    awake = asyncio.Event()
    async with pulse(service, loop=well, ledger=awake.wait) as beating:
        with pytest.raises(TimeoutError):
            await hear(sock, 0.5)
        assert beating.silent == ("ledger",)
        awake.set()
        assert "WATCHDOG=1" in await hear(sock)
        assert beating.silent == ()


async def test_an_error_is_an_answer(manager):
    """A full disk is no reason to be killed: what says so is alive."""
    service, sock = manager

    async def complain():
        raise KitdError("the disk is full")

    async with pulse(service, ledger=complain):
        assert "WATCHDOG=1" in await hear(sock)
