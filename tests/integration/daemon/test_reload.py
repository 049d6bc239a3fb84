"""A new configuration is in force as a whole or not at all, whoever waits for it."""

import asyncio
from dataclasses import replace

import pytest

from kitd.config.load import Loaded
from kitd.config.model import Config, RpcConfig, WorkersConfig
from kitd.daemon.in_force import InForce
from kitd.daemon.notify import ServiceManager
from kitd.daemon.reload import Reloader, Targets


@pytest.fixture
def old(tmp_path):
    return Config(state_dir=tmp_path, rpc=RpcConfig(socket=tmp_path / "socket"))


async def test_a_caller_who_goes_away_does_not_leave_half_of_it(old):
    """The projects are defined anew, and the call is taken back before the rest is."""
    new = replace(old, workers=WorkersConfig(pack=7))
    in_force = InForce(old)
    redefining, may_end = asyncio.Event(), asyncio.Event()
    applied = []

    async def redefine(_projects):
        redefining.set()
        await may_end.wait()

    async def emit(event):
        applied.append(event.type)

    targets = Targets(
        prepare=lambda config: lambda: applied.append(config.workers.pack),
        redefine=redefine,
        emit=emit,
    )
    reloader = Reloader(lambda: Loaded(new, None), in_force, targets, ServiceManager())
    async with asyncio.timeout(10):
        call = asyncio.create_task(reloader.reload())
        await redefining.wait()
        call.cancel()
        may_end.set()
        await asyncio.wait([call])
    assert call.cancelled()
    assert in_force.config is new
    assert applied == [7, "config.reloaded"]
