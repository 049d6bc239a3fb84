"""The endpoints of the distribution specification, one by one, over real sockets."""

import asyncio
import hashlib
import io
import json
import os

import pytest

from kitd.oci.digest import digest_of
from kitd.oci.media_type import OCI_EMPTY, OCI_INDEX, OCI_MANIFEST

CONTENT = os.urandom(5000)
DIGEST = digest_of(CONTENT)
UPLOADS = "/v2/team/model/blobs/uploads/"


async def error_code(response):
    return (await response.json())["errors"][0]["code"]


async def push_blob(client, content, repository="team/model"):
    url = f"/v2/{repository}/blobs/uploads/"
    body = io.BytesIO(content)
    async with client.post(url, params={"digest": digest_of(content)}, data=body) as response:
        assert response.status == 201
    return digest_of(content)


def descriptor(content, media_type):
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def image(layer=CONTENT, **fields):
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(b"{}", OCI_EMPTY),
        "layers": [descriptor(layer, "application/vnd.example")],
    }
    # Spaces that no encoder of ours would write: the bytes have to survive.
    return json.dumps(document | fields, indent=3).encode()


async def push_image(client, identifier, repository="team/model", params=(), **fields):
    for content in (b"{}", CONTENT):
        await push_blob(client, content, repository)
    manifest = image(**fields)
    async with client.put(
        f"/v2/{repository}/manifests/{identifier or digest_of(manifest)}",
        data=manifest,
        params=params,
        headers={"Content-Type": OCI_MANIFEST},
    ) as response:
        assert response.status == 201, await response.text()
        return manifest, response.headers


async def begin(client):
    async with client.post(UPLOADS) as response:
        assert response.status == 202
        return response.headers["Location"]


async def test_the_registry_says_what_it_is(client):
    async with client.get("/v2/") as response:
        assert response.status == 200
        assert response.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


async def test_a_blob_pushed_whole_is_pulled_whole(client):
    async with client.post(UPLOADS, params={"digest": DIGEST}, data=CONTENT) as response:
        assert response.status == 201
        location = response.headers["Location"]
    async with client.get(location) as response:
        assert response.status == 200
        assert await response.read() == CONTENT
        assert response.headers["Docker-Content-Digest"] == DIGEST
    async with client.head(location) as response:
        assert response.headers["Content-Length"] == str(len(CONTENT))
        assert response.headers["Docker-Content-Digest"] == DIGEST


async def test_an_upload_in_chunks_tells_where_it_is(client):
    location = await begin(client)
    for start in (0, 2000, 4000):
        chunk = CONTENT[start : start + 2000]
        place = f"{start}-{start + len(chunk) - 1}"
        headers = {"Content-Range": place}
        async with client.patch(location, data=chunk, headers=headers) as response:
            assert response.status == 202
            assert response.headers["Range"] == f"0-{start + len(chunk) - 1}"
            location = response.headers["Location"]
        async with client.get(location) as response:
            assert response.status == 204
            assert response.headers["Range"] == f"0-{start + len(chunk) - 1}"
    async with client.put(location, params={"digest": DIGEST}) as response:
        assert response.status == 201
    async with client.get(location) as response:
        assert response.status == 404
        assert await error_code(response) == "BLOB_UPLOAD_UNKNOWN"


@pytest.mark.parametrize("place", ["100-199", "0-99", "bytes 50-149", "nonsense"])
async def test_a_chunk_out_of_order_is_answered_with_where_to_go_on(client, place):
    location = await begin(client)
    async with client.patch(location, data=CONTENT[:50]) as response:
        assert response.status == 202
    headers = {"Content-Range": place}
    for method in ("PATCH", "PUT"):
        async with client.request(
            method, location, data=CONTENT[:100], headers=headers, params={"digest": DIGEST}
        ) as response:
            assert response.status == 416
            assert response.headers["Range"] == "0-49"
            assert response.headers["Location"] == location
            assert await error_code(response) == "BLOB_UPLOAD_INVALID"


async def test_a_chunk_whose_headers_disagree_is_refused_unread(client):
    location = await begin(client)
    headers = {"Content-Range": "0-9"}
    async with client.patch(location, data=CONTENT[:50], headers=headers) as response:
        assert response.status == 400
        assert await error_code(response) == "SIZE_INVALID"
    async with client.get(location) as response:
        assert response.headers["Range"] == "0-0"


async def test_a_stream_of_unknown_length_is_an_upload(client):
    async def chunks():
        for start in range(0, len(CONTENT), 700):
            yield CONTENT[start : start + 700]

    location = await begin(client)
    async with client.patch(location, data=chunks()) as response:
        assert response.status == 202
        assert response.headers["Range"] == f"0-{len(CONTENT) - 1}"
    async with client.put(location, params={"digest": DIGEST}) as response:
        assert response.status == 201


async def test_a_wrong_digest_publishes_nothing(client, store):
    wrong = digest_of(b"other")
    location = await begin(client)
    for request in (
        client.put(location, params={"digest": wrong}, data=CONTENT),
        client.post(UPLOADS, params={"digest": wrong}, data=CONTENT),
    ):
        async with request as response:
            assert response.status == 400
            assert await error_code(response) == "DIGEST_INVALID"
    assert store.size_of(wrong) is None
    assert store.size_of(DIGEST) is None
    assert list(store.uploads_dir.iterdir()) == []


async def test_an_upload_is_finished_only_with_a_digest(client):
    location = await begin(client)
    async with client.put(location, data=CONTENT) as response:
        assert response.status == 400
        assert await error_code(response) == "DIGEST_INVALID"


async def test_other_digest_algorithms_are_kept_apart(client):
    digest = "sha512:" + hashlib.sha512(CONTENT).hexdigest()
    async with client.post(UPLOADS, params={"digest-algorithm": "sha512"}) as response:
        location = response.headers["Location"]
    async with client.put(location, params={"digest": digest}, data=CONTENT) as response:
        assert response.status == 201
    async with client.get(f"/v2/team/model/blobs/{digest}") as response:
        assert await response.read() == CONTENT
    async with client.get(f"/v2/team/model/blobs/{DIGEST}") as response:
        assert response.status == 404


async def test_an_upload_can_be_cancelled(client, store):
    location = await begin(client)
    async with client.delete(location) as response:
        assert response.status == 204
    async with client.patch(location, data=b"x") as response:
        assert response.status == 404
    assert list(store.uploads_dir.iterdir()) == []


async def test_what_the_cache_holds_can_be_mounted_anywhere(client):
    await push_blob(client, CONTENT)
    params = {"mount": DIGEST, "from": "team/model"}
    async with client.post("/v2/other/x/blobs/uploads/", params=params) as response:
        assert response.status == 201
        assert response.headers["Location"] == f"/v2/other/x/blobs/{DIGEST}"
    missing = {"mount": digest_of(b"missing"), "from": "team/model"}
    async with client.post("/v2/other/x/blobs/uploads/", params=missing) as response:
        assert response.status == 202
        assert "Location" in response.headers


async def test_blobs_are_not_deleted(client):
    await push_blob(client, CONTENT)
    async with client.delete(f"/v2/team/model/blobs/{DIGEST}") as response:
        assert response.status == 405
        assert await error_code(response) == "UNSUPPORTED"
    async with client.head(f"/v2/team/model/blobs/{DIGEST}") as response:
        assert response.status == 200


async def test_a_manifest_is_served_byte_for_byte_by_tag_and_digest(client):
    manifest, headers = await push_image(client, "v1")
    digest = digest_of(manifest)
    assert headers["Docker-Content-Digest"] == digest
    for url in (headers["Location"], "/v2/team/model/manifests/v1"):
        async with client.get(url) as response:
            assert await response.read() == manifest
            assert response.headers["Content-Type"] == OCI_MANIFEST
            assert response.headers["Docker-Content-Digest"] == digest
        async with client.head(url) as response:
            assert response.status == 200
            assert response.headers["Content-Length"] == str(len(manifest))
            assert response.headers["Docker-Content-Digest"] == digest


async def test_a_push_by_digest_sets_all_tags_at_once(client):
    params = [("tag", "v1"), ("tag", "latest"), ("tag", "v1")]
    _, headers = await push_image(client, None, params=params)
    assert headers["OCI-Tag"] == "v1, latest"
    async with client.get("/v2/team/model/tags/list") as response:
        assert await response.json() == {"name": "team/model", "tags": ["latest", "v1"]}


async def test_a_manifest_by_another_digest_is_refused(client):
    await push_image(client, "v1")
    url = f"/v2/team/model/manifests/{digest_of(b'other')}"
    headers = {"Content-Type": OCI_MANIFEST}
    async with client.put(url, data=image(), headers=headers) as response:
        assert response.status == 400
        assert await error_code(response) == "DIGEST_INVALID"


async def test_a_manifest_before_its_blobs_is_refused_and_leaves_nothing(client, store):
    headers = {"Content-Type": OCI_MANIFEST}
    url = "/v2/team/model/manifests/v1"
    async with client.put(url, data=image(), headers=headers) as response:
        assert response.status == 404
        assert await error_code(response) == "MANIFEST_BLOB_UNKNOWN"
    async with client.get(url) as response:
        assert response.status == 404
    assert store.size_of(digest_of(image())) is None


async def test_a_layer_of_another_size_than_its_descriptor_is_missing(client):
    for content in (b"{}", CONTENT):
        await push_blob(client, content)
    document = json.loads(image())
    document["layers"][0]["size"] += 1
    async with client.put(
        "/v2/team/model/manifests/v1",
        data=json.dumps(document).encode(),
        headers={"Content-Type": OCI_MANIFEST},
    ) as response:
        assert await error_code(response) == "MANIFEST_BLOB_UNKNOWN"


async def test_an_index_needs_its_manifests_in_its_own_repository(client):
    manifest, _ = await push_image(client, "v1")
    index = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [descriptor(manifest, OCI_MANIFEST)],
        }
    ).encode()
    headers = {"Content-Type": OCI_INDEX}
    for repository, status in (("other/x", 404), ("team/model", 201)):
        url = f"/v2/{repository}/manifests/all"
        async with client.put(url, data=index, headers=headers) as response:
            assert response.status == status


async def test_tags_come_in_pages_that_link_to_the_next(client):
    for tag in ("v1", "v2", "a", "b", "c"):
        await push_image(client, tag)
    url, pages = "/v2/team/model/tags/list?n=2", []
    while url:
        async with client.get(url) as response:
            pages.append((await response.json())["tags"])
            links = response.links
            url = str(links["next"]["url"].relative()) if "next" in links else None
    assert pages == [["a", "b"], ["c", "v1"], ["v2"]]
    async with client.get("/v2/team/model/tags/list?n=0") as response:
        assert (await response.json())["tags"] == []
        assert "Link" not in response.headers
    async with client.get("/v2/team/model/tags/list?last=c") as response:
        assert (await response.json())["tags"] == ["v1", "v2"]


async def test_referrers_are_listed_and_filtered(client):
    subject, _ = await push_image(client, "v1")
    manifest, headers = await push_image(
        client,
        None,
        subject=descriptor(subject, OCI_MANIFEST),
        artifactType="application/vnd.example.sig",
        annotations={"by": "me"},
    )
    assert headers["OCI-Subject"] == digest_of(subject)
    url = f"/v2/team/model/referrers/{digest_of(subject)}"
    async with client.get(url) as response:
        assert response.headers["Content-Type"] == OCI_INDEX
        assert "OCI-Filters-Applied" not in response.headers
        assert (await response.json(content_type=None))["manifests"] == [
            descriptor(manifest, OCI_MANIFEST)
            | {"artifactType": "application/vnd.example.sig", "annotations": {"by": "me"}}
        ]
    for wanted, count in (("application/vnd.example.sig", 1), ("application/vnd.other", 0)):
        async with client.get(url, params={"artifactType": wanted}) as response:
            assert response.headers["OCI-Filters-Applied"] == "artifactType"
            assert len((await response.json(content_type=None))["manifests"]) == count


async def test_many_referrers_come_in_pages_that_are_manifests_themselves(client):
    subject, _ = await push_image(client, "v1")
    pushed = set()
    for number in range(5):
        manifest, _ = await push_image(
            client,
            None,
            subject=descriptor(subject, OCI_MANIFEST),
            annotations={"padding": str(number) * 900_000},
        )
        pushed.add(digest_of(manifest))
    url, found, pages = f"/v2/team/model/referrers/{digest_of(subject)}", [], 0
    while url:
        async with client.get(url) as response:
            body = await response.read()
            assert len(body) <= 4 << 20
            found += [entry["digest"] for entry in json.loads(body)["manifests"]]
            pages += 1
            links = response.links
            url = str(links["next"]["url"].relative()) if "next" in links else None
    assert pages > 1
    assert found == sorted(pushed)


async def test_deleting_a_tag_keeps_the_manifest_and_deleting_that_ends_it(client):
    manifest, headers = await push_image(client, "v1")
    async with client.delete("/v2/team/model/manifests/v1") as response:
        assert response.status == 202
    async with client.get(headers["Location"]) as response:
        assert response.status == 200
    async with client.delete(headers["Location"]) as response:
        assert response.status == 202
    for url in (headers["Location"], "/v2/team/model/manifests/v1"):
        for method in ("GET", "DELETE"):
            async with client.request(method, url) as response:
                assert response.status == 404
                assert await error_code(response) == "MANIFEST_UNKNOWN"
    assert digest_of(manifest) in headers["Location"]


async def test_two_uploads_of_one_blob_at_once_both_succeed(client, store):
    content = os.urandom(2 << 20)
    await asyncio.gather(*(push_blob(client, content) for _ in range(8)))
    assert store.path_of(digest_of(content)).read_bytes() == content
    assert list(store.uploads_dir.iterdir()) == []


async def test_two_chunks_at_once_for_one_session_never_tear_it(client):
    content = os.urandom(1 << 20)
    location = await begin(client)
    headers = {"Content-Range": f"0-{len(content) - 1}"}

    async def patch():
        async with client.patch(location, data=content, headers=headers) as response:
            return response.status

    statuses = await asyncio.gather(*(patch() for _ in range(4)))
    assert statuses.count(202) == 1
    assert set(statuses) <= {202, 409, 416}
    async with client.put(location, params={"digest": digest_of(content)}) as response:
        assert response.status == 201


async def test_a_registry_that_is_read_only_serves_and_refuses(listen):
    async with listen() as client:
        await push_image(client, "v1")
    async with listen(writable=False) as client:
        async with client.get("/v2/team/model/manifests/v1") as response:
            assert response.status == 200
        for method, url in (
            ("POST", UPLOADS),
            ("PUT", "/v2/team/model/manifests/v2"),
            ("DELETE", "/v2/team/model/manifests/v1"),
        ):
            async with client.request(method, url) as response:
                assert response.status == 405
                assert await error_code(response) == "UNSUPPORTED"
