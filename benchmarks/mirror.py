"""Mirrors of a repository with many tags that share layers: the first pass, and one for nothing.

Each with both registries on this machine. `skopeo sync` and `regsync` begin with nothing each time
and keep no memory; kitd's daemon runs, and remembers.
"""

import contextlib
import hashlib
import json
import os
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import (
    Comparison,
    Contestant,
    Run,
    Settings,
    absent,
    alternate,
    command,
    mebibytes,
    peer,
)
from benchmarks.scene import DockerRegistry, daemon, docker_registry

TAGS = 200
GROUPS = 10
BASE_BYTES, GROUP_BYTES, OWN_BYTES = 16 << 20, 1 << 20, 8192
NAME = "bench/kit"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
GOALS = {"skopeo": 0.5, "regsync": 0.5}
AGAIN_GOAL = 0.05
"""Of the first pass: a second one with nothing new is at least twenty times as fast."""

Place = tuple[Path, str]
"""Where a contestant may write, and the `host:port` of its target."""


@dataclass(frozen=True, slots=True)
class Bench:
    """A source, and what fills and empties targets."""

    place: Path
    registry: str
    """The program."""
    source: str
    requests: dict[str, int]
    """Of the second pass, at both ends, by contestant."""


def ask(method: str, url: str, content: bytes | None = None, kind: str = "") -> Any:
    """Send a request and return the answer."""
    headers = {"Content-Type": kind} if kind else {}
    request = urllib.request.Request(url, content, headers, method=method)
    return urllib.request.urlopen(request, timeout=60)


class Uploader:
    """Puts kits into a repository."""

    def __init__(self, host: str) -> None:
        self._url = f"http://{host}/v2/{NAME}"

    def blob(self, content: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        with ask("POST", f"{self._url}/blobs/uploads/", b"") as opened:
            location = opened.headers["Location"]
        joint = "&" if "?" in location else "?"
        ask("PUT", f"{location}{joint}digest={digest}", content, "application/octet-stream").close()
        return {"mediaType": "application/octet-stream", "digest": digest, "size": len(content)}

    def kit(self, tag: str, layers: list[dict[str, Any]]) -> None:
        config = self.blob(json.dumps({"made": tag}).encode())
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {**config, "mediaType": "application/vnd.oci.image.config.v1+json"},
            "layers": layers,
        }
        ask("PUT", f"{self._url}/manifests/{tag}", json.dumps(document).encode(), MANIFEST).close()


def fill(host: str, tags: int) -> None:
    """Push kits that share one layer all of them, and another one in groups."""
    uploader = Uploader(host)
    base = uploader.blob(os.urandom(BASE_BYTES))
    groups = [uploader.blob(os.urandom(GROUP_BYTES)) for _ in range(GROUPS)]
    for number in range(tags):
        own = uploader.blob(os.urandom(OWN_BYTES))
        uploader.kit(f"v{number}", [base, groups[number % GROUPS], own])


def kitd(place: Path, source: str, target: str, stack: contextlib.ExitStack) -> Run:
    """Return what mirrors with a daemon that runs."""
    scene = stack.enter_context(daemon(place / "kitd", {}))
    words = ("--quiet", "mirror", f"{source}/{NAME}", f"{target}/{NAME}")
    return partial(scene.kitctl, *words)


def skopeo(_place: Path, source: str, target: str, _stack: contextlib.ExitStack) -> Run:
    """Return what mirrors with skopeo, which lists the tags itself."""
    program = peer("skopeo")
    assert program is not None
    return command(
        *(program, "--insecure-policy", "sync", "--all", "--preserve-digests"),
        *("--src", "docker", "--src-tls-verify=false"),
        *("--dest", "docker", "--dest-tls-verify=false"),
        *(f"{source}/{NAME}", f"{target}/{NAME.partition('/')[0]}"),
    )


def regsync(place: Path, source: str, target: str, _stack: contextlib.ExitStack) -> Run:
    """Return what mirrors with regsync."""
    program = peer("regsync")
    assert program is not None
    path = place / "regsync.yaml"
    config = {
        "version": 1,
        "creds": [{"registry": host, "tls": "disabled"} for host in (source, target)],
        "defaults": {"parallel": 4},
        "sync": [
            {"source": f"{source}/{NAME}", "target": f"{target}/{NAME}", "type": "repository"}
        ],
    }
    # JSON is YAML.
    path.write_text(json.dumps(config))
    return command(program, "once", "-c", str(path))


CONTESTANTS: dict[str, Callable[[Path, str, str, contextlib.ExitStack], Run]] = {
    "kitd": kitd,
    "skopeo": skopeo,
    "regsync": regsync,
}


@contextlib.contextmanager
def first_pass(bench: Bench, who: str) -> Iterator[Run]:
    """Mirror to an empty registry."""
    place = bench.place / who
    place.mkdir()
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(docker_registry(bench.registry, place / "target"))
        yield CONTESTANTS[who](place, bench.source, target.host, stack)
        check(bench.source, target.host)
    shutil.rmtree(place)


@contextlib.contextmanager
def second_pass(bench: Bench, who: str) -> Iterator[Run]:
    """Mirror where everything is there already, and count what both ends are asked."""
    place = bench.place / who
    place.mkdir()
    logs = (bench.place / "source" / "registry.log", place / "target" / "registry.log")

    def asked() -> int:
        return sum(log.read_text().count('"msg":"response completed') for log in logs)

    with contextlib.ExitStack() as stack:
        target = stack.enter_context(docker_registry(bench.registry, place / "target"))
        run = CONTESTANTS[who](place, bench.source, target.host, stack)
        run()
        before = asked()
        yield run
        bench.requests[who] = asked() - before
        check(bench.source, target.host)
    shutil.rmtree(place)


def check(source: str, target: str) -> None:
    """See that every tag names the same at both ends; a fast mirror that lacks some is none."""
    ends = []
    for host in (source, target):
        with ask("GET", f"http://{host}/v2/{NAME}/tags/list") as answer:
            ends.append(sorted(json.load(answer)["tags"]))
    assert ends[0] == ends[1], f"{len(ends[1])} of {len(ends[0])} tags arrived"


def contestants(
    bench: Bench, prepare: Callable[[Bench, str], contextlib.AbstractContextManager[Run]]
) -> dict[str, Contestant]:
    """Return those that are installed."""
    return {
        who: partial(prepare, bench, who)
        for who in CONTESTANTS
        if who == "kitd" or peer(who) is not None
    }


def run(place: Path, settings: Settings) -> Iterator[str]:
    """Measure both passes."""
    registry = peer("docker-registry")
    if registry is None:
        yield "mirror: docker-registry is not on PATH"
        return
    tags = settings.scaled(TAGS)
    with docker_registry(registry, place / "source") as source:
        assert isinstance(source, DockerRegistry)
        fill(source.host, tags)
        bench = Bench(place, registry, source.host, {})
        unique_bytes = BASE_BYTES + GROUPS * GROUP_BYTES + tags * OWN_BYTES
        name = f"mirror of {tags} tags that share layers, {mebibytes(unique_bytes)} in all"
        first = alternate(contestants(bench, first_pass), rounds=settings.rounds)
        yield Comparison(f"{name}, to an empty registry", first, GOALS, absent(*GOALS)).table()
        again = alternate(contestants(bench, second_pass), rounds=settings.rounds)
        note = "requests at both ends: " + ", ".join(
            f"{who} {count}" for who, count in bench.requests.items()
        )
        yield Comparison(f"{name}, with nothing new", again, {}, note).table()
        ours = Comparison(
            "kitd's two passes",
            {"second": again["kitd"], "first": first["kitd"]},
            {"first": AGAIN_GOAL},
        )
        yield ours.table()
