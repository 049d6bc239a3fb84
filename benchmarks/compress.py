"""Packing a gigabyte that is like a model, in each compression, beside the real `kit`.

What is packed is weights as safetensors has them (a header, 16-bit floats that are normally
distributed, some that are zero) and text: `kit` knows no zstd, and is compared by its gzip there.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks import kit, tree
from benchmarks.measure import Comparison, Contestant, Run, Settings, absent, alternate, peer
from benchmarks.scene import daemon

COMPRESSIONS = {"none": "none", "gzip": "gzip", "gzip-fastest": "gzip-fastest", "zstd": "gzip"}
"""Of kitd, and what of kit's it is compared with."""
GOALS = {"none": 0.9, "gzip": 0.25, "gzip-fastest": 0.7, "zstd": 0.15}
REFERENCE = "bench/bench:v1"


@contextlib.contextmanager
def by_kitd(
    root: Path, first: Path, home: Path, compression: str, sizes: list[int]
) -> Iterator[Run]:
    """Prepare a pack by a daemon that has packed something else before, as one that runs has."""
    with daemon(home, {}) as scene:
        options = ["--compression", compression]
        scene.kitctl("--quiet", "pack", str(first), "-t", "bench/first:v1", *options)
        yield partial(scene.kitctl, "--quiet", "pack", str(root), "-t", REFERENCE, *options)
        packed = json.loads(scene.kitctl("--json", "inspect", REFERENCE))
        sizes.append(sum(layer["size"] for layer in packed["manifest"]["layers"]))
    shutil.rmtree(home)


@contextlib.contextmanager
def by_kit(
    program: str, root: Path, home: Path, compression: str, sizes: list[int]
) -> Iterator[Run]:
    """Prepare a pack into an empty home."""
    with kit.empty_home(program, home) as options:
        yield kit.packing(program, root, [*options, "--compression", compression])
        sizes.append(_stored_bytes(home))


def _stored_bytes(home: Path) -> int:
    """Return the bytes of a store's blobs, its config and manifest among them."""
    return sum(path.stat().st_size for path in home.rglob("blobs/sha256/*"))


def shares(name: str, sizes: Sequence[int], plain_bytes: int) -> str:
    """Return what was left of the bytes."""
    return f"{name} {sizes[-1] / plain_bytes:.3f}"


def run(place: Path, settings: Settings) -> Iterator[str]:
    """Measure every compression."""
    plain_bytes = settings.scaled(1 << 30)
    root, first = place / "project", place / "first"
    tree.write_weights(root, plain_bytes)
    tree.write_model(first, 1)
    program = peer("kit")
    for compression, theirs in COMPRESSIONS.items():
        ours_sizes: list[int] = []
        their_sizes: list[int] = []
        contestants: dict[str, Contestant] = {
            "kitd": partial(by_kitd, root, first, place / "kitd", compression, ours_sizes)
        }
        goals = {}
        if program is not None:
            name = "kit" if theirs == compression else f"kit {theirs}"
            goals[name] = GOALS[compression]
            contestants[name] = partial(by_kit, program, root, place / "kit", theirs, their_sizes)
        seconds = alternate(
            contestants, rounds=settings.rounds, before_run=partial(tree.read_through, root)
        )
        left = [shares("kitd", ours_sizes, plain_bytes)]
        if their_sizes:
            left.append(shares("kit", their_sizes, plain_bytes))
        note = "; ".join(filter(None, (f"left of it: {', '.join(left)}", absent("kit"))))
        title = f"cold pack of {plain_bytes / 2**20:,.0f} MiB of weights and text, {compression}"
        yield Comparison(title, seconds, goals, note).table()
