"""The real `kit` with a home of its own. It never syncs what it writes."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Run, command


@contextlib.contextmanager
def empty_home(program: str, home: Path) -> Iterator[list[str]]:
    """Give kit an empty home, and yield the options that say so; it is gone afterwards."""
    home.mkdir()
    options = ["--config", str(home)]
    # Otherwise a released kit asks the network for a newer one each time that it runs.
    command(program, "version", "--show-update-notifications=false", *options)()
    try:
        yield options
    finally:
        shutil.rmtree(home)


def packing(program: str, root: Path, options: list[str]) -> Run:
    """Return what packs a project into the home that the options name."""
    return command(program, "pack", str(root), "-t", "bench/bench:v1", *options)


@contextlib.contextmanager
def cold(program: str, root: Path, home: Path) -> Iterator[Run]:
    """Prepare a pack into an empty home."""
    with empty_home(program, home) as options:
        yield packing(program, root, options)
