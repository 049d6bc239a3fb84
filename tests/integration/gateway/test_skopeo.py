"""A client that others wrote pushes, lists, copies, pulls and deletes."""

import gzip
import io
import json
import os
import tarfile
from functools import partial

import pytest

from kitd.blocking import run_blocking
from kitd.oci.digest import digest_of
from kitd.oci.media_type import OCI_MANIFEST

LAYERS = 3


def tar_gz(name, content):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue(), gzip.compress(buffer.getvalue(), mtime=0)


@pytest.fixture
def image(tmp_path):
    """Return a directory in skopeo's `dir:` format."""
    directory = tmp_path / "image"
    directory.mkdir()
    layers, plain = [], []
    for number in range(LAYERS):
        content, packed = tar_gz(f"file{number}", os.urandom(200_000))
        plain.append(digest_of(content))
        layers.append(packed)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": plain},
        }
    ).encode()

    def add(content, media_type):
        (directory / digest_of(content).partition(":")[2]).write_bytes(content)
        return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": add(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [add(layer, "application/vnd.oci.image.layer.v1.tar+gzip") for layer in layers],
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))
    (directory / "version").write_text("Directory Transport Version: 1.1\n")
    return directory


@pytest.fixture
def run(skopeo):
    """Run skopeo beside the loop that serves it."""
    return partial(run_blocking, skopeo)


async def test_skopeo_pushes_and_pulls_the_same_bytes(client, run, image, tmp_path):
    remote = f"docker://{client._base_url.authority}/team/model"
    await run("copy", "--dest-tls-verify=false", f"dir:{image}", f"{remote}:v1")
    raw = await run("inspect", "--tls-verify=false", "--raw", f"{remote}:v1")
    assert raw == (image / "manifest.json").read_bytes()
    back = tmp_path / "back"
    await run("copy", "--src-tls-verify=false", f"{remote}:v1", f"dir:{back}")
    for path in image.iterdir():
        assert (back / path.name).read_bytes() == path.read_bytes()


async def test_skopeo_copies_between_repositories_lists_and_deletes(client, run, image, store):
    host = client._base_url.authority
    await run("copy", "--dest-tls-verify=false", f"dir:{image}", f"docker://{host}/a/model:v1")
    blobs = sorted(path.name for path in (store.root / "blobs/sha256").iterdir())
    await run(
        "copy",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        f"docker://{host}/a/model:v1",
        f"docker://{host}/registry.example.com_5000/b/model:v2",
    )
    assert sorted(path.name for path in (store.root / "blobs/sha256").iterdir()) == blobs
    remote = f"docker://{host}/registry.example.com_5000/b/model"
    listed = json.loads(await run("list-tags", "--tls-verify=false", remote))
    assert listed["Tags"] == ["v2"]
    await run("delete", "--tls-verify=false", f"{remote}:v2")
    async with client.get("/v2/registry.example.com_5000/b/model/tags/list") as response:
        assert response.status == 404
    async with client.get("/v2/a/model/tags/list") as response:
        assert (await response.json())["tags"] == ["v1"]
