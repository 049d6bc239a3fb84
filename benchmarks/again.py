"""Packing again what was packed before: nothing changed, or one layer of ten.

The floor is what one `find` needs to look at every file, and the start of a client: the line
`client` is `kitctl version`, which asks the daemon one question.
"""

import contextlib
import itertools
import shutil
from collections.abc import Callable, Iterator
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
from benchmarks.scene import Scene, daemon

LAYERS = 10


@contextlib.contextmanager
def packed(place: Path, root: Path) -> Iterator[tuple[Scene, dict[str, Contestant]]]:
    """Let kitd and kit pack a project; yield the daemon, and the two that pack it again."""
    with contextlib.ExitStack() as stack:
        scene = stack.enter_context(daemon(place / "kitd", {}))
        ours = partial(scene.kitctl, "--quiet", "pack", str(root), "-t", "bench/bench:v1")
        packs: dict[str, Run] = {"kitd": ours}
        if program := peer("kit"):
            options = stack.enter_context(kit.empty_home(program, place / "kit"))
            packs["kit"] = kit.packing(program, root, options)
        for pack in packs.values():
            pack()
        yield scene, {who: ready(pack) for who, pack in packs.items()}
    shutil.rmtree(place / "kitd")


def unchanged(
    place: Path, name: str, write: Callable[[Path], None], settings: Settings
) -> Comparison:
    """Pack a tree again as it is."""
    root = place / "project"
    write(root)
    with packed(place, root) as (scene, contestants):
        if find := peer("find"):
            look = command(find, str(root), "-printf", "%i %s %T@ %C@ %P\n")
            contestants["find"] = ready(look)
        contestants["client"] = ready(partial(scene.kitctl, "version"))
        seconds = alternate(contestants, rounds=settings.rounds)
    shutil.rmtree(root)
    goals = {"kit": 0.05, "find": 2.5}
    return Comparison(f"pack again, {name}", seconds, goals, absent("kit", "find"))


def one_layer_changed(place: Path, settings: Settings) -> Comparison:
    """Pack a tree again after another one of its layers was rewritten each time."""
    root = place / "project"
    size_bytes = settings.scaled(200 << 20)
    tree.write_datasets(root, LAYERS, size_bytes)
    turns = itertools.cycle(sorted(root.glob("*.bin")))
    with packed(place, root) as (_, contestants):
        # Once for both: each packs the same change.
        seconds = alternate(
            contestants,
            rounds=settings.rounds,
            before_round=lambda: tree.write_bytes(next(turns), size_bytes),
        )
    shutil.rmtree(root)
    name = f"pack again, one of {LAYERS} layers of {mebibytes(size_bytes)} changed"
    return Comparison(name, seconds, {"kit": 0.15}, absent("kit"))


def run(place: Path, settings: Settings) -> Iterator[str]:
    """Measure two trees as they are, and one that changes."""
    size_bytes, count = settings.scaled(2 << 30), settings.scaled(100_000)
    model = partial(tree.write_model, size_bytes=size_bytes)
    yield unchanged(place, f"one file of {mebibytes(size_bytes)}", model, settings).table()
    files = partial(tree.write_small_files, count=count)
    yield unchanged(place, f"{count:,} files of 4 to 20 KB", files, settings).table()
    yield one_layer_changed(place, settings).table()
