"""Packing, beside the real `kit` (which never syncs) and one pass of `openssl` over the bytes."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import Row, alternate, peer
from benchmarks.scene import daemon

MODEL_BYTES = 1 << 30
SMALL_FILES = 20_000


def one_file(root: Path) -> None:
    """Write a project of one large file."""
    (root / "Kitfile").write_text("manifestVersion: 1.0.0\nmodel: {path: model.bin}\n")
    with (root / "model.bin").open("wb") as file:
        for _ in range(MODEL_BYTES >> 24):
            file.write(os.urandom(1 << 24))


def many_files(root: Path) -> None:
    """Write a project of many small files."""
    (root / "Kitfile").write_text("manifestVersion: 1.0.0\ndatasets: [{path: data}]\n")
    for number in range(SMALL_FILES):
        file = root / "data" / f"{number % 200:03d}" / f"{number:05d}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(4096 + number % 16384))


def cold(place: Path, name: str, make: Callable[[Path], None]) -> Row:
    """Pack a tree that is in memory into an empty cache."""
    root = place / name.replace(" ", "-")
    root.mkdir()
    make(root)
    state, kit_home = place / "state", place / "kit"
    with daemon(place, {}) as scene:

        def ours() -> None:
            scene.kitctl("--quiet", "pack", str(root), "-t", "bench:v1")

        def forget() -> None:
            shutil.rmtree(kit_home, ignore_errors=True)
            for blob in (state / "cache" / "blobs" / "sha256").iterdir():
                blob.unlink()

        contestants: dict[str, Callable[[], object]] = {"kitd": ours}
        if kit := peer("kit"):
            command = [kit, "pack", str(root), "-t", "bench:v1", "--config", str(kit_home)]
            contestants["kit"] = lambda: subprocess.run(command, check=True, capture_output=True)
        files = sorted(str(path) for path in root.rglob("*") if path.is_file())
        if openssl := peer("openssl"):
            digest = [openssl, "dgst", "-sha256", *files]
            contestants["openssl"] = lambda: subprocess.run(digest, check=True, capture_output=True)
        seconds = alternate(contestants, rounds=3, before=forget)
    shutil.rmtree(root)
    shutil.rmtree(state)
    note = "" if peer("kit") else "kit is not on PATH"
    return Row(f"cold pack, {name}", seconds, note)


def run(place: Path) -> list[Row]:
    """Measure both trees."""
    return [
        cold(place, "one file of 1 GiB", one_file),
        cold(place, "20,000 files of 4 to 20 KB", many_files),
    ]
