"""The gate for sets of files of which some are missing: shards, and what an index names.

A set is `NAME-00001-of-00007.EXT` with all its numbers, from one or from zero on; an index is what
Hugging Face's libraries write beside the shards of a model, and names them. A set of a model's
weights is of no use without all of them and holds for as long as one is missing. Of other sets,
such as data of which somebody took a part, only young ones hold.

A shard that is there but stays out of the kit is not missing.
"""

import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import msgspec

from kitd.caller import Caller
from kitd.errors import printable
from kitd.hold import Hold
from kitd.packing.gate.subject import Moment
from kitd.packing.scan import FILE_FLAGS, Entry, Tree, UnreadableByCallerError, is_beneath

NAME = "incomplete"
MAX_INDEX_BYTES = 64 * 1024 * 1024
_SHARD = re.compile(rb"(.*)(?<!\d)(\d{5})-of-(\d{5})(?!\d)([^/]*)", re.DOTALL)
_WEIGHTS = (b".safetensors", b".gguf", b".bin", b".pt", b".pth", b".h5", b".msgpack")
_INDEX = re.compile(rb".*(\.safetensors|\.bin|\.h5|\.msgpack)\.index\.json", re.DOTALL)


class _Index(msgspec.Struct, frozen=True):
    weight_map: dict[str, str]


_DECODER = msgspec.json.Decoder(_Index)


@dataclass(slots=True)
class _Set:
    """The shards that are there of one set."""

    numbers: set[int] = field(default_factory=set)
    is_judged: bool = False
    is_young: bool = False


def holds(
    root: int, tree: Tree, judged: Collection[bytes], moment: Moment, reader: Caller | None
) -> Iterator[Hold]:
    """Yield the sets and indexes of which a file is judged and another is missing.

    What the reader could not look at is not known to be missing.
    """
    for (stem, count, suffix), shards in _sets(tree, judged, moment).items():
        if shards.is_judged and (shards.is_young or suffix.endswith(_WEIGHTS)):
            yield from _missing_shard(root, stem, count, suffix, shards.numbers)
    for index in _indexes(tree, judged):
        yield from _missing_weights(root, index, reader)


def _sets(
    tree: Tree, judged: Collection[bytes], moment: Moment
) -> dict[tuple[bytes, int, bytes], _Set]:
    """Return the sets, each by what stands before the numbers, how many there are, and the rest."""
    sets: dict[tuple[bytes, int, bytes], _Set] = defaultdict(_Set)
    for entry in tree.entries:
        if b"-of-" not in entry.path or entry.is_dir:
            continue
        shard = _SHARD.fullmatch(entry.path)
        if shard is not None:
            stem, number, count, suffix = shard.groups()
            shards = sets[stem, int(count), suffix]
            shards.numbers.add(int(number))
            shards.is_judged = shards.is_judged or entry.path in judged
            shards.is_young = shards.is_young or moment.is_young(entry)
    return sets


def _indexes(tree: Tree, judged: Collection[bytes]) -> Iterator[Entry]:
    """Yield the indexes that are judged, or have a judged file beside them that they may name."""
    indexes = [
        (entry, index.group(1))
        for entry in tree.entries
        if entry.path.endswith(b".index.json") and (index := _INDEX.fullmatch(entry.path))
    ]
    if indexes:
        weights = {(posixpath.dirname(path), posixpath.splitext(path)[1]) for path in judged}
        for entry, suffix in indexes:
            if entry.path in judged or (posixpath.dirname(entry.path), suffix) in weights:
                yield entry


def _missing_shard(
    root: int, stem: bytes, count: int, suffix: bytes, numbers: set[int]
) -> Iterator[Hold]:
    first = 0 if 0 in numbers else 1
    for number in range(first, first + count):
        if number not in numbers:
            missing = _shard_path(stem, number, count, suffix)
            if not _exists(root, os.fsdecode(missing), None):
                present = _shard_path(stem, min(numbers), count, suffix)
                name = printable(posixpath.basename(missing))
                yield Hold(NAME, printable(present), f"of its set of {count}, {name} is missing")
                return


def _shard_path(stem: bytes, number: int, count: int, suffix: bytes) -> bytes:
    return b"%s%05d-of-%05d%s" % (stem, number, count, suffix)


def _missing_weights(root: int, index: Entry, reader: Caller | None) -> Iterator[Hold]:
    path = index.path
    content = _read(root, index)
    if content is None or len(content) > MAX_INDEX_BYTES:
        return
    try:
        names = sorted(set(_DECODER.decode(content).weight_map.values()))
    except msgspec.ValidationError:
        # It is an index of something else.
        return
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        yield Hold(NAME, printable(path), "it is not valid JSON")
        return
    directory = os.fsdecode(posixpath.dirname(path))
    for name in names:
        if not _exists(root, posixpath.join(directory, name), reader):
            yield Hold(NAME, printable(path), f"it names {printable(name)[:200]}, which is missing")
            return


def _read(root: int, index: Entry) -> bytes | None:
    """Return an index, or None where it is not the one that the walk saw."""
    try:
        file = os.open(index.path, FILE_FLAGS, dir_fd=root)
    except OSError:
        return None
    try:
        if not index.same_file(os.fstat(file)):
            return None
        with os.fdopen(file, "rb", closefd=False) as content:
            return content.read(MAX_INDEX_BYTES + 1)
    except OSError:
        return None
    finally:
        os.close(file)


def _exists(root: int, path: str, reader: Caller | None) -> bool:
    try:
        return is_beneath(root, path, reader)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError, UnreadableByCallerError):
        # What cannot be looked at, or is outside of the project, is not known to be missing.
        return True
