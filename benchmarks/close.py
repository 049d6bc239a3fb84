"""From the close of a large file to its tag in a registry, as a multiple of hashing it once.

The registry is Debian's, on loopback. It hashes what it gets without the CPU's instructions for
that, which takes longer than all else: the line `upload` is the file sent to it alone, over one
connection. The quiet time that kitd was told to wait for is part of its figure.
"""

import contextlib
import hashlib
import http.client
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import tree
from benchmarks.measure import Comparison, Settings, command, mebibytes, peer, timed
from benchmarks.scene import daemon, docker_registry
from benchmarks.tag import Tag

DEADLINE_S = 300.0
SEND_BLOCK_BYTES = 1 << 20


def in_place(model: Path, size_bytes: int) -> float:
    """Write over the file that is there; return when it was closed."""
    tree.write_bytes(model, size_bytes)
    return time.perf_counter()


def renamed(model: Path, size_bytes: int) -> float:
    """Write beside it under a temporary name, and rename; return when the file was closed."""
    temporary = model.with_name(model.name + ".tmp")
    tree.write_bytes(temporary, size_bytes)
    closed_s = time.perf_counter()
    temporary.rename(model)
    return closed_s


WAYS: Mapping[str, Callable[[Path, int], float]] = {
    "in place": in_place,
    "under a temporary name, then renamed": renamed,
}


def upload(address: str, model: Path) -> float:
    """Send a file to the registry as a blob, as plainly as can be; return the seconds."""
    with model.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    connection = http.client.HTTPConnection(address, timeout=DEADLINE_S, blocksize=SEND_BLOCK_BYTES)

    def send() -> None:
        connection.request("POST", "/v2/bench/upload/blobs/uploads/")
        with connection.getresponse() as begun:
            begun.read()
            place = urlsplit(begun.headers["Location"])
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(model.stat().st_size),
        }
        target = f"{place.path}?{place.query}&digest=sha256:{digest}"
        with model.open("rb") as file:
            connection.request("PUT", target, body=file, headers=headers)
        with connection.getresponse() as done:
            assert done.status == 201, done.read()

    with contextlib.closing(connection):
        return timed(send)


def save(
    place: Path, registry: str, openssl: str | None, way: str, settings: Settings
) -> dict[str, float]:
    """Let a new daemon watch a small project that becomes large; return each one's seconds."""
    root = place / "project"
    tree.write_model(root, 1)
    model = root / "model.bin"
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, place)
        address = stack.enter_context(docker_registry(registry, place / "registry")).host
        config = {
            "projects": {
                "bench": {
                    "path": str(root),
                    "reference": f"{address}/bench/close",
                    "settle": {"quiet": tree.milliseconds(settings.quiet_s)},
                }
            }
        }
        scene = stack.enter_context(daemon(place / "kitd", config))
        tag = stack.enter_context(contextlib.closing(Tag(address, "bench/close", "latest")))
        tag.await_other(None, deadline_s=DEADLINE_S)
        with scene.connect() as client:
            scene.await_no_jobs(client)
        closed_s = WAYS[way](model, settings.scaled(1 << 30))
        # Asked after the close: a version of half a file would not count as the answer.
        known = tag.digest()
        tag.await_other(known, deadline_s=DEADLINE_S)
        seconds = {"kitd": time.perf_counter() - closed_s}
        if openssl is not None:
            seconds["openssl"] = timed(command(openssl, "dgst", "-sha256", str(model)))
        seconds["upload"] = upload(address, model)
        seconds["settle.quiet"] = settings.quiet_s
    return seconds


def run(place: Path, settings: Settings) -> Iterator[str]:
    """Measure both ways to write a file."""
    registry, openssl = peer("docker-registry"), peer("openssl")
    if registry is None:
        yield "close: docker-registry is not on PATH"
        return
    for way in WAYS:
        rounds = [
            save(place / "round", registry, openssl, way, settings) for _ in range(settings.rounds)
        ]
        seconds = {who: tuple(one[who] for one in rounds) for who in rounds[0]}
        size = mebibytes(settings.scaled(1 << 30))
        yield Comparison(
            f"close to tag, {size} written {way}", seconds, note=beyond(seconds)
        ).table()


def beyond(seconds: Mapping[str, tuple[float, ...]]) -> str:
    """Return what kitd took beyond the quiet time, in words."""
    over = [
        kitd - quiet for kitd, quiet in zip(seconds["kitd"], seconds["settle.quiet"], strict=True)
    ]
    text = f"beyond the quiet time: {statistics.median(over) * 1000:.0f} ms"
    if "openssl" in seconds:
        times = statistics.median(over) / statistics.median(seconds["openssl"])
        text += f", {times:.1f} times openssl"
    return text
