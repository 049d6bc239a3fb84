"""A disk that is full: a clear answer, nothing half done, and it goes on once there is space."""

import io
import os

import pytest

from kitd.blocking import run_blocking
from kitd.oci.digest import digest_of
from kitd.store.blob_store import BlobStore

CONTENT = os.urandom(3 << 20)


@pytest.fixture
def small_disk(mount_disk):
    """Mount four megabytes."""
    return mount_disk("4m")


async def test_a_full_disk_fails_the_push_and_loses_nothing(small_disk, listen):
    store = BlobStore(small_disk)
    store.create()
    ballast = small_disk / "ballast"
    await run_blocking(ballast.write_bytes, b"0" * (2 << 20))
    params = {"digest": digest_of(CONTENT)}
    async with listen(store=store) as client:
        async with client.post("/v2/x/blobs/uploads/") as response:
            location = response.headers["Location"]
        async with client.patch(location, data=io.BytesIO(CONTENT)) as response:
            assert response.status == 507
            (error,) = (await response.json())["errors"]
            assert error["code"] == "UNKNOWN"
            assert "full" in error["message"]
            assert str(small_disk) not in error["message"]
        async with client.post(
            "/v2/x/blobs/uploads/", params=params, data=io.BytesIO(CONTENT)
        ) as response:
            assert response.status == 507
        assert store.size_of(digest_of(CONTENT)) is None
        assert [path.name for path in store.uploads_dir.iterdir()] == [location.rsplit("/")[-1]]
        ballast.unlink()
        async with client.get(location) as response:
            offset = int(response.headers["Range"].removeprefix("0-")) + 1
        assert 0 < offset < len(CONTENT)
        headers = {"Content-Range": f"{offset}-{len(CONTENT) - 1}"}
        rest = io.BytesIO(CONTENT[offset:])
        async with client.put(location, params=params, data=rest, headers=headers) as response:
            assert response.status == 201
        async with client.get(response.headers["Location"]) as response:
            assert await response.read() == CONTENT
