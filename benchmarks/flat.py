"""A blob of many gigabytes on its way in and out: how much memory, and how long others wait.

The blob is sparse where it comes from, by a server that gives each connection so little that kitd
fetches parts over eight of them.
The pings stand for the loop's stalls: each waits for the loop twice, to be read and to be answered.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.hostile import lines, pinged
from benchmarks.measure import Settings, goal, mebibytes, timed
from benchmarks.plain_registry import MANIFEST, Document, Shelf, plain_registry
from benchmarks.process import peak_bytes
from benchmarks.scene import Scene, daemon

SIZE_BYTES = 20 << 30
CONNECTION_BYTES_S = 48 << 20
GOAL_MEMORY, GOAL_MS = 160 << 20, 50.0
CONFIG = b"{}"


def shelve(place: Path, size_bytes: int) -> Shelf:
    """Make a sparse blob and what is needed to pull it as `flat:v1`."""
    blob, config = place / "blob", place / "config"
    config.write_bytes(CONFIG)
    blob.touch()
    os.truncate(blob, size_bytes)
    with blob.open("rb") as file:
        layer = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    empty = f"sha256:{hashlib.sha256(CONFIG).hexdigest()}"
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": empty,
            "size": len(CONFIG),
        },
        "layers": [{"mediaType": "application/octet-stream", "digest": layer, "size": size_bytes}],
    }
    content = json.dumps(document).encode()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    manifest = Document(MANIFEST, digest, content)
    return Shelf({"v1": manifest, digest: manifest}, {layer: blob, empty: config})


def rows(name: str, scene: Scene, words: Sequence[str], size_bytes: int) -> str:
    """Run a command of a person, and tell what it did to the daemon."""
    took_s = 0.0

    def work() -> None:
        nonlocal took_s
        took_s = timed(lambda: scene.kitctl("--quiet", *words))

    pings, echoes = pinged(scene, work)
    daemon_bytes, *_ = peak_bytes(scene.pid)
    is_met = max(pings) * 1000 < GOAL_MS and daemon_bytes < GOAL_MEMORY
    words = f"the most below {GOAL_MS:g} ms, memory below {mebibytes(GOAL_MEMORY)}"
    return (
        f"{lines(name, pings, echoes)}\n    {mebibytes(size_bytes / took_s)}/s,"
        f" peak of the daemon so far {mebibytes(daemon_bytes)}\n    {goal(words, is_met=is_met)}"
    )


def run(place: Path, settings: Settings) -> Iterator[str]:
    """Pull the blob, then push it to where it is swallowed."""
    size_bytes = settings.scaled(SIZE_BYTES)
    shelf = shelve(place, size_bytes)
    home = place / "kitd"
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(plain_registry(shelf, most_bytes_s=CONNECTION_BYTES_S))
        sink = stack.enter_context(plain_registry())
        scene = stack.enter_context(daemon(home, {"cache": {"leave_free": "0"}}))
        yield (
            f"ping beside a blob of {mebibytes(size_bytes)}, ms\n"
            f"  {'':<34} {'median':>8} {'p99':>8} {'most':>8} {'pings':>8}"
        )
        pull = ("pull", f"{source}/bench/flat:v1")
        push = ("push", f"{source}/bench/flat:v1", f"{sink}/bench/flat:v1")
        yield rows("pulled", scene, pull, size_bytes)
        yield rows("pushed", scene, push, size_bytes)
    shutil.rmtree(home)
