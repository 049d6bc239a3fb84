"""Registries tell kitd of pushes by their own notifications, and the mirrors follow."""

import hashlib
import json
import os
import random
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress

import pytest

from tests.e2e.conftest import wait_until

NAME = "team/model"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
ACCEPT = f"{MANIFEST}, {INDEX}"
SECRET = "correct horse battery staple"


def request(method, url, content=None, **headers):
    asked = urllib.request.Request(url, content, headers, method=method)
    return urllib.request.urlopen(asked, timeout=30)


class End:
    """A repository of a registry, by HTTP."""

    def __init__(self, host, name=NAME):
        self.host = host
        self.url = f"http://{host}/v2/{name}"

    def blob(self, content):
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        with request("POST", f"{self.url}/blobs/uploads/", b"") as opened:
            location = opened.headers["Location"]
        joint = "&" if "?" in location else "?"
        kind = {"Content-Type": "application/octet-stream"}
        request("PUT", f"{location}{joint}digest={digest}", content, **kind).close()
        return {"mediaType": kind["Content-Type"], "digest": digest, "size": len(content)}

    def put(self, document, reference=None):
        content = json.dumps(document).encode()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        kind = {"Content-Type": document["mediaType"]}
        request("PUT", f"{self.url}/manifests/{reference or digest}", content, **kind).close()
        return {"mediaType": document["mediaType"], "digest": digest, "size": len(content)}

    def kit(self, tag, *layers, subject=None):
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(b"{}"),
            "layers": [self.blob(layer) for layer in layers],
        }
        if subject is not None:
            document["subject"] = subject
        return self.put(document, tag)

    def digest(self, reference):
        """Return what a tag names, or None."""
        try:
            with request("HEAD", f"{self.url}/manifests/{reference}", Accept=ACCEPT) as found:
                return found.headers["Docker-Content-Digest"]
        except urllib.error.HTTPError:
            return None

    def tags(self):
        try:
            with request("GET", f"{self.url}/tags/list") as listed:
                names = json.load(listed)["tags"] or ()
        except urllib.error.HTTPError:
            return {}
        return {name: self.digest(name) for name in names}


@pytest.fixture
def notify(start_docker_registry, free_address):
    """Start a registry that posts its events to kitd, as the source of the given name."""

    def start(source):
        endpoint = {
            "name": "kitd",
            "url": f"http://{free_address}/hooks/{source}",
            "headers": {"Authorization": [f"Bearer {SECRET}"]},
            "timeout": "1s",
            "threshold": 10,
            "backoff": "100ms",
        }
        return start_docker_registry(notifications={"endpoints": [endpoint]})

    return start


@pytest.fixture
def configured(kitd, free_address, tmp_path):
    """Make a kitd that listens for the events of some registries and has some mirrors."""
    path = tmp_path / "hook.secret"
    path.write_text(SECRET)

    def configured(sources, mirrors, **sections):
        return kitd(
            {
                "webhooks": {
                    "listen": free_address,
                    "sources": {
                        name: {
                            "format": "distribution",
                            "registry": registry.host,
                            "secret_file": str(path),
                        }
                        for name, registry in sources.items()
                    },
                },
                "mirrors": mirrors,
                **sections,
            }
        )

    return configured


def blob_reads(registry):
    """Return how often each blob was read from one of Debian's registries."""
    counts = {}
    for line in (registry.root.parent / "log").read_text().splitlines():
        with suppress(ValueError):
            said = json.loads(line)
            path = said.get("http.request.uri", "")
            read = said.get("http.request.method") == "GET" and "/blobs/" in path
            if read and said["msg"] == "response completed":
                counts[path] = counts.get(path, 0) + 1
    return counts


def test_a_push_is_everywhere_in_a_moment_and_was_read_once(
    notify, start_docker_registry, configured, skopeo, tmp_path
):
    """Signatures come along, whether they were there before or come later."""
    registry_a, registry_b, staging = notify("a"), start_docker_registry(), start_docker_registry()
    made = End(staging.host)
    layers = [os.urandom(20 << 20), os.urandom(3000)]
    kit = made.kit("v1", *layers)
    own = {"registry": {"listen": "127.0.0.1:0"}}
    daemon = configured({"a": registry_a}, {}, **own).start()
    ready = wait_until(
        "the log", lambda: [x for x in lines(daemon) if x["event"] == "daemon.ready"]
    )
    daemon.config["registry"] = {"listen": ready[0]["registry"]}
    targets = [f"{registry_b.host}/{NAME}", f"{ready[0]['registry']}/{NAME}"]
    daemon.config["mirrors"] = {"prod": {"source": f"{registry_a.host}/{NAME}", "targets": targets}}
    assert daemon.stop() == 0
    daemon.start()
    ends = [End(registry_b.host), End(ready[0]["registry"])]

    plain = ("--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests")
    source = f"docker://{staging.host}/{NAME}:v1"
    skopeo("copy", *plain, source, f"docker://{registry_a.host}/{NAME}:v1")
    began_s = time.monotonic()
    wait_until("both mirrors", lambda: all(end.digest("v1") == kit["digest"] for end in ends))
    took_s = time.monotonic() - began_s
    reads = blob_reads(registry_a)
    assert len(reads) == 3
    assert set(reads.values()) == {1}
    print(f"\nboth mirrors have it {took_s:.2f} s after skopeo has ended")

    source_end = End(registry_a.host)
    signature = source_end.kit(None, b"signature", subject=kit)
    listed = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [signature]}
    source_end.put(listed, kit["digest"].replace(":", "-"))
    wait_until("the signature", lambda: all(end.digest(signature["digest"]) for end in ends))
    with request("GET", f"{ends[1].url}/referrers/{kit['digest']}") as answer:
        assert [entry["digest"] for entry in json.load(answer)["manifests"]] == [
            signature["digest"]
        ]


def lines(daemon):
    return [json.loads(line) for line in daemon.log.read_text().splitlines() if line[:1] == "{"]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_two_ways_converge_however_they_are_pushed_to(notify, configured):
    """Nothing that kitd wrote comes back as news, and what is left is the last word of a side.

    Some pushes take back what the side had pushed before.
    """
    pushes = int(os.environ.get("KITD_SOAK_TWO_WAY", "120"))
    registries = {"a": notify("a"), "b": notify("b")}
    ends = {name: End(registry.host) for name, registry in registries.items()}
    places = {name: f"{registry.host}/{NAME}" for name, registry in registries.items()}
    daemon = configured(
        registries,
        {
            "there": {"source": places["a"], "targets": [places["b"]]},
            "back": {"source": places["b"], "targets": [places["a"]]},
        },
    ).start()
    draw = random.Random(1)
    last: dict[str, dict[str, str]] = {name: {} for name in ends}
    failures = []

    def push(name, count, seed):
        own = random.Random(seed)
        layers: dict[str, list[bytes]] = {}
        try:
            for number in range(count):
                tag = f"t{own.randrange(12)}"
                before = layers.setdefault(tag, [])
                if not before or own.random() < 0.8:
                    before.append(f"{name} {number}".encode())
                last[name][tag] = ends[name].kit(tag, own.choice(before[-3:]))["digest"]
                time.sleep(own.random() * 0.02)
        except Exception as error:  # noqa: BLE001 - told by the assertion below
            failures.append(error)

    threads = [
        threading.Thread(target=push, args=(name, pushes // 2, draw.random())) for name in ends
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures

    def are_equal():
        one, other = (end.tags() for end in ends.values())
        tags = last["a"].keys() | last["b"].keys()
        return one == other and one.keys() == tags and idle(daemon)

    wait_until("both sides to be equal", are_equal, 120)
    final = ends["a"].tags()
    for tag, digest in final.items():
        assert digest in {words[tag] for words in last.values() if tag in words}
    copies = count_copies(daemon)
    # A registry tells one event after the other: with these all before them have been told.
    for name, end in ends.items():
        last[name][f"last-{name}"] = end.kit(f"last-{name}", name.encode())["digest"]
    wait_until("the last ones to be everywhere", are_equal, 60)
    assert count_copies(daemon) == copies + len(ends)
    assert ends["a"].tags().items() >= final.items()
    # Each push is carried at most once, and none is carried back.
    assert copies <= pushes
    print(f"\n{pushes} pushes, {copies} copies")


def idle(daemon):
    status = daemon.kitctl("--json", "status").json
    queue = status["queue"]
    return not (queue["ready"] or queue["running"] or queue["scheduled"])


def count_copies(daemon):
    answer = daemon.kitctl("--json", "events", "--since", "0")
    events = [json.loads(line) for line in answer.out.splitlines()]
    return sum(event["type"] == "kit.mirrored" for event in events)
