"""Requests that nobody should send: each gets one clear answer, and the next one works."""

import asyncio
import gzip
import io

import pytest

from kitd.oci.digest import digest_of
from kitd.oci.media_type import OCI_MANIFEST

GOOD = "sha256:" + "0" * 64
EMPTY = '{"schemaVersion":2,"config":{"mediaType":"a","digest":"%s","size":2},"layers":[]}'


async def error_of(response):
    assert response.content_type == "application/json"
    assert response.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    document = await response.json()
    (error,) = document["errors"]
    assert error["message"]
    return response.status, error["code"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "UNSUPPORTED"),
        ("GET", "/v2", 404, "UNSUPPORTED"),
        ("GET", "/v1/repositories/x", 404, "UNSUPPORTED"),
        ("GET", "/v2/_catalog", 404, "UNSUPPORTED"),
        ("POST", "/v2/", 405, "UNSUPPORTED"),
        ("OPTIONS", "/v2/x/tags/list", 405, "UNSUPPORTED"),
        ("PUT", f"/v2/x/blobs/{GOOD}", 405, "UNSUPPORTED"),
        ("GET", "/v2/x/tags/list", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/UPPER/tags/list", 400, "NAME_INVALID"),
        ("GET", "/v2/..%2f..%2fetc/manifests/v1", 400, "NAME_INVALID"),
        ("GET", "/v2/a//b/manifests/v1", 400, "NAME_INVALID"),
        ("GET", "/v2/a%00b/manifests/v1", 400, "NAME_INVALID"),
        ("GET", f"/v2/{'a' * 300}/manifests/v1", 400, "NAME_INVALID"),
        ("GET", "/v2/x/blobs/sha256:short", 400, "DIGEST_INVALID"),
        ("GET", "/v2/x/blobs/..", 404, "UNSUPPORTED"),
        ("GET", "/v2/x/blobs/sha256:%2e%2e%2f%2e%2e", 400, "DIGEST_INVALID"),
        ("GET", f"/v2/x/blobs/md5:{'0' * 32}", 400, "DIGEST_INVALID"),
        ("GET", f"/v2/x/blobs/{GOOD}", 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/x/manifests/v1", 404, "MANIFEST_UNKNOWN"),
        ("GET", f"/v2/x/manifests/{GOOD}", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/x/manifests/.bad", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/x/manifests/sha256:bad", 400, "DIGEST_INVALID"),
        ("DELETE", "/v2/x/manifests/v1", 404, "MANIFEST_UNKNOWN"),
        ("PUT", "/v2/x/manifests/.bad", 400, "MANIFEST_INVALID"),
        ("PUT", f"/v2/x/manifests/{GOOD}?tag=.bad", 400, "MANIFEST_INVALID"),
        ("PUT", f"/v2/x/manifests/{GOOD}?{'&'.join(f'tag=t{n}' for n in range(65))}", 414,
         "MANIFEST_INVALID"),
        ("GET", "/v2/x/tags/list?n=-1", 400, "UNSUPPORTED"),
        ("GET", "/v2/x/tags/list?n=1e9", 400, "UNSUPPORTED"),
        ("GET", "/v2/x/referrers/nonsense", 400, "DIGEST_INVALID"),
        ("POST", "/v2/x/blobs/uploads/?mount=nonsense", 400, "DIGEST_INVALID"),
        ("POST", "/v2/x/blobs/uploads/?digest=nonsense", 400, "DIGEST_INVALID"),
        ("POST", "/v2/x/blobs/uploads/?digest-algorithm=md5", 400, "DIGEST_INVALID"),
        ("GET", "/v2/x/blobs/uploads/nobody", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PATCH", "/v2/x/blobs/uploads/..%2f..%2fsecret", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("DELETE", "/v2/x/blobs/uploads/nobody", 404, "BLOB_UPLOAD_UNKNOWN"),
    ],
)  # fmt: skip
async def test_a_request_that_makes_no_sense_is_refused(client, store, method, path, status, code):
    url = client._base_url.join(type(client._base_url)(path, encoded=True))
    async with client.request(method, url) as response:
        assert await error_of(response) == (status, code)
    assert list(store.uploads_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        (OCI_MANIFEST, b""),
        (OCI_MANIFEST, b"\xff\xfe"),
        (OCI_MANIFEST, b"[]"),
        (OCI_MANIFEST, b'{"schemaVersion":1}'),
        (OCI_MANIFEST, b"[" * 100_000),
        (OCI_MANIFEST, b'{"schemaVersion":2,"schemaVersion":2}'),
        (OCI_MANIFEST, EMPTY.encode() % b"sha256:../../etc/passwd"),
        ("text/html", EMPTY.encode() % GOOD.encode()),
    ],
)
async def test_a_document_that_is_no_manifest_is_refused(client, store, media_type, body):
    async with client.put(
        "/v2/x/manifests/v1", data=body, headers={"Content-Type": media_type}
    ) as response:
        assert await error_of(response) == (400, "MANIFEST_INVALID")
    assert store.size_of(digest_of(body)) is None


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_manifest_beyond_the_limit_is_refused_before_it_is_held(client, chunked):
    async def endless():
        for _ in range(5):
            yield b" " * (1 << 20)

    body = endless() if chunked else io.BytesIO(b" " * (5 << 20))
    async with client.put(
        "/v2/x/manifests/v1", data=body, headers={"Content-Type": OCI_MANIFEST}
    ) as response:
        assert await error_of(response) == (413, "SIZE_INVALID")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/x/blobs/uploads/"),
        ("PUT", "/v2/x/manifests/v1"),
        ("DELETE", "/v2/x/manifests/v1"),
    ],
)
async def test_a_web_page_may_not_write(client, store, method, path):
    headers = {"Origin": "https://evil.example.com"}
    async with client.request(method, path, headers=headers) as response:
        assert await error_of(response) == (403, "DENIED")
    assert list(store.uploads_dir.iterdir()) == []


async def test_a_body_is_stored_as_it_came_whatever_its_encoding_says(client, store):
    content = gzip.compress(b"0" * 10_000)
    async with client.post(
        "/v2/x/blobs/uploads/",
        params={"digest": digest_of(content)},
        data=content,
        headers={"Content-Encoding": "gzip"},
    ) as response:
        assert response.status == 201
    assert store.path_of(digest_of(content)).read_bytes() == content


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PUT /v2/x HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GARBAGE\r\n\r\n",
    ],
)
async def test_what_is_not_http_ends_the_connection_and_nothing_else(client, request_bytes):
    reader, writer = await asyncio.open_connection(client._base_url.host, client._base_url.port)
    writer.write(request_bytes)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    assert b" 400 " in answer.partition(b"\r\n")[0] or answer == b""
    async with client.get("/v2/") as response:
        assert response.status == 200


async def test_a_damaged_manifest_in_the_cache_is_not_served(client, store):
    config = b"{}"
    store.put(config)
    manifest = (EMPTY % digest_of(config)).encode()
    async with client.put(
        "/v2/x/manifests/v1", data=manifest, headers={"Content-Type": OCI_MANIFEST}
    ) as response:
        assert response.status == 201
    path = store.path_of(digest_of(manifest))
    path.chmod(0o644)
    path.write_bytes(manifest.replace(b'"a"', b'"b"'))
    async with client.get("/v2/x/manifests/v1") as response:
        status, _ = await error_of(response)
        assert status == 500
