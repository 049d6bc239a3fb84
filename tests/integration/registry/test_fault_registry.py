"""The registry that tests make faults in is one: it speaks the protocol as Debian's does, and more.

Without this its faults would prove nothing. What only newer registries know is asked of it alone.
"""

import hashlib
import json
import os
import subprocess

import aiohttp
import pytest
from yarl import URL

from fault_registry.access import PASSWORD, USER

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
UPLOADS = "/v2/team/model/blobs/uploads/"


def digest_of(content, algorithm="sha256"):
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


class Caller:
    """Sends requests as they are, and answers with status, headers and body."""

    def __init__(self, host, session):
        self._base = URL(f"http://{host}")
        self._session = session

    async def __call__(self, method, path, content=None, **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        # A Location is not to be quoted anew.
        url = self._base.join(URL(path, encoded=True))
        async with self._session.request(method, url, data=content, headers=named) as response:
            return response.status, response.headers, await response.read()

    async def begin(self, query="", path=UPLOADS):
        status, headers, _ = await self("POST", f"{path}{query}")
        assert status == 202
        return headers["Location"]

    async def put_blob(self, content, path=UPLOADS):
        location = await self.begin(path=path)
        status, _, _ = await self("PUT", f"{location}&digest={digest_of(content)}", content)
        assert status == 201
        return digest_of(content)

    async def put_manifest(self, reference, document):
        content = json.dumps(document).encode()
        path = f"/v2/team/model/manifests/{reference or digest_of(content)}"
        status, headers, _ = await self("PUT", path, content, Content_Type=document["mediaType"])
        return status, headers, digest_of(content)


async def caller_of(host):
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield Caller(host, session)


@pytest.fixture
async def call(registry):
    async for caller in caller_of(registry.host):
        yield caller


@pytest.fixture
async def call_newer(fault_registry):
    async for caller in caller_of(fault_registry.host):
        yield caller


async def test_chunks_arrive_in_order_or_not_at_all(call):
    content = os.urandom(3000)
    location = await call.begin()
    for start in (0, 1000, 2000):
        part = content[start : start + 1000]
        said = f"{start}-{start + 999}"
        status, headers, _ = await call(
            "PATCH", location, part, Content_Range=said, Content_Type="application/octet-stream"
        )
        assert (status, headers["Range"]) == (202, f"0-{start + 999}")
        location = headers["Location"]
        status, headers, _ = await call("GET", location)
        assert status == 204
    status, headers, _ = await call("PUT", f"{location}&digest={digest_of(content)}")
    assert (status, headers["Docker-Content-Digest"]) == (201, digest_of(content))
    status, _, body = await call("GET", f"/v2/team/model/blobs/{digest_of(content)}")
    assert (status, body) == (200, content)


async def test_content_with_another_digest_is_refused(call):
    location = await call.begin()
    status, _, body = await call("PUT", f"{location}&digest={digest_of(b'one')}", b"two")
    assert status == 400
    assert json.loads(body)["errors"][0]["code"] == "DIGEST_INVALID"
    status, _, _ = await call("HEAD", f"/v2/team/model/blobs/{digest_of(b'one')}")
    assert status == 404


async def test_an_upload_that_is_cancelled_is_gone(call):
    location = await call.begin()
    status, _, _ = await call("DELETE", location)
    assert status == 204
    status, _, _ = await call("GET", location)
    assert status == 404


async def test_a_part_of_a_blob_can_be_had(call):
    content = os.urandom(1000)
    digest = await call.put_blob(content)
    for asked, start, end in (("0-9", 0, 10), ("990-", 990, 1000), ("100-5000", 100, 1000)):
        status, headers, body = await call(
            "GET", f"/v2/team/model/blobs/{digest}", Range=f"bytes={asked}"
        )
        assert (status, body) == (206, content[start:end])
        assert headers["Content-Range"] == f"bytes {start}-{end - 1}/1000"


async def test_a_blob_can_be_mounted_from_where_it_is(call):
    digest = await call.put_blob(b"base", "/v2/team/base/blobs/uploads/")
    status, headers, _ = await call("POST", f"{UPLOADS}?mount={digest}&from=team/base")
    assert (status, headers["Docker-Content-Digest"]) == (201, digest)
    status, _, _ = await call("HEAD", f"/v2/team/model/blobs/{digest}")
    assert status == 200
    status, _, _ = await call("POST", f"{UPLOADS}?mount={digest_of(b'none')}&from=team/base")
    assert status == 202


async def test_a_manifest_needs_its_blobs_and_can_be_deleted(call):
    config = {"mediaType": "application/json", "digest": digest_of(b"{}"), "size": 2}
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []}
    status, _, _ = await call.put_manifest("v1", document)
    assert status in (400, 404)
    await call.put_blob(b"{}")
    status, headers, digest = await call.put_manifest("v1", document)
    assert (status, headers["Docker-Content-Digest"]) == (201, digest)
    for reference in ("v1", digest):
        status, headers, body = await call(
            "GET", f"/v2/team/model/manifests/{reference}", Accept=MANIFEST
        )
        assert (status, headers["Content-Type"]) == (200, MANIFEST)
        assert digest_of(body) == digest
    status, _, body = await call("GET", "/v2/team/model/tags/list")
    assert json.loads(body)["tags"] == ["v1"]
    status, _, _ = await call("DELETE", f"/v2/team/model/manifests/{digest}")
    assert status == 202
    status, _, _ = await call("HEAD", "/v2/team/model/manifests/v1", Accept=MANIFEST)
    assert status == 404


async def test_tags_come_in_pages(call_newer):
    call = call_newer
    await call.put_blob(b"{}")
    config = {"mediaType": "application/json", "digest": digest_of(b"{}"), "size": 2}
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []}
    names = [f"v{number}" for number in range(5)]
    for name in names:
        await call.put_manifest(name, document)
    url, found = "/v2/team/model/tags/list?n=2", []
    while url:
        _, headers, body = await call("GET", url)
        found.append(json.loads(body)["tags"])
        url = headers.get("Link", "").partition(">")[0].lstrip("<")
    assert found == [["v0", "v1"], ["v2", "v3"], ["v4"]]


async def test_a_blob_may_come_with_the_post_that_begins_it(call_newer):
    status, _, _ = await call_newer("POST", f"{UPLOADS}?digest={digest_of(b'all')}", b"all")
    assert status == 201


async def test_a_blob_is_kept_under_its_sha512(call_newer):
    location = await call_newer.begin()
    digest = digest_of(b"weights", "sha512")
    status, _, _ = await call_newer("PUT", f"{location}&digest={digest}", b"weights")
    assert status == 201
    _, _, body = await call_newer("GET", f"/v2/team/model/blobs/{digest}")
    assert body == b"weights"


async def test_a_blob_is_mounted_from_anywhere(call_newer):
    digest = await call_newer.put_blob(b"base", "/v2/team/base/blobs/uploads/")
    status, _, _ = await call_newer("POST", f"{UPLOADS}?mount={digest}")
    assert status == 201


async def test_what_refers_to_a_manifest_is_listed(call_newer):
    call = call_newer
    await call.put_blob(b"{}")
    config = {"mediaType": "application/json", "digest": digest_of(b"{}"), "size": 2}
    subject = {"mediaType": MANIFEST, "digest": digest_of(b"anything"), "size": 8}
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/vnd.example.sbom",
        "config": config,
        "layers": [],
        "subject": subject,
        "annotations": {"of": "tests"},
    }
    status, headers, digest = await call.put_manifest(None, document)
    assert (status, headers["OCI-Subject"]) == (201, subject["digest"])
    path = f"/v2/team/model/referrers/{subject['digest']}"
    _, headers, body = await call("GET", path)
    assert headers["Content-Type"] == INDEX
    (listed,) = json.loads(body)["manifests"]
    assert (listed["digest"], listed["artifactType"]) == (digest, document["artifactType"])
    assert listed["annotations"] == {"of": "tests"}
    _, headers, body = await call("GET", f"{path}?artifactType=other")
    assert headers["OCI-Filters-Applied"] == "artifactType"
    assert json.loads(body)["manifests"] == []


async def test_what_arrived_of_a_request_that_broke_off_stays(call_newer, fault_registry):
    fault_registry.tell(cut_received_bytes=100_000, cuts=1)
    location = await call_newer.begin()
    with pytest.raises(aiohttp.ClientError):
        await call_newer("PATCH", location, bytes(1_000_000), Content_Range="0-999999")
    status, headers, _ = await call_newer("GET", location)
    assert status == 204
    last = int(headers["Range"].partition("-")[2])
    assert 100_000 <= last + 1 < 1_000_000
    status, _, _ = await call_newer("PATCH", headers["Location"], b"x", Content_Range="0-0")
    assert status == 416


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_skopeo_logs_in_pushes_and_pulls(fault_registry, skopeo, tmp_path, auth):
    """An image that is no more than a config."""
    fault_registry.tell(auth=auth)
    layout = tmp_path / "layout"
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def add(document):
        content = json.dumps(document).encode()
        (blobs / digest_of(content).partition(":")[2]).write_bytes(content)
        return {"digest": digest_of(content), "size": len(content)}

    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    described = {"mediaType": "application/vnd.oci.image.config.v1+json", **add(config)}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": []}
    root = {"mediaType": MANIFEST, **add(manifest)}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [root]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    remote = f"docker://{fault_registry.host}/team/model:v1"
    login = f"{USER}:{PASSWORD}"
    skopeo("copy", "--dest-tls-verify=false", "--dest-creds", login, f"oci:{layout}", remote)
    raw = skopeo("inspect", "--raw", "--tls-verify=false", "--creds", login, remote)
    assert digest_of(raw) == root["digest"]
    with pytest.raises((AssertionError, subprocess.CalledProcessError)):
        skopeo("inspect", "--raw", "--tls-verify=false", remote)
