"""Any byte of any blob of the cache that is another: nobody gets it, and it is mended."""

import os
import random

import pytest

from kitd.client import Client
from kitd.client.outcome import JobFailedError
from kitd.errors import KitdError
from tests.e2e.test_parents import tuned, write

SEED = int(os.environ.get("KITD_SOAK_SEED", "1"))
FLIPS = int(os.environ.get("KITD_SOAK_FLIPS", "2"))
"""For each blob."""


def flip(path, draw):
    """Change one bit of one byte of a file."""
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.chmod(0o644)
    path.write_bytes(content)


@pytest.fixture
def place(kitd, project, start_docker_registry):
    """A kit in the cache and in a registry, and its blobs by digest."""
    home = start_docker_registry()
    (project / "data" / "more.bin").write_bytes(os.urandom(300_000))
    daemon = kitd().start()
    reference = f"{home.host}/team/demo:v1"
    daemon.json("pack", project, "-t", reference, "--push")
    manifest = daemon.json("inspect", reference)
    blobs = [manifest["digest"], manifest["manifest"]["config"]["digest"]]
    blobs += [layer["digest"] for layer in manifest["manifest"]["layers"]]
    return daemon, reference, blobs


def test_a_flipped_byte_is_named_by_its_blob_and_mended(place, start_docker_registry, tmp_path):
    daemon, reference, blobs = place
    draw = random.Random(SEED)
    cache = daemon.cache / "blobs" / "sha256"
    for number, digest in enumerate(blobs * FLIPS):
        path = cache / digest.removeprefix("sha256:")
        original = path.read_bytes()
        flip(path, draw)
        target = tmp_path / f"out-{number}"
        # One that has nothing of the kit yet: what a registry has is not read here.
        elsewhere = f"{start_docker_registry().host}/team/copy:v1"
        with Client.connect(daemon.socket) as client:
            with pytest.raises(KitdError) as unpacked:
                client.unpack(reference, target)
            assert digest in str(unpacked.value)
            assert not target.exists()
            with pytest.raises(JobFailedError) as pushed:
                client.push(reference, elsewhere)
            assert digest in str(pushed.value)
            assert pushed.value.code == "damaged_blob"
        daemon.json("cache", "verify", "--repair")
        assert path.read_bytes() == original
        daemon.json("push", reference, elsewhere)
    daemon.json("unpack", reference, "-d", tmp_path / "out")


def test_a_flipped_byte_of_a_parent_is_named_when_that_is_to_go_along(
    kitd, tmp_path, start_docker_registry
):
    """In each of its blobs; and nobody who pushes the child alone is kept from it."""
    host = start_docker_registry().host
    daemon = kitd().start()
    base, child = f"{host}/team/base:v1", f"{host}/team/child:v1"
    root = write(tmp_path / "base", "model: {path: w.bin}\n", {"w.bin": "weights" * 50_000})
    daemon.json("pack", root, "-t", base)
    project = write(tmp_path / "child", tuned(base), {"adapter": "a", "data/fresh": "f"})
    daemon.json("pack", project, "-t", child)
    parent = daemon.json("inspect", base)
    blobs = [
        parent["manifest"]["layers"][0]["digest"],
        parent["manifest"]["config"]["digest"],
        parent["digest"],
    ]
    for digest in blobs:
        path = daemon.cache / "blobs" / "sha256" / digest.removeprefix("sha256:")
        original = path.read_bytes()
        flip(path, random.Random(SEED))
        refused = daemon.kitctl("push", child, "--with-parents", "--json").json["error"]
        assert (refused["code"], digest in refused["message"]) == ("damaged_blob", True)
        daemon.json("push", child)
        path.write_bytes(original)
    assert daemon.json("push", child, "--with-parents")["parents"] == [base]
