"""Programs that stop in the middle of a file: training runs, downloads, slow disks.

`stalling_writers.py [options] ROOT=SEED...` writes version after version of a model into each
project, in a thread for each, and prints a line of JSON before it begins a version: which kind of
file it is, how it comes to be, and the digest of each file once it is there. What a project's
schedules are follows from its seed; `--list` prints them and writes nothing.

A version never rests half-way in a state that no gate can tell from a finished one: a file that is
closed in between has a format that tells its length, and a set of files says how many it has.
"""

import argparse
import enum
import hashlib
import io
import json
import mmap
import os
import random
import shutil
import struct
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from pathlib import Path

MIN_BYTES = 4096
MIN_STALL_S = 0.5
BLOCK_BYTES = 1 << 20
MODEL = "weights"
"""The directory that a project's kits hold."""


class Form(enum.StrEnum):
    """What kind of file a model is."""

    RAW = "raw"
    SAFETENSORS = "safetensors"
    GGUF = "gguf"
    TORCH = "torch"
    PARQUET = "parquet"
    SHARDED = "sharded"


class Method(enum.StrEnum):
    """How a file comes to be."""

    APPEND = "append"
    SPARSE = "sparse"
    """It has its full size first and is filled then."""
    MMAP = "mmap"
    """Through memory, with the descriptor closed."""
    TEMPORARY = "temporary"
    """Under a name that says that it is temporary, and renamed."""
    INNOCENT = "innocent"
    """Under another name that says nothing, and renamed."""
    REOPEN = "reopen"
    """It is closed half-way, and opened again later."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Where in a file, as a share of its size, a writer stops, and for how long."""

    share: float
    stall_s: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """One version of a model and how it is written."""

    seed: int
    version: int
    form: Form
    method: Method
    size: int
    pauses: tuple[Pause, ...]
    files: int
    """How many files hold the weights."""
    index_first: bool
    rest_s: float
    """How long the project is left alone before the next version begins."""


def schedules(seed: int, *, max_bytes: int, max_stall_s: float) -> Iterator[Schedule]:
    """Yield a project's versions without end; they depend on nothing but the arguments."""
    rng = random.Random(seed)
    form = rng.choice(list(Form))
    methods = [method for method in Method if form is not Form.RAW or method is not Method.REOPEN]
    version = 0
    while True:
        version += 1
        shares = sorted(rng.random() for _ in range(rng.randint(1, 3)))
        yield Schedule(
            seed=seed,
            version=version,
            form=form,
            method=rng.choice(methods),
            # Most are small: what a stall does, it does to files of every size.
            size=round(MIN_BYTES * (max_bytes / MIN_BYTES) ** (rng.random() ** 3)),
            pauses=tuple(
                Pause(share, MIN_STALL_S * (max_stall_s / MIN_STALL_S) ** rng.random())
                for share in shares
            ),
            files=rng.randint(2, 5) if form is Form.SHARDED else 1,
            index_first=rng.random() < 0.5,
            rest_s=rng.choice([0.0, 0.3, 1.0, 4.0]),
        )


def noise(rng: random.Random, size: int) -> bytes:
    return b"".join(
        rng.randbytes(min(BLOCK_BYTES, size - start)) for start in range(0, size, BLOCK_BYTES)
    )


def raw(version: int, data: bytes) -> bytes:
    content = b"version %d\n" % version + data
    return content + hashlib.sha256(content).digest()


def safetensors(version: int, data: bytes) -> bytes:
    tensor = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": {"version": str(version)}, "weights": tensor}).encode()
    return struct.pack("<Q", len(header)) + header + data


def gguf(version: int, data: bytes) -> bytes:
    def text(value: bytes) -> bytes:
        return struct.pack("<Q", len(value)) + value

    facts = text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama")
    facts += text(b"general.version") + struct.pack("<I", 8) + text(b"%d" % version)
    # One tensor of one dimension, of 8-bit integers.
    tensor = text(b"weights") + struct.pack("<IQIQ", 1, len(data), 24, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 2) + facts + tensor
    return head + bytes(-len(head) % 32) + data


def torch(version: int, data: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in (
            ("model/data.pkl", b"\x80\x02K%c." % version),
            ("model/data/0", data),
            ("model/version", b"3\n"),
        ):
            archive.writestr(zipfile.ZipInfo(name), content)
    return sink.getvalue()


def parquet(version: int, data: bytes) -> bytes:
    # The footer in Thrift's compact protocol: a version, a schema of nothing but a root, no rows
    # and no groups of rows.
    name = b"schema-%d" % version
    root = b"\x48" + bytes([len(name)]) + name + b"\x15\x00\x00"
    footer = b"\x15\x02\x19\x1c" + root + b"\x16\x00\x19\x0c\x00"
    return b"PAR1" + data + footer + struct.pack("<I", len(footer)) + b"PAR1"


FILES: dict[Form, tuple[str, Callable[[int, bytes], bytes]]] = {
    Form.RAW: ("model.bin", raw),
    Form.SAFETENSORS: ("model.safetensors", safetensors),
    Form.GGUF: ("model.gguf", gguf),
    Form.TORCH: ("model.pt", torch),
    Form.PARQUET: ("model.parquet", parquet),
}


def contents(schedule: Schedule) -> dict[str, bytes]:
    """Return a version's files in the order in which they are written."""
    rng = random.Random(f"{schedule.seed}/{schedule.version}")
    if schedule.form is not Form.SHARDED:
        name, build = FILES[schedule.form]
        return {name: build(schedule.version, noise(rng, schedule.size))}
    size = schedule.size // schedule.files
    shards = {
        f"model-{number:05}-of-{schedule.files:05}.safetensors": safetensors(
            schedule.version, noise(rng, size)
        )
        for number in range(1, schedule.files + 1)
    }
    places = {f"layer.{number}": name for number, name in enumerate(shards)}
    index = {
        "model.safetensors.index.json": json.dumps(
            {"metadata": {"version": schedule.version}, "weight_map": places}
        ).encode()
    }
    return {**index, **shards} if schedule.index_first else {**shards, **index}


def parts(content: bytes, pauses: Sequence[Pause]) -> Iterator[tuple[bytes, float]]:
    """Yield a file in pieces, each with how long to stall before the next."""
    places = [min(max(round(len(content) * p.share), 1), len(content) - 1) for p in pauses]
    stalls_s = [*(pause.stall_s for pause in pauses), 0.0]
    for (start, end), stall_s in zip(pairwise([0, *places, len(content)]), stalls_s, strict=True):
        yield content[start:end], stall_s


def write(path: Path, content: bytes, method: Method, pauses: Sequence[Pause]) -> None:
    """Write one file, stalling at the pauses."""
    match method:
        case Method.REOPEN:
            mode = "wb"
            for part, stall_s in parts(content, pauses):
                with path.open(mode) as file:
                    file.write(part)
                mode = "ab"
                time.sleep(stall_s)
        case Method.MMAP:
            with path.open("w+b") as file:
                file.truncate(len(content))
                memory = mmap.mmap(file.fileno(), len(content))
            with memory:
                for part, stall_s in parts(content, pauses):
                    memory.write(part)
                    time.sleep(stall_s)
        case Method.TEMPORARY | Method.INNOCENT:
            suffix = ".tmp" if method is Method.TEMPORARY else ".new"
            other = path.with_name(path.name + suffix)
            with other.open("wb", buffering=0) as file:
                fill(file, content, pauses)
                # While it is open: under the other name it never rests.
                other.rename(path)
        case Method.APPEND | Method.SPARSE:
            with path.open("wb", buffering=0) as file:
                if method is Method.SPARSE:
                    file.truncate(len(content))
                fill(file, content, pauses)


def fill(file: io.FileIO, content: bytes, pauses: Sequence[Pause]) -> None:
    for part, stall_s in parts(content, pauses):
        left = memoryview(part)
        while left:
            left = left[file.write(left) :]
        time.sleep(stall_s)


def write_version(root: Path, schedule: Schedule, files: dict[str, bytes]) -> None:
    """Write a version over the one before."""
    directory = root / MODEL
    if schedule.form is Form.SHARDED and directory.exists():
        # The files of two versions side by side could not be told apart. The old ones go at once.
        old = root.with_name(f"{root.name}.old")
        directory.rename(old)
        shutil.rmtree(old)
    directory.mkdir(exist_ok=True)
    names = list(files)
    for name in names:
        # An index has no format that tells its length.
        pauses = () if name.endswith(".json") else schedule.pauses
        write(directory / name, files[name], schedule.method, pauses)
        before_index = names[-1].endswith(".json") and name == names[-2]
        if name != names[-1] and not before_index:
            time.sleep(schedule.pauses[0].stall_s)


def run_project(root: Path, planned: Sequence[Schedule]) -> None:
    """Write all versions of a project, each announced first."""
    for schedule in planned:
        files = contents(schedule)
        digests = {
            f"{MODEL}/{name}": hashlib.sha256(content).hexdigest()
            for name, content in files.items()
        }
        say({"project": root.name, "schedule": asdict(schedule), "files": digests})
        write_version(root, schedule, files)
        time.sleep(schedule.rest_s)


def say(document: object) -> None:
    os.write(sys.stdout.fileno(), json.dumps(document).encode() + b"\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("projects", nargs="+", metavar="ROOT=SEED")
    parser.add_argument("--versions", type=int, required=True, help="of each project")
    parser.add_argument("--max-bytes", type=int, required=True, help="of a version")
    parser.add_argument("--max-stall-s", type=float, required=True)
    parser.add_argument("--list", action="store_true", help="print the schedules only")
    options = parser.parse_args()
    planned: dict[Path, Sequence[Schedule]] = {}
    for project in options.projects:
        root, _, seed = project.rpartition("=")
        endless = schedules(int(seed), max_bytes=options.max_bytes, max_stall_s=options.max_stall_s)
        planned[Path(root)] = list(islice(endless, options.versions))
    if options.list:
        for schedule in (schedule for listed in planned.values() for schedule in listed):
            say(asdict(schedule))
        return
    with ThreadPoolExecutor(len(planned)) as threads:
        list(threads.map(run_project, planned.keys(), planned.values()))


if __name__ == "__main__":
    main()
