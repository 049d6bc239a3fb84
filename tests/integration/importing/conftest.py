"""A hub that listens, and a client of it that waits for nothing."""

from contextlib import AsyncExitStack

import pytest
from yarl import URL

from hub_server import HubServer, Quirks
from kitd.importing.hub import HubClient
from kitd.importing.settings import HubSettings
from kitd.importing.web import Web
from kitd.secret import Secrets


@pytest.fixture
async def stack():
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def content(tmp_path):
    """The files of the hub's repository: a large one twice, a small one, an empty one."""
    root = tmp_path / "content"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "model.safetensors").write_bytes(bytes(range(256)) * 12_000)
    (root / "deep" / "er" / "copy.safetensors").write_bytes(bytes(range(256)) * 12_000)
    (root / "config.json").write_text("{}")
    (root / "empty.txt").touch()
    (root / "a b%20ü#?.md").write_text("odd name")
    return root


@pytest.fixture
def hub(stack, content):
    """Start a hub with quirks, and a client of it."""

    async def start(token=None, silence_s=5.0, **quirks):
        server = await stack.enter_async_context(HubServer(content, Quirks(**quirks)))

        async def sleep(_delay_s):
            """Wait for nothing between attempts."""

        settings = HubSettings(URL(server.endpoint), token)
        web = await stack.enter_async_context(Web(sleep=sleep, silence_s=silence_s))
        return server, HubClient(lambda: settings, Secrets(), web)

    return start
