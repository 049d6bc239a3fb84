"""Prints the matrix: a row for each registry, a column for each shape. Ends with 1 if any fails."""

import asyncio
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import structlog

from fault_registry.habits import HABITS
from kitd.registry.settings import RegistrySettings
from matrix.row import Peer, Row, peer_of, row_of
from matrix.shapes import SHAPES

CELL_S = 60.0
WIDTH = 9
DEBIANS = "distribution"


@contextmanager
def docker_registry(program: str, place: Path) -> Iterator[str]:
    """Run Debian's registry and return its address."""
    configuration = {
        "version": "0.1",
        "log": {"level": "info", "formatter": "json"},
        "storage": {"filesystem": {"rootdirectory": str(place / "storage")}},
        "http": {"addr": "127.0.0.1:0"},
    }
    (place / "config.yml").write_text(json.dumps(configuration))
    with (
        (place / "log").open("wb") as log,
        subprocess.Popen(
            [program, "serve", place / "config.yml"],
            stdout=subprocess.DEVNULL,
            stderr=log,
            env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
        ) as process,
    ):
        try:
            said = ""
            while "listening on " not in said and process.poll() is None:
                time.sleep(0.01)
                said = (place / "log").read_text()
            yield said.partition("listening on ")[2].partition('"')[0].partition(",")[0]
        finally:
            process.kill()


@asynccontextmanager
async def peer_named(name: str, place: Path) -> AsyncIterator[Peer | None]:
    """Run the registry of a row; None where it is not installed."""
    if name != DEBIANS:
        async with peer_of(HABITS[name], place) as peer:
            yield peer
    elif program := shutil.which("docker-registry"):
        with docker_registry(program, place) as host:
            yield Peer(host, RegistrySettings())
    else:
        yield None


async def fill(row: Row, shape: str, place: Path) -> str | None:
    """Fill one cell; return what went wrong, if anything did."""
    try:
        async with asyncio.timeout(CELL_S):
            await row.copy(shape, place)
    except Exception as error:  # noqa: BLE001 -- whatever it is, it belongs into the table
        return f"{type(error).__name__}: {error}"
    return None


async def print_matrix(place: Path) -> bool:
    """Print the whole table and return whether all went well."""
    wrong = []
    print(" " * 16 + "".join(f"{shape:>{WIDTH}}" for shape in SHAPES))
    for name in (*HABITS, DEBIANS):
        print(f"{name:16}", end="", flush=True)
        home = place / name
        home.mkdir()
        async with peer_named(name, home) as peer:
            if peer is None:
                print(" docker-registry is not installed")
                continue
            async with row_of(peer) as row:
                for shape in SHAPES:
                    began_s = time.perf_counter()
                    reason = await fill(row, shape, home / shape)
                    took = f"{(time.perf_counter() - began_s) * 1000:.0f} ms"
                    print(f"{'FAILED' if reason else took:>{WIDTH}}", end="", flush=True)
                    if reason:
                        wrong.append(f"{name}, {shape}: {reason}")
        print()
        shutil.rmtree(home)
    cells = (len(HABITS) + 1) * len(SHAPES)
    print(f"\n{cells - len(wrong)} of {cells} cells are as they should be", *wrong, sep="\n")
    return not wrong


def main() -> int:
    # Warnings of what a registry does are not news here.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory(prefix="kitd-matrix-") as place:
        return 0 if asyncio.run(print_matrix(Path(place))) else 1


if __name__ == "__main__":
    sys.exit(main())
