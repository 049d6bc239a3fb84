"""Tokens that end while something is on its way."""

import os

import pytest

from fault_registry.access import PASSWORD, USER
from fault_registry.quirks import Quirks
from fault_registry.server import FaultRegistry
from kitd.content.verify import read
from kitd.errors import Disposition, KitdError
from kitd.oci.reference import Repository
from kitd.registry.client import RegistryClient
from kitd.registry.settings import PasswordFile, RegistrySettings, UploadMode
from kitd.registry.transport import Surroundings

MIB = 1 << 20
SIZE = 12 * MIB + 5
TOKEN_S = 0.5
BYTES_PER_S = 8e6
"""A transfer takes three tokens."""

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "password"
    path.write_text(PASSWORD)
    path.chmod(0o600)
    return RegistrySettings(
        credentials=PasswordFile(USER, path), upload_mode=UploadMode.CHUNKED, chunk_bytes=2 * MIB
    )


@pytest.mark.parametrize("midway", [False, True], ids=["between chunks", "in the middle of one"])
@pytest.mark.parametrize("told_s", [None, 300.0], ids=["as announced", "early"])
async def test_an_upload_outlives_its_tokens(settings, cache, tmp_path, midway, told_s):
    quirks = Quirks(
        auth="bearer",
        token_s=TOKEN_S,
        token_told_s=told_s,
        token_checked_midway=midway,
        received_bytes_per_s=BYTES_PER_S,
    )
    target = cache.put(os.urandom(SIZE))
    async with (
        FaultRegistry(tmp_path / "registry", quirks) as registry,
        RegistryClient(lambda _: settings, Surroundings()) as client,
    ):
        remote = await client.repository(Repository(registry.host, "team/model"))
        assert await remote.push(target, cache) == SIZE
        blob = registry.tally.blob("team/model", target.digest)
        assert blob.uploads == 1
        tokens = registry.tally.kinds()["token.get"]
        assert tokens >= 3, "the tokens lasted"
        # A refusal in the middle of a chunk costs at most that chunk.
        assert blob.received_bytes - SIZE <= (tokens * 2 * MIB if midway else 0)


async def test_a_download_outlives_its_tokens(settings, cache, tmp_path):
    """Every reconnection needs a new one."""
    target = cache.put(os.urandom(SIZE))
    async with (
        FaultRegistry(tmp_path / "registry") as registry,
        RegistryClient(lambda _: settings, Surroundings()) as client,
    ):
        remote = await client.repository(Repository(registry.host, "team/model"))
        await remote.push(target, cache)
        registry.reset()
        registry.tell(
            Quirks(
                auth="bearer",
                token_s=TOKEN_S,
                token_told_s=300.0,
                sent_bytes_per_s=BYTES_PER_S,
                cut_sent_bytes=5 * MIB,
            )
        )
        for left in reversed(range(5)):
            try:
                content = await read(remote, target, max_bytes=SIZE)
            except KitdError as error:
                if left == 0 or error.disposition is not Disposition.RETRY:
                    raise
            else:
                break
        assert content == cache.store.path_of(target.digest).read_bytes()
        assert registry.tally.cuts > 0
        assert registry.tally.kinds()["token.get"] >= 2, "one token lasted"
