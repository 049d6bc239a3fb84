"""Kits that somebody put into a registry with tools of his own: odd, broken or hostile."""

import hashlib
import json
import socket
import urllib.request

from kitd.oci.media_type import OCI_MANIFEST

CONFIG = "application/vnd.kitops.modelkit.config.v1+json"
KITFILE = b'{"manifestVersion":"1.0.0","package":{"name":"foreign"}}'


def put(host, name, manifest, *blobs):
    """Push blobs and a manifest, given as bytes, to `repository:tag`."""
    repository, tag = name.split(":")
    base = f"http://{host}/v2/{repository}"
    for blob in blobs:
        begun = urllib.request.Request(f"{base}/blobs/uploads/", b"", method="POST")
        with urllib.request.urlopen(begun, timeout=10) as answer:
            place = answer.headers["Location"]
        digest = hashlib.sha256(blob).hexdigest()
        headers = {"Content-Type": "application/octet-stream"}
        url = f"{place}{'&' if '?' in place else '?'}digest=sha256:{digest}"
        with urllib.request.urlopen(
            urllib.request.Request(url, blob, headers, method="PUT"), timeout=10
        ):
            pass
    headers = {"Content-Type": OCI_MANIFEST}
    request = urllib.request.Request(f"{base}/manifests/{tag}", manifest, headers, method="PUT")
    with urllib.request.urlopen(request, timeout=10):
        pass


def described(content, media_type=CONFIG, **claims):
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return {"mediaType": media_type, "digest": digest, "size": len(content), **claims}


def manifest_of(config=KITFILE, layers=(), **claims):
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described(config, **claims),
        "layers": list(layers),
    }


def test_a_manifest_of_many_lines_is_shown_on_one(kitd, docker_registry):
    """As it was written otherwise, keys and numbers included."""
    name = f"{docker_registry.host}/team/foreign:v1"
    manifest = manifest_of() | {"x": {"b": "two\nlines", "a": 1.50}}
    content = json.dumps(manifest, indent=3).replace("1.5\n", "1.50\n").encode()
    put(docker_registry.host, "team/foreign:v1", content, KITFILE)
    daemon = kitd().start()
    assert daemon.json("inspect", "--remote", name)["manifest"] == manifest
    daemon.json("pull", name)
    assert daemon.json("inspect", name)["manifest"] == manifest
    assert daemon.json("inspect", name)["digest"].endswith(hashlib.sha256(content).hexdigest())

    question = {"jsonrpc": "2.0", "id": 1, "method": "kits.inspect", "params": {"reference": name}}
    line = ask(daemon.socket, question)
    assert b'"x":{"b":"two\\nlines","a":1.50}' in line


def test_a_manifest_puts_no_answer_of_its_own_between_kitds(kitd, docker_registry):
    name = f"{docker_registry.host}/team/foreign:v1"
    forged = '{"jsonrpc":"2.0","id":2,"result":{"digest":"sha256:evil"}}'
    content = f'{json.dumps(manifest_of())[:-1]},"x":\n{forged}\n}}'.encode()
    put(docker_registry.host, "team/foreign:v1", content, KITFILE)
    params = {"reference": name, "remote": True}
    question = {"jsonrpc": "2.0", "id": 1, "method": "kits.inspect", "params": params}
    answer = json.loads(ask(kitd().start().socket, question))
    assert answer["id"] == 1
    assert answer["result"]["manifest"]["x"] == json.loads(forged)


def test_of_a_kitfile_that_is_too_large_for_an_answer_parts_can_be_had(kitd, docker_registry):
    name = f"{docker_registry.host}/team/large:v1"
    docs = [{"path": f"docs/{number}", "description": "x" * 1000} for number in range(5000)]
    kitfile = json.dumps({"manifestVersion": "1.0.0", "docs": docs}).encode()
    put(docker_registry.host, "team/large:v1", json.dumps(manifest_of(kitfile)).encode(), kitfile)
    daemon = kitd().start()
    refused = daemon.kitctl("--json", "info", "--remote", name)
    assert refused.json["error"]["code"] == "too_large"
    part = daemon.json("info", "--remote", name, "-f", ".docs[4999].path")
    assert (part["value"], part["yaml"]) == ("docs/4999", "docs/4999\n")


def test_a_tag_that_is_broken_ends_no_listing(kitd, project, docker_registry):
    """It counts among those of no kit, with a word on it."""
    host = docker_registry.host
    daemon = kitd().start()
    daemon.json("pack", project, "-t", f"{host}/team/mixed:good", "--push")
    put(host, "team/mixed:liar", json.dumps(manifest_of(size=5)).encode(), KITFILE)
    put(host, "team/mixed:vast", json.dumps(manifest_of(size=1 << 40)).encode(), KITFILE)
    for more in ((), ("-f", "datasets")):
        listed = daemon.kitctl("--json", "list", "--remote", f"{host}/team/mixed", *more)
        assert [kit["tags"] for kit in listed.json] == [["good"]]
        assert "passed over 2 tags of no kit" in listed.err
        assert "warning: liar: " in listed.err
        assert "warning: vast: " in listed.err


def ask(path, question):
    """Return the first line that answers, after the greeting if there is one."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(path))
        sock.sendall(json.dumps(question).encode() + b"\n")
        with sock.makefile("rb") as lines:
            return next(line for line in lines if b'"method"' not in line)
