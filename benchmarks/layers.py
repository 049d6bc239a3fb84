"""Packing what was never packed, beside the real `kit` and one pass of `openssl` over the bytes.

kitd runs and knows nothing of the project; both have an empty cache, and the bytes in memory.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

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
    ready,
)
from benchmarks.scene import daemon


@dataclass(frozen=True, slots=True)
class Case:
    """A tree to pack, and the ratios to reach."""

    name: str
    write: Callable[[Path], None]
    goals: Mapping[str, float]


def cases(settings: Settings) -> Iterator[Case]:
    """Yield a large file, many small ones, and kits of several layers."""
    size_bytes = settings.scaled(2 << 30)
    yield Case(
        f"one file of {mebibytes(size_bytes)}",
        partial(tree.write_model, size_bytes=size_bytes),
        {"kit": 0.9, "openssl": 1.3},
    )
    count = settings.scaled(20_000)
    yield Case(
        f"{count:,} files of 4 to 20 KB", partial(tree.write_small_files, count=count), {"kit": 0.7}
    )
    for layers, each_bytes in ((10, 200 << 20), (4, 512 << 20)):
        size_bytes = settings.scaled(each_bytes)
        yield Case(
            f"{layers} layers of {mebibytes(size_bytes)}",
            partial(tree.write_datasets, count=layers, size_bytes=size_bytes),
            {"kit": 0.6},
        )


@contextlib.contextmanager
def cold(root: Path, first: Path, home: Path) -> Iterator[Run]:
    """Prepare a pack by a daemon that has packed something else before, as one that runs has."""
    with daemon(home, {}) as scene:
        scene.kitctl("--quiet", "pack", str(first), "-t", "bench/first:v1")
        yield partial(scene.kitctl, "--quiet", "pack", str(root), "-t", "bench/bench:v1")
    shutil.rmtree(home)


def compare(place: Path, case: Case, settings: Settings) -> Comparison:
    """Measure one tree."""
    root, first = place / "project", place / "first"
    case.write(root)
    tree.write_model(first, 1)
    contestants: dict[str, Contestant] = {"kitd": partial(cold, root, first, place / "kitd")}
    if program := peer("kit"):
        contestants["kit"] = partial(kit.cold, program, root, place / "kit")
    if openssl := peer("openssl"):
        digest = command(openssl, "dgst", "-sha256", *tree.files_of(root), folder=root)
        contestants["openssl"] = ready(digest)
    seconds = alternate(
        contestants, rounds=settings.rounds, before_run=partial(tree.read_through, root)
    )
    shutil.rmtree(root)
    shutil.rmtree(first)
    return Comparison(f"cold pack, {case.name}", seconds, case.goals, absent("kit", "openssl"))


def run(place: Path, settings: Settings) -> Iterator[str]:
    """Measure every tree."""
    for case in cases(settings):
        yield compare(place, case, settings).table()
