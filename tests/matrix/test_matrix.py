"""Kits of every shape go to registries of every habit and come back as they were."""

import pytest

from fault_registry.habits import HABITS
from kitd.registry.settings import RegistrySettings
from matrix.row import Peer, peer_of, row_of
from matrix.shapes import SHAPES


async def copy_all(peer, place):
    async with row_of(peer) as row:
        for shape in SHAPES:
            await row.copy(shape, place / shape)


@pytest.mark.parametrize("name", HABITS)
async def test_every_shape_goes_there_and_back(name, tmp_path):
    async with peer_of(HABITS[name], tmp_path) as peer:
        await copy_all(peer, tmp_path)


async def test_every_shape_goes_to_debians_registry_and_back(docker_registry, tmp_path):
    await copy_all(Peer(docker_registry.host, RegistrySettings()), tmp_path)
