"""Kits that are signed, and kits that come from another place than they are named after."""

import hashlib
import json
import urllib.request
from typing import Any

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
SIGNATURE = "application/vnd.example.signature"


def put(url: str, content: bytes, media_type: str) -> dict[str, Any]:
    """Store a document and return its descriptor."""
    headers = {"Content-Type": media_type}
    request = urllib.request.Request(url, data=content, headers=headers, method="PUT")
    with urllib.request.urlopen(request, timeout=20) as response:
        assert response.status == 201
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def sign(base: str, kit: dict[str, Any]) -> str:
    """Sign a kit as a tool does at a registry that keeps no lists of referrers."""
    subject = {"mediaType": OCI_MANIFEST, "digest": kit["digest"]}
    with urllib.request.urlopen(
        urllib.request.Request(
            f"{base}/manifests/{kit['digest']}", headers={"Accept": OCI_MANIFEST}
        ),
        timeout=20,
    ) as response:
        subject["size"] = len(response.read())
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": SIGNATURE,
        "config": kit["config"] | {"mediaType": "application/vnd.example.config"},
        "layers": [],
        "subject": subject,
    }
    content = json.dumps(document).encode()
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    signature = put(f"{base}/manifests/{digest}", content, OCI_MANIFEST)
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [signature]}
    tag = kit["digest"].replace(":", "-")
    put(f"{base}/manifests/{tag}", json.dumps(index).encode(), OCI_INDEX)
    return digest


def test_a_signed_kit_is_pulled_and_pushed_with_its_signature(
    kitd, project, start_docker_registry, free_address
):
    first, second = start_docker_registry().host, start_docker_registry().host
    here = kitd().start()
    packed = here.json("pack", project, "-t", f"{first}/team/demo:v1", "--push")
    signature = sign(f"http://{first}/v2/team/demo", packed)

    there = kitd({"registry": {"listen": free_address}}).start()
    pulled = there.kitctl("pull", f"{first}/team/demo:v1")
    assert pulled.code == 0, pulled.err
    assert "with 1 referrer" in pulled.out
    # kitd's own registry has the API.
    name = f"{first.replace(':', '_')}/team/demo"
    url = f"http://{free_address}/v2/{name}/referrers/{packed['digest']}"
    with urllib.request.urlopen(url, timeout=20) as response:
        (listed,) = json.loads(response.read())["manifests"]
    assert (listed["digest"], listed["artifactType"]) == (signature, SIGNATURE)

    pushed = there.json("push", f"{first}/team/demo:v1", f"{second}/other/demo:v2")
    assert pushed["referrers"] == 1
    tag = packed["digest"].replace(":", "-")
    request = urllib.request.Request(
        f"http://{second}/v2/other/demo/manifests/{tag}", headers={"Accept": OCI_INDEX}
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        (entry,) = json.loads(response.read())["manifests"]
    assert (entry["digest"], entry["artifactType"]) == (signature, SIGNATURE)


def test_a_kit_is_pulled_from_a_mirror_of_a_registry_that_nobody_reaches(
    kitd, project, docker_registry
):
    here = kitd().start()
    packed = here.json(
        "pack", project, "-t", f"{docker_registry.host}/cache/team/demo:v1", "--push"
    )
    mirror = {"location": f"{docker_registry.host}/cache", "tags": True}
    there = kitd({"registries": {"registry.invalid": {"mirrors": [mirror]}}}).start()
    pulled = there.json("pull", "registry.invalid/team/demo:v1")
    assert pulled["digest"] == packed["digest"]
    assert pulled["reference"] == "registry.invalid/team/demo:v1"
    assert there.json("list")[0]["repo"] == "registry.invalid/team/demo"
