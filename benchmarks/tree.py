"""Projects to pack, of random bytes: nothing of them is in any cache by chance."""

import itertools
import json
import os
import struct
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist

BLOCK_BYTES = 1 << 24
SMALL_BYTES = 4096
FILES_PER_FOLDER = 100


def write_kitfile(root: Path, **sections: object) -> None:
    """Write a Kitfile; JSON is YAML."""
    (root / "Kitfile").write_text(json.dumps({"manifestVersion": "1.0.0", **sections}))


def write_bytes(path: Path, size_bytes: int) -> None:
    """Write a large file, block by block."""
    with path.open("wb") as file:
        for offset in range(0, size_bytes, BLOCK_BYTES):
            file.write(os.urandom(min(BLOCK_BYTES, size_bytes - offset)))


def write_model(root: Path, size_bytes: int) -> None:
    """Write a project of one large file."""
    root.mkdir(parents=True)
    write_kitfile(root, model={"path": "model.bin"})
    write_bytes(root / "model.bin", size_bytes)


def write_weights(root: Path, size_bytes: int) -> None:
    """Write a project that is like a model: safetensors of bfloat16, an eighth of it text.

    The upper bytes of the floats are distributed as those of small normal numbers are, the lower
    ones evenly; one block in sixteen is zeros.
    """
    root.mkdir(parents=True)
    write_kitfile(root, model={"path": "model.safetensors"}, datasets=[{"path": "text.txt"}])
    text_bytes = size_bytes // 8
    weights_bytes = (size_bytes - text_bytes) // 2 * 2
    normal = NormalDist(0, 0.02)
    upper = bytes(
        struct.pack(">f", normal.inv_cdf((number + 0.5) / 256))[0] for number in range(256)
    )
    offsets = [0, weights_bytes]
    tensor = {"dtype": "BF16", "shape": [weights_bytes // 2], "data_offsets": offsets}
    header = json.dumps({"weight": tensor}).encode()
    with (root / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for number, offset in enumerate(range(0, weights_bytes, BLOCK_BYTES)):
            block = bytearray(min(BLOCK_BYTES, weights_bytes - offset))
            if number % 16 < 15:
                block[::2] = os.urandom(len(block) // 2)
                block[1::2] = os.urandom(len(block) // 2).translate(upper)
            file.write(block)
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("[a-z]*/*.py"))
    with (root / "text.txt").open("wb") as file:
        for source in itertools.cycle(sources):
            if file.tell() >= text_bytes:
                break
            file.write(source.read_bytes()[: text_bytes - file.tell()])


def write_datasets(root: Path, count: int, size_bytes: int) -> None:
    """Write a project of several layers of one large file each."""
    root.mkdir(parents=True)
    names = [f"{number}.bin" for number in range(count)]
    write_kitfile(root, datasets=[{"path": name} for name in names])
    for name in names:
        write_bytes(root / name, size_bytes)


def write_small_files(root: Path, count: int) -> None:
    """Write a project of one layer of many files of 4 to 20 KB, 100 in a directory."""
    root.mkdir(parents=True)
    write_kitfile(root, datasets=[{"path": "data"}])
    for number in range(count):
        folder = root / "data" / f"{number // FILES_PER_FOLDER:04d}"
        if number % FILES_PER_FOLDER == 0:
            folder.mkdir(parents=True)
        # Every directory has small and large ones.
        size_bytes = SMALL_BYTES + number * 163 % (4 * SMALL_BYTES)
        (folder / f"{number:06d}.json").write_bytes(os.urandom(size_bytes))


def write_tiny_files(root: Path, count: int, folders: int) -> None:
    """Write a project of one layer of files of 100 bytes, evenly spread over directories."""
    root.mkdir(parents=True)
    write_kitfile(root, code=[{"path": "."}])
    for folder in range(folders):
        (root / f"{folder:05d}").mkdir()
    for number in range(count):
        name = f"{number % folders:05d}/{number:07d}.txt"
        (root / name).write_bytes(b"%099d\n" % number)


def write_watched(
    root: Path, count: int, *, files: int, folders: int, quiet_s: float
) -> Mapping[str, object]:
    """Write so many projects of tiny files; return their configuration: watched, not pushed."""
    projects: dict[str, object] = {}
    for number in range(count):
        name = f"bench-{number:03d}"
        write_tiny_files(root / name, files, folders)
        projects[name] = {
            "path": str(root / name),
            "reference": f"localhost/bench/{name}",
            "push": False,
            "settle": {"quiet": milliseconds(quiet_s)},
        }
    return projects


def milliseconds(duration_s: float) -> str:
    """Return a duration as the configuration has it."""
    return f"{duration_s * 1000:.0f}ms"


def files_of(root: Path) -> list[str]:
    """Return the files of a project but its Kitfile, relative to its root."""
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and path.name != "Kitfile"
    )


def read_through(root: Path) -> None:
    """Read every file, so that the bytes are in memory for whoever comes next."""
    block = bytearray(1 << 20)
    for name in files_of(root):
        with (root / name).open("rb", buffering=0) as file:
            while file.readinto(block):
                pass
