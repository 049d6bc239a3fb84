"""Pushing and pulling: beside `kit`, `skopeo` and `oras` with a registry, beside `curl` with none.

One large layer and many small ones. Everybody begins with the bytes in memory and, where something
is written, with nothing there yet. Only kitd and the registry make durable what they write.
"""

import contextlib
import hashlib
import json
import os
import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import kit, tree
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
from benchmarks.plain_registry import MANIFEST, Document, Shelf, plain_registry
from benchmarks.process import Meter
from benchmarks.scene import DockerRegistry, Scene, daemon, docker_registry

LARGE_BYTES, SMALL_BYTES, SMALL_COUNT = 1 << 30, 8192, 1000
LOCAL = "bench/kit:v1"


@dataclass(frozen=True, slots=True)
class Case:
    """A kit to move, and the ratios to reach."""

    name: str
    write: Callable[[Path], None]
    push: Mapping[str, float]
    pull: Mapping[str, float]


def cases(settings: Settings) -> Iterator[Case]:
    """Yield one large layer, and many small ones."""
    size_bytes = settings.scaled(LARGE_BYTES)
    yield Case(
        f"one layer of {mebibytes(size_bytes)}",
        partial(tree.write_model, size_bytes=size_bytes),
        push={"kit": 0.95},
        pull={"kit": 0.7},
    )
    count = settings.scaled(SMALL_COUNT)
    yield Case(
        f"{count:,} layers of {SMALL_BYTES // 1024} KiB",
        partial(tree.write_datasets, count=count, size_bytes=SMALL_BYTES),
        push={"kit": 0.7},
        pull={"kit": 0.7},
    )


@dataclass(frozen=True, slots=True)
class Bench:
    """A packed kit, everywhere where a contestant finds it."""

    place: Path
    registry: str
    """The program."""
    scene: Scene
    """A daemon that has it in its cache."""
    processor_s: dict[str, list[float]] = field(default_factory=dict)
    """What the registry itself used of the processor in each run, by contestant."""

    def reference(self, host: str) -> str:
        return f"{host}/bench/kit:v1"

    def metered(self, who: str, pid: int, run: Run) -> Run:
        """Return the same run, which notes what the registry used meanwhile."""

        def metered() -> None:
            meter = Meter(pid)
            run()
            self.processor_s.setdefault(who, []).append(meter.read().cpu_s)

        return metered

    def floor(self) -> str:
        """Return what the registry used since this was asked last, for a note."""
        medians = ", ".join(
            f"{who} {statistics.median(seconds):.1f} s" for who, seconds in self.processor_s.items()
        )
        self.processor_s.clear()
        return f"of which the registry's own, on {os.cpu_count()} cores: {medians}"


@contextlib.contextmanager
def fresh_registry(bench: Bench) -> Iterator[DockerRegistry]:
    """Start an empty registry."""
    home = bench.place / "registry"
    with docker_registry(bench.registry, home) as registry:
        yield registry
    shutil.rmtree(home)


@contextlib.contextmanager
def kitd_push(bench: Bench) -> Iterator[Run]:
    """Push from a daemon that runs."""
    with fresh_registry(bench) as registry:
        reference = bench.reference(registry.host)
        run = partial(bench.scene.kitctl, "--quiet", "push", LOCAL, reference)
        yield bench.metered("kitd", registry.pid, run)


@contextlib.contextmanager
def kit_push(bench: Bench, program: str, options: list[str]) -> Iterator[Run]:
    """Push from a home that has the kit."""
    with fresh_registry(bench) as registry:
        reference = bench.reference(registry.host)
        command(program, "tag", LOCAL, reference, *options)()
        run = command(program, "push", reference, "--plain-http", *options)
        yield bench.metered("kit", registry.pid, run)


@contextlib.contextmanager
def skopeo_push(bench: Bench, program: str, layout: Path) -> Iterator[Run]:
    """Push from an OCI layout."""
    with fresh_registry(bench) as registry:
        target = f"docker://{bench.reference(registry.host)}"
        run = command(*_skopeo(program), "--dest-tls-verify=false", f"oci:{layout}:v1", target)
        yield bench.metered("skopeo", registry.pid, run)


@contextlib.contextmanager
def kitd_pull(bench: Bench, host: str) -> Iterator[Run]:
    """Pull to a daemon that runs and has nothing."""
    home = bench.place / "kitd-pull"
    with daemon(home, {}) as scene:
        yield partial(scene.kitctl, "--quiet", "pull", bench.reference(host))
    shutil.rmtree(home)


@contextlib.contextmanager
def kitd_metered_pull(bench: Bench, registry: DockerRegistry) -> Iterator[Run]:
    """Pull from a registry that is looked at."""
    with kitd_pull(bench, registry.host) as run:
        yield bench.metered("kitd", registry.pid, run)


@contextlib.contextmanager
def kit_pull(bench: Bench, program: str, registry: DockerRegistry) -> Iterator[Run]:
    """Pull to an empty home."""
    with kit.empty_home(program, bench.place / "kit-pull") as options:
        run = command(program, "pull", bench.reference(registry.host), "--plain-http", *options)
        yield bench.metered("kit", registry.pid, run)


@contextlib.contextmanager
def skopeo_pull(bench: Bench, program: str, registry: DockerRegistry) -> Iterator[Run]:
    """Pull to an empty directory."""
    home = bench.place / "skopeo-pull"
    source = f"docker://{bench.reference(registry.host)}"
    run = command(*_skopeo(program), "--src-tls-verify=false", source, f"dir:{home}")
    yield bench.metered("skopeo", registry.pid, run)
    shutil.rmtree(home)


@contextlib.contextmanager
def oras_push(bench: Bench, program: str, layout: Path) -> Iterator[Run]:
    """Push from an OCI layout."""
    with fresh_registry(bench) as registry:
        words = ("--from-oci-layout", f"{layout}:v1", "--to-plain-http")
        run = command(*_oras(program), *words, bench.reference(registry.host))
        yield bench.metered("oras", registry.pid, run)


@contextlib.contextmanager
def oras_pull(bench: Bench, program: str, registry: DockerRegistry) -> Iterator[Run]:
    """Pull to an empty OCI layout."""
    home = bench.place / "oras-pull"
    words = ("--from-plain-http", bench.reference(registry.host), "--to-oci-layout", f"{home}:v1")
    yield bench.metered("oras", registry.pid, command(*_oras(program), *words))
    shutil.rmtree(home)


def _oras(program: str) -> tuple[str, ...]:
    return (program, "cp", "--no-tty")


def _skopeo(program: str) -> tuple[str, ...]:
    return (program, "--insecure-policy", "copy", "--quiet")


@contextlib.contextmanager
def kitd_to_sink(bench: Bench) -> Iterator[Run]:
    """Push to what swallows everything."""
    with plain_registry() as host:
        yield partial(bench.scene.kitctl, "--quiet", "push", LOCAL, bench.reference(host))


@contextlib.contextmanager
def curl_to_sink(curl: str, path: Path) -> Iterator[Run]:
    """Send the same bytes with one request."""
    with plain_registry() as host:
        yield command(curl, "--silent", "--fail", "-T", str(path), f"http://{host}/raw")


@contextlib.contextmanager
def kitd_from_files(bench: Bench, shelf: Shelf) -> Iterator[Run]:
    """Pull from what sends files."""
    with plain_registry(shelf) as host, kitd_pull(bench, host) as run:
        yield run


@contextlib.contextmanager
def curl_from_files(bench: Bench, shelf: Shelf, digest: str, *words: str) -> Iterator[Run]:
    """Fetch a blob into a file, then hash the file; `words` come after that."""
    curl, openssl = peer("curl"), peer("openssl")
    path = bench.place / "fetched"
    with plain_registry(shelf) as host:
        url = f"http://{host}/v2/bench/kit/blobs/{digest}"
        script = f"{curl} --silent --fail -o {path} {url} && {openssl} dgst -sha256 {path}"
        yield command("sh", "-c", " && ".join((script, *words)))
    path.unlink()


def compare(place: Path, case: Case, settings: Settings) -> Iterator[Comparison]:
    """Measure one kit."""
    root = place / "project"
    case.write(root)
    registry = peer("docker-registry")
    assert registry is not None
    with contextlib.ExitStack() as stack:
        scene = stack.enter_context(daemon(place / "kitd", {}))
        _pack(scene, root)
        bench = Bench(place, registry, scene)
        full = stack.enter_context(docker_registry(registry, place / "full"))
        scene.kitctl("--quiet", "push", LOCAL, bench.reference(full.host))
        pushes: dict[str, Contestant] = {"kitd": partial(kitd_push, bench)}
        pulls: dict[str, Contestant] = {"kitd": partial(kitd_metered_pull, bench, full)}
        if program := peer("kit"):
            options = stack.enter_context(kit.empty_home(program, place / "kit"))
            command(program, "pack", str(root), "-t", LOCAL, *options)()
            pushes["kit"] = partial(kit_push, bench, program, options)
            pulls["kit"] = partial(kit_pull, bench, program, full)
        if program := peer("skopeo"):
            layout = place / "layout"
            source = f"docker://{bench.reference(full.host)}"
            copy = (*_skopeo(program), "--src-tls-verify=false", source, f"oci:{layout}:v1")
            command(*copy)()
            pushes["skopeo"] = partial(skopeo_push, bench, program, layout)
            pulls["skopeo"] = partial(skopeo_pull, bench, program, full)
        if program := peer("oras"):
            layout = place / "oras-layout"
            source = ("--from-plain-http", bench.reference(full.host))
            command(*_oras(program), *source, "--to-oci-layout", f"{layout}:v1")()
            pushes["oras"] = partial(oras_push, bench, program, layout)
            pulls["oras"] = partial(oras_pull, bench, program, full)
        for verb, contestants, goals in (("push", pushes, case.push), ("pull", pulls, case.pull)):
            seconds = alternate(contestants, rounds=settings.rounds)
            note = "; ".join(filter(None, (bench.floor(), absent("kit", "skopeo", "oras"))))
            yield Comparison(f"{verb}, {case.name}", seconds, goals, note)
    shutil.rmtree(place)


def compare_with_curl(place: Path, settings: Settings) -> Iterator[Comparison]:
    """Measure against a peer that does nothing with the bytes."""
    size_bytes = settings.scaled(LARGE_BYTES)
    root = place / "project"
    tree.write_model(root, size_bytes)
    with daemon(place / "kitd", {}) as scene:
        _pack(scene, root)
        bench = Bench(place, "", scene)
        inspected = json.loads(scene.kitctl("--json", "inspect", LOCAL))
        shelf, layer = _shelf(inspected, _blobs(scene))
        curl = peer("curl")
        pushes: dict[str, Contestant] = {"kitd": partial(kitd_to_sink, bench)}
        pulls: dict[str, Contestant] = {"kitd": partial(kitd_from_files, bench, shelf)}
        if curl:
            pushes["curl -T"] = partial(curl_to_sink, curl, shelf.blobs[layer])
        if curl and peer("openssl"):
            pulls["curl, openssl"] = partial(curl_from_files, bench, shelf, layer)
            durably = f"sync -d {place / 'fetched'}"
            pulls["and sync"] = partial(curl_from_files, bench, shelf, layer, durably)
        note = absent("curl", "openssl")
        name = f"one layer of {mebibytes(size_bytes)}"
        seconds = alternate(pushes, rounds=settings.rounds)
        yield Comparison(f"push to a sink, {name}", seconds, {"curl -T": 1.0}, note)
        seconds = alternate(pulls, rounds=settings.rounds)
        yield Comparison(f"pull from files, {name}", seconds, {"curl, openssl": 1.0}, note)
    shutil.rmtree(place)


def _blobs(scene: Scene) -> Path:
    return scene.place / "state" / "cache" / "blobs" / "sha256"


def _pack(scene: Scene, root: Path) -> None:
    """Pack a kit, and read it into memory, which kitd wrote it past."""
    scene.kitctl("--quiet", "pack", str(root), "-t", LOCAL)
    for path in _blobs(scene).iterdir():
        with path.open("rb") as file:
            hashlib.file_digest(file, "md5")


def _shelf(inspected: Mapping[str, Any], blobs: Path) -> tuple[Shelf, str]:
    """Return what serves a kit of a cache, and the digest of its layer."""
    manifest = inspected["manifest"]
    digests = [manifest["config"]["digest"], manifest["layers"][0]["digest"]]
    hexes = {digest: digest.partition(":")[2] for digest in (*digests, inspected["digest"])}
    content = (blobs / hexes[inspected["digest"]]).read_bytes()
    document = Document(MANIFEST, inspected["digest"], content)
    served = {digest: blobs / hexes[digest] for digest in digests}
    return Shelf({"v1": document, document.digest: document}, served), digests[1]


def run(place: Path, settings: Settings) -> Iterator[str]:
    """Measure every kit."""
    for number, case in enumerate(cases(settings)):
        if peer("docker-registry") is None:
            yield "transfer: docker-registry is not on PATH"
            break
        for comparison in compare(place / str(number), case, settings):
            yield comparison.table()
    for comparison in compare_with_curl(place / "curl", settings):
        yield comparison.table()
