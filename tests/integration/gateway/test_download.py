"""Large blobs: ranges, many readers, clients that leave."""

import asyncio
import os

import pytest

from kitd.oci.digest import digest_of

SIZE = 64 << 20


@pytest.fixture(scope="module")
def content():
    return os.urandom(1 << 20) * (SIZE >> 20)


@pytest.fixture(scope="module")
def blob(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("blob") / "blob"
    path.write_bytes(content)
    return path


@pytest.fixture
def url(store, blob, content):
    digest = digest_of(content)
    store.path_of(digest).hardlink_to(blob)
    return f"/v2/team/model/blobs/{digest}"


async def test_a_large_blob_arrives_whole_at_many_readers_at_once(client, url, content):
    async def pull():
        async with client.get(url) as response:
            assert response.headers["Accept-Ranges"] == "bytes"
            return digest_of(await response.read())

    assert set(await asyncio.gather(*(pull() for _ in range(3)))) == {digest_of(content)}


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        (f"bytes={SIZE - 3}-", SIZE - 3, SIZE),
        ("bytes=-100", SIZE - 100, SIZE),
        ("bytes=5000000-20000000", 5_000_000, 20_000_001),
    ],
)
async def test_a_range_is_exactly_that_part(client, url, content, header, start, end):
    async with client.get(url, headers={"Range": header}) as response:
        assert response.status == 206
        assert response.headers["Content-Range"] == f"bytes {start}-{end - 1}/{SIZE}"
        assert await response.read() == content[start:end]


async def test_a_range_beyond_the_end_is_refused_with_the_size(client, url):
    async with client.get(url, headers={"Range": f"bytes={SIZE}-"}) as response:
        assert response.status == 416
        assert response.headers["Content-Range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "headers", [{"Range": "lines=0-1"}, {"Range": "bytes=0-1", "If-Range": '"other"'}]
)
async def test_a_range_that_does_not_apply_gives_the_whole(client, url, headers):
    async with client.get(url, headers=headers) as response:
        assert response.status == 200
        assert response.content_length == SIZE


async def test_a_client_that_leaves_in_the_middle_leaves_no_file_open(client, url):
    def blobs_open():
        links = []
        for handle in os.listdir("/proc/self/fd"):
            try:
                links.append(os.readlink(f"/proc/self/fd/{handle}"))
            except FileNotFoundError:
                continue
        return sum(link.endswith(hex_digits) for link in links)

    hex_digits = url.rpartition(":")[2]

    async with client.get(url) as response:
        assert await response.content.readexactly(1000)
        assert blobs_open() == 1
        response.close()
    async with asyncio.timeout(10):
        while blobs_open():
            await asyncio.sleep(0.01)
    async with client.head(url) as response:
        assert response.status == 200
