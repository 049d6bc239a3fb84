"""A daemon with much to do that is the same: what travels once is not sent again."""

import hashlib
import json
import os
import urllib.request

import pytest

from kitd.client import Client, request

CONFIG = "application/vnd.kitops.modelkit.config.v1+json"
LAYER = "application/vnd.kitops.modelkit.model.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
BASE_BYTES = 3_000_000
JOBS = 50
TUNES = 30

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def send(method, url, content, media_type):
    """Send something to a registry, which has to take it."""
    asked = urllib.request.Request(url, content, {"Content-Type": media_type}, method=method)
    with urllib.request.urlopen(asked, timeout=30) as answer:
        assert answer.status in (201, 202)


def put_blob(host, name, content, media_type):
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    send("POST", f"http://{host}/v2/{name}/blobs/uploads/?digest={digest}", content, media_type)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def put_kit(host, name, tag, *layers):
    """Put a kit into a registry without kitd's help."""
    config = put_blob(host, name, json.dumps({"tag": tag}).encode(), CONFIG)
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
    url = f"http://{host}/v2/{name}/manifests/{tag}"
    send("PUT", url, json.dumps(manifest).encode(), MANIFEST)


def run_all(daemon, requests):
    """Ask for jobs all at once, and see them and what follows from them succeed."""
    with Client.connect(daemon.socket) as client:
        waiting = [client.call(one).id for one in requests]
        while waiting:
            job = client.call(request.wait_job(waiting.pop(), timeout_ms=60_000), timeout_s=90)
            assert job.state == "succeeded", job.error
            waiting += job.followed_by


def of_blob(tally, digest):
    """Return what was counted of a blob, by repository."""
    return {one["repository"]: one for one in tally["blobs"] if one["digest"] == digest}


def test_fifty_jobs_that_want_one_blob_get_it_once_and_put_it_once(kitd, start_fault_registry):
    origin = start_fault_registry(sent_bytes_per_s=10e6)
    goal = start_fault_registry(received_bytes_per_s=10e6)
    base = put_blob(origin.host, "team/model", os.urandom(BASE_BYTES), LAYER)
    for number in range(JOBS):
        put_kit(origin.host, "team/model", f"v{number}", base)
    origin.reset()
    daemon = kitd().start()
    references = [f"{origin.host}/team/model:v{number}" for number in range(JOBS)]

    run_all(daemon, [request.pull(reference) for reference in references])

    assert of_blob(origin.tally(), base["digest"])["team/model"]["sent_bytes"] == BASE_BYTES

    pushes = []
    for number, reference in enumerate(references):
        for name in ("one", "two"):
            pushes.append(request.push(reference, f"{goal.host}/team/{name}:v{number}"))
    run_all(daemon, pushes)

    counted = of_blob(goal.tally(), base["digest"])
    assert set(counted) == {"team/one", "team/two"}
    # The second repository of the two may have borrowed it.
    assert sum(one["received_bytes"] for one in counted.values()) == BASE_BYTES
    assert sum(one["uploads"] for one in counted.values()) == 1
    assert sum(one["mounts"] for one in counted.values()) == 1


def test_thirty_tunes_of_a_base_upload_what_is_unique(kitd, start_fault_registry, tmp_path):
    """Each a project of its own that was packed and pushed to a repository of its own."""
    registry = start_fault_registry()
    daemon = kitd().start()
    base = os.urandom(BASE_BYTES)
    asked = []
    for number in range(TUNES):
        root = tmp_path / f"tune-{number}"
        root.mkdir()
        (root / "base.bin").write_bytes(base)
        # The same file of the same day: a layer is equal where its headers are.
        os.utime(root / "base.bin", (1_700_000_000, 1_700_000_000))
        (root / "adapter.bin").write_bytes(os.urandom(10_000))
        (root / "Kitfile").write_text(
            "manifestVersion: 1.0.0\npackage: {name: tune}\n"
            "model: {name: base, path: base.bin}\n"
            "datasets: [{name: adapter, path: adapter.bin}]\n"
        )
        reference = f"{registry.host}/team/tune-{number}:v1"
        asked.append(request.pack(str(root), reference, push=True))

    run_all(daemon, asked)

    held, sizes = {}, {}
    for number in range(TUNES):
        url = f"http://{registry.host}/v2/team/tune-{number}/manifests/v1"
        with urllib.request.urlopen(url, timeout=30) as answer:
            manifest = json.load(answer)
        for blob in (manifest["config"], *manifest["layers"]):
            held.setdefault(blob["digest"], set()).add(number)
            sizes[blob["digest"]] = blob["size"]
    assert any(len(numbers) == TUNES for numbers in held.values()), "no layer is shared"
    received = sum(one["received_bytes"] for one in registry.tally()["blobs"])
    assert received == sum(sizes.values())
