"""The most memory that daemons ever held after moving large kits."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks import tree
from benchmarks.measure import Settings, mebibytes
from benchmarks.process import peak_bytes
from benchmarks.scene import Scene, daemon


def peaks(scene: Scene) -> str:
    """Return the peaks of the daemon and of each of its workers."""
    return " + ".join(mebibytes(peak) for peak in peak_bytes(scene.pid))


def run(place: Path, settings: Settings) -> Iterator[str]:
    """Move two trees through three daemons; tell their peaks so far."""
    files, size_bytes = settings.scaled(20_000), settings.scaled(1 << 30)
    one, many = place / "one", place / "many"
    tree.write_model(one, size_bytes)
    tree.write_small_files(many, files)
    with contextlib.ExitStack() as stack:
        listening = {"registry": {"listen": "127.0.0.1:0"}}
        registry = stack.enter_context(daemon(place / "registry", listening))
        address = registry.registry_address()
        author = stack.enter_context(daemon(place / "author", {}))
        yield f"peak memory at the start: {peaks(author)}"
        author.kitctl("--quiet", "pack", str(many), "-t", f"{address}/bench/many:v1", "--push")
        yield f"peak memory after {files:,} files packed and pushed: {peaks(author)}"
        author.kitctl("--quiet", "pack", str(one), "-t", f"{address}/bench/one:v1", "--push")
        yield f"peak memory after {mebibytes(size_bytes)} packed and pushed: {peaks(author)}"
        reader = stack.enter_context(daemon(place / "reader", {}))
        reader.kitctl("--quiet", "pull", f"{address}/bench/one:v1")
        yield f"peak memory after pulling it: {peaks(reader)}"
        yield f"peak memory after taking it in and giving it out: {peaks(registry)}"
