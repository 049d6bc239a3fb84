"""Unpacking to a real directory: what is written, and that nothing is when something is wrong."""

import gzip
import hashlib
import io
import itertools
import os
import stat
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import zstandard

from kitd.client.extract import LooseFile, OpenLayer, extract
from kitd.client.placement import Existing
from kitd.client.record import Layer
from kitd.client.tar_reader import TarError, UnsafeNameError
from kitd.errors import KitdError

TAR = "application/vnd.kitops.modelkit.model.v1.tar"
RAW = "application/vnd.kitops.modelkit.model.v1.raw"

Unpack = Callable[..., tuple[int, int]]


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def block(
    name: bytes = b"f", kind: bytes = b"0", size: bytes = b"00000000000\0", **at: bytes
) -> bytes:
    """Make a header by hand, with a right checksum and any field (`at_257=…`) overwritten."""
    header = bytearray(512)
    header[: len(name)] = name
    header[100:108] = b"0000644\0"
    header[124:136] = size
    header[156:157] = kind
    header[257:265] = b"ustar\x0000"
    for field, value in at.items():
        start = int(field.removeprefix("at_"))
        header[start : start + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def octal(size: int) -> bytes:
    return f"{size:011o}\0".encode()


def pax(*records: bytes) -> bytes:
    data = b"".join(records)
    return block(b"x", b"x", octal(len(data))) + padded(data)


def record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


END = bytes(1024)


def tar(**files: bytes) -> bytes:
    body = b"".join(
        block(name.replace("__", "/").encode(), b"0", octal(len(data))) + padded(data)
        for name, data in files.items()
    )
    return body + END


def layer_of(
    content: bytes, media_type: str = TAR, plain: bytes | None = None, path: str = ""
) -> Layer:
    plain = content if plain is None else plain
    return Layer(digest(content), len(content), media_type, digest(plain), path)


def snapshot(root: Path) -> dict[str, object]:
    """Return everything below a directory, links not followed."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        content: object = None
        if stat.S_ISREG(info.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(info.st_mode):
            content = os.readlink(path)
        found[str(path.relative_to(root))] = (stat.filemode(info.st_mode), content)
    return found


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "world" / "target"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def unpack(tmp_path: Path, target: Path) -> Unpack:
    """Unpack blobs, given as layer and content, from real files."""
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    os.umask(0o022)

    def run(
        *layers: tuple[Layer, bytes] | bytes, into: Path = target, **options
    ) -> tuple[int, int]:
        def opened() -> Iterator[OpenLayer]:
            for number, item in enumerate(layers):
                layer, content = item if isinstance(item, tuple) else (layer_of(item), item)
                path = blobs / str(number)
                path.write_bytes(content)
                handle = os.open(path, os.O_RDONLY)
                try:
                    yield OpenLayer(layer, handle)
                finally:
                    os.close(handle)

        options = {"kitfile": None, "progress": lambda _: None} | options
        generator = opened()
        try:
            done = extract(into, generator, **options)
            return done.files, done.bytes
        finally:
            generator.close()

    return run


def test_layers_and_kitfile_are_written(target, unpack):
    result = unpack(tar(a=b"1", d__b=b"22"), tar(d__c=b"333"), kitfile="name: x\n")
    assert result == (4, 1 + 2 + 3 + 8)
    assert snapshot(target) == {
        "Kitfile": ("-rw-r--r--", b"name: x\n"),
        "a": ("-rw-r--r--", b"1"),
        "d": ("drwxr-xr-x", None),
        "d/b": ("-rw-r--r--", b"22"),
        "d/c": ("-rw-r--r--", b"333"),
    }


def test_a_missing_target_is_created_with_its_parents(target, unpack):
    unpack(tar(a=b"1"), into=target / "x" / "y")
    assert (target / "x" / "y" / "a").read_bytes() == b"1"


def test_a_target_that_was_created_goes_again_after_a_failure(target, unpack):
    with pytest.raises(KitdError):
        unpack(b"nonsense", into=target / "x" / "y")
    assert snapshot(target) == {}


def test_modes_follow_the_umask_and_lose_the_special_bits(target, unpack):
    directory = block(b"d", b"5", at_100=b"0007777\0")
    # Nobody may run the one, and of the other the group may not.
    marked = block(b"d/f", at_100=b"0007666\0") + block(b"d/g", at_100=b"0002705\0")
    unpack(directory + marked + END)
    assert snapshot(target) == {
        "d": ("drwxr-xr-x", None),
        "d/f": ("-rw-r--r--", b""),
        "d/g": ("-rwx---r-x", b""),
    }


def test_a_directory_that_is_not_writable_is_filled_first(target, unpack):
    unpack(block(b"d", b"5", at_100=b"0000555\0") + block(b"d/f") + END)
    assert snapshot(target) == {"d": ("dr-xr-xr-x", None), "d/f": ("-rw-r--r--", b"")}
    (target / "d").chmod(0o755)


@pytest.mark.parametrize("members", [1, 3])
def test_gzip_layers_are_inflated(target, unpack, members):
    plain = tar(a=b"x" * 3_000_000)
    cuts = [len(plain) * part // members for part in range(members + 1)]
    stored = b"".join(gzip.compress(plain[a:b]) for a, b in itertools.pairwise(cuts))
    unpack((layer_of(stored, TAR + "+gzip", plain), stored))
    assert (target / "a").stat().st_size == 3_000_000


@pytest.mark.parametrize("frames", [1, 3])
def test_zstd_layers_are_inflated(target, unpack, frames):
    plain = tar(a=b"x" * 3_000_000)
    cuts = [len(plain) * part // frames for part in range(frames + 1)]
    stored = b"".join(zstandard.compress(plain[a:b]) for a, b in itertools.pairwise(cuts))
    unpack((layer_of(stored, TAR + "+zstd", plain), stored))
    assert (target / "a").stat().st_size == 3_000_000


def test_without_the_library_a_zstd_layer_says_what_to_install(target, unpack, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    stored = zstandard.compress(tar(a=b"1"))
    with pytest.raises(KitdError) as caught:
        unpack((layer_of(stored, TAR + "+zstd", tar(a=b"1")), stored))
    assert caught.value.code == "missing_library"
    assert f"{sys.executable} -m pip install zstandard" in caught.value.hint
    assert snapshot(target) == {}


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [("", bytes), ("+gzip", gzip.compress), ("+zstd", zstandard.compress)],
    ids=["none", "gzip", "zstd"],
)
def test_a_raw_layer_is_one_file(target, unpack, suffix, compress):
    stored = compress(b"weights")
    unpack((layer_of(stored, RAW + suffix, b"weights", "models/w.bin"), stored))
    assert (target / "models" / "w.bin").read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("mode", "expected"),
    [(None, 0o644), (0o755, 0o755), (0o400, 0o400), (0o666, 0o644), (0o107644, 0o644)],
)
def test_a_raw_layer_may_what_it_may_and_no_more_than_the_umask_allows(
    target, unpack, mode, expected
):
    unpack((layer_of(b"x", RAW, path="run.sh")._replace(mode=mode), b"x"))
    assert stat.S_IMODE((target / "run.sh").stat().st_mode) == expected


def test_names_may_begin_in_a_directory(target, unpack):
    content = block(b"b", b"5") + tar(b__c=b"1")
    unpack((layer_of(content)._replace(prefix="models/./a"), content))
    assert (target / "models" / "a" / "b" / "c").read_bytes() == b"1"


def test_progress_adds_up_to_the_stored_bytes(unpack):
    content = tar(a=b"x" * 2_500_000)
    steps: list[int] = []
    unpack(content, progress=steps.append)
    assert sum(steps) == len(content)
    assert len(steps) > 1


def test_the_directory_itself_is_passed_over(target, unpack):
    """As `tar -C directory .` writes it; its mode is not the kit's to say."""
    mode = target.stat().st_mode
    unpack(block(b"./", b"5") + tar(a=b"1"))
    assert os.listdir(target) == ["a"]
    assert target.stat().st_mode == mode


def test_zeros_after_the_end_are_what_other_tools_write(target, unpack):
    unpack(tar(a=b"1") + bytes(9216))
    assert (target / "a").exists()


SHORT_GZIP = gzip.compress(tar(a=b"1"))
SHORT_ZSTD = zstandard.compress(tar(a=b"1"))

HOSTILE: dict[str, bytes | tuple[Layer, bytes]] = {
    "parent": block(b"../evil") + END,
    "parent inside": block(b"a/../../evil") + END,
    "absolute": block(b"/tmp/kitd-evil") + END,
    "dot as a file": block(b".") + END,
    "dot with content": block(b"./", b"5", octal(512)) + bytes(512) + END,
    "empty name": block(b"") + END,
    "absolute by prefix": block(b"evil", at_345=b"/tmp") + END,
    "parent by prefix": block(b"evil", at_345=b"..") + END,
    "parent by PAX": pax(record(b"path", b"../evil")) + block(b"safe") + END,
    "absolute by PAX": pax(record(b"path", b"/tmp/kitd-evil")) + block(b"safe") + END,
    "NUL by PAX": pax(record(b"path", b"evil\0safe")) + block(b"safe") + END,
    "empty by PAX": pax(record(b"path", b"")) + block(b"safe") + END,
    "parent by long name": block(b"l", b"L", octal(8)) + padded(b"../evil\0") + block(b"s") + END,
    "long name within": block(b"l", b"L", octal(9)) + padded(b"evil\0safe") + block(b"s") + END,
    "too long": pax(record(b"path", b"x" * 4097)) + block(b"safe") + END,
    "too deep": pax(record(b"path", b"d/" * 257 + b"evil")) + block(b"safe") + END,
    "component too long": pax(record(b"path", b"x" * 300)) + block(b"safe") + END,
    "hard link": block(b"evil", b"1", at_157=b"/etc/passwd") + END,
    "symbolic link": block(b"evil", b"2", at_157=b"..") + END,
    "link then through it": block(b"d", b"2", at_157=b"..") + block(b"d/evil") + END,
    "character device": block(b"evil", b"3") + END,
    "block device": block(b"evil", b"4") + END,
    "fifo": block(b"evil", b"6") + END,
    "contiguous": block(b"evil", b"7") + END,
    "sparse": block(b"evil", b"S") + END,
    "sparse by PAX": pax(record(b"GNU.sparse.major", b"1")) + block(b"evil") + END,
    "global header": block(b"evil", b"g") + END,
    "long link name": block(b"evil", b"K") + END,
    "unknown type": block(b"evil", b"Z") + END,
    "multi-volume": block(b"evil", b"M") + END,
    "directory with content": block(b"evil", b"5", octal(512)) + bytes(512) + END,
    "file named as directory": block(b"evil/") + END,
    "two PAX headers": pax(record(b"path", b"a")) + pax(record(b"path", b"b")) + block() + END,
    "PAX at the end": pax(record(b"path", b"a")) + END,
    "PAX key twice": pax(record(b"path", b"a"), record(b"path", b"b")) + block() + END,
    "PAX wrong length": block(b"x", b"x", octal(9)) + padded(b"99 path=a") + block() + END,
    "PAX no length": block(b"x", b"x", octal(7)) + padded(b"path=a\n") + block() + END,
    "PAX negative length": block(b"x", b"x", octal(10)) + padded(b"-9 path=a\n") + block() + END,
    "PAX no equals": block(b"x", b"x", octal(7)) + padded(b"7 path\n") + block() + END,
    "PAX size words": pax(record(b"size", b"lots")) + block() + END,
    "PAX size negative": pax(record(b"size", b"-1")) + block() + END,
    "PAX size endless": pax(record(b"size", b"9" * 40)) + block() + END,
    "PAX header huge": block(b"x", b"x", octal((1 << 20) + 1)) + bytes(2048) + END,
    "size beyond the content": block(b"evil", b"0", octal(1 << 20)) + END,
    "size beyond the disk": pax(record(b"size", b"4611686018427387904")) + block(b"evil") + END,
    "size by base-256": block(b"evil", b"0", b"\x80" + b"\xff" * 11) + END,
    "size not octal": block(b"evil", b"0", b"00000000009\0") + END,
    "size negative": block(b"evil", b"0", b"-0000000001\0") + END,
    "wrong checksum": block(b"evil")[:148] + b"000000\0 " + block(b"evil")[156:] + END,
    "no magic": block(b"evil", at_257=bytes(8)) + END,
    "no end": block(b"evil"),
    "one zero block": block(b"evil") + bytes(512),
    "data after the end": block(b"evil") + END + b"more",
    "megabytes after the end": block(b"evil") + END + bytes(2 << 20),
    "content cut short": block(b"evil", b"0", octal(5000)) + b"x" * 100,
    "same file twice": block(b"evil") + block(b"evil") + END,
    "same file by another name": block(b"evil") + block(b"./evil") + END,
    "file and directory": block(b"evil") + block(b"evil", b"5") + END,
    "file below a file": block(b"evil") + block(b"evil/x") + END,
    "setuid": block(b"evil", at_100=b"0004755\0") + END,
    "setuid for others": block(b"evil", at_100=b"0004001\0") + END,
    "setgid": block(b"evil", at_100=b"0002755\0") + END,
    "setuid by base-256": block(b"evil", at_100=b"\x80\0\0\0\0\0\x09\xed") + END,
    "raw setuid": (layer_of(b"x", RAW, path="evil")._replace(mode=0o4755), b"x"),
    "not a tar": b"<html>" + bytes(2000),
    "nothing": b"",
    "wrong digest": (layer_of(tar(evil=b"1"))._replace(digest=digest(b"")), tar(evil=b"1")),
    "wrong diffId": (layer_of(tar(evil=b"1"))._replace(diff_id=digest(b"")), tar(evil=b"1")),
    "digest of no kind": (layer_of(tar(evil=b"1"))._replace(digest="md5:00"), tar(evil=b"1")),
    "too short": (layer_of(tar(evil=b"1"))._replace(size=9999), tar(evil=b"1")),
    "too long a blob": (layer_of(tar(evil=b"1"))._replace(size=1), tar(evil=b"1")),
    "unknown type of layer": (layer_of(tar(evil=b"1"), "text/plain"), tar(evil=b"1")),
    "unknown compression": (layer_of(tar(evil=b"1"), TAR + "+lzma"), tar(evil=b"1")),
    "zstd that is none": (layer_of(tar(evil=b"1"), TAR + "+zstd"), tar(evil=b"1")),
    "zstd cut short": (layer_of(SHORT_ZSTD[:-1], TAR + "+zstd"), SHORT_ZSTD[:-1]),
    "zstd with more behind": (
        layer_of(SHORT_ZSTD + b"more", TAR + "+zstd", tar(a=b"1")),
        SHORT_ZSTD + b"more",
    ),
    "zstd with another diffId": (layer_of(SHORT_ZSTD, TAR + "+zstd", b"another"), SHORT_ZSTD),
    "gzip that is none": (layer_of(tar(evil=b"1"), TAR + "+gzip"), tar(evil=b"1")),
    "gzip cut short": (
        layer_of(SHORT_GZIP[:-9], TAR + "+gzip", tar(a=b"1")),
        SHORT_GZIP[:-9],
    ),
    "gzip with more behind": (
        layer_of(SHORT_GZIP + b"more", TAR + "+gzip", tar(a=b"1")),
        SHORT_GZIP + b"more",
    ),
    "gzip with another diffId": (
        layer_of(SHORT_GZIP, TAR + "+gzip", b"another"),
        SHORT_GZIP,
    ),
    "raw without a name": (layer_of(b"x", RAW), b"x"),
    "raw outside": (layer_of(b"x", RAW, path="../evil"), b"x"),
    "raw absolute": (layer_of(b"x", RAW, path="/tmp/kitd-evil"), b"x"),
    "begins outside": (layer_of(tar(evil=b"1"))._replace(prefix="a/../.."), tar(evil=b"1")),
    "begins at the root": (layer_of(tar(evil=b"1"))._replace(prefix="/tmp"), tar(evil=b"1")),
}


CODES = {
    "unsafe_name": (
        "parent", "parent inside", "absolute", "dot as a file", "empty name",
        "absolute by prefix", "parent by prefix", "parent by PAX", "absolute by PAX", "NUL by PAX",
        "empty by PAX", "parent by long name", "long name within", "too long", "too deep",
        "raw without a name", "raw outside", "raw absolute", "begins outside", "begins at the root",
    ),
    "unsupported_entry": (
        "hard link", "symbolic link", "link then through it", "character device", "block device",
        "fifo", "contiguous", "sparse", "sparse by PAX", "global header", "long link name",
        "unknown type", "multi-volume",
    ),
    "set_id": ("setuid", "setuid for others", "setgid", "setuid by base-256", "raw setuid"),
    "duplicate_entry": (
        "same file twice", "same file by another name", "file and directory", "file below a file",
    ),
    "too_many_entries": ("PAX header huge",),
    "no_space": ("size beyond the disk",),
    "unpack_io": ("component too long",),
    "invalid_layer": (
        "wrong digest", "wrong diffId", "digest of no kind", "too short", "too long a blob",
        "unknown type of layer", "unknown compression", "gzip that is none",
        "gzip cut short", "gzip with more behind", "gzip with another diffId", "zstd that is none",
        "zstd cut short", "zstd with more behind", "zstd with another diffId",
    ),
}  # fmt: skip
"""The codes of what is refused; of all others the archive is damaged."""
CODE_OF = {case: code for code, cases in CODES.items() for case in cases}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_layer_leaves_no_trace(tmp_path, target, unpack, name):
    (target / "mine").write_text("stays")
    before = snapshot(tmp_path / "world")
    with pytest.raises(KitdError) as caught:
        # A good layer before it: even what was in order is not written.
        unpack(tar(good=b"1"), HOSTILE[name], kitfile="name: x\n")
    assert caught.value.code == CODE_OF.get(name, "damaged_archive")
    assert "\n" not in caught.value.message
    assert snapshot(tmp_path / "world") == before
    assert not Path("/tmp/kitd-evil").exists()


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("symbolic link", "'evil' is a symbolic link"),
        ("fifo", "'evil' is a fifo"),
        ("setuid", "'evil' is a setuid or setgid file (mode 4755)"),
        ("raw setuid", "'evil' is a setuid or setgid file (mode 4755)"),
        ("parent by PAX", "'../evil' has a name that leads out"),
        ("same file twice", "'evil' twice"),
        ("zstd that is none", "is not what zstd writes: a frame begins with other bytes"),
        ("zstd cut short", "is not what zstd writes: it ends in the middle of a frame"),
        ("size beyond the disk", "no space for 4611686018427387904 bytes of 'evil'"),
    ],
)
def test_the_message_names_the_entry_and_the_reason(unpack, case, words):
    with pytest.raises(KitdError) as caught:
        unpack(HOSTILE[case])
    assert words in caught.value.message


def test_a_gzip_bomb_of_zeros_is_given_up_early(target, unpack):
    squeezer = zlib.compressobj(9, wbits=31)
    stored = squeezer.compress(tar(a=b"1"))
    stored += b"".join(squeezer.compress(bytes(1 << 20)) for _ in range(64)) + squeezer.flush()
    with pytest.raises(KitdError, match="goes on after its end"):
        unpack((layer_of(stored, TAR + "+gzip"), stored))
    assert snapshot(target) == {}


def test_a_zstd_bomb_of_zeros_is_given_up_early(target, unpack):
    # A terabyte in 32 MiB, a megabyte at a time: whoever inflates it all does not come back.
    content, run = tar(a=b"1"), (128 << 13 | 1 << 1).to_bytes(3, "little") + b"\0"
    header = b"\x28\xb5\x2f\xfd\x00\x70"
    stored = zstandard.compress(content) + header + run * (8 << 20)
    with pytest.raises(KitdError, match="goes on after its end"):
        unpack((layer_of(stored, TAR + "+zstd"), stored))
    assert snapshot(target) == {}


@pytest.mark.parametrize("content", [b"", b"x"])
def test_gzip_members_that_hold_next_to_nothing_are_given_up_early(target, unpack, content):
    stored = gzip.compress(content) * 1_100
    with pytest.raises(KitdError) as caught:
        unpack((layer_of(stored, RAW + "+gzip", content * 1_100, "a"), stored))
    assert caught.value.code == "too_many_pieces"
    assert snapshot(target) == {}


def test_a_gzip_member_for_each_entry_is_read(target, unpack):
    """As writers do whose archives are read in parts."""
    plain = [block(b"%d" % number) for number in range(5_000)] + [END]
    stored = b"".join(gzip.compress(part) for part in plain)
    assert unpack((layer_of(stored, TAR + "+gzip", b"".join(plain)), stored)) == (5_000, 0)


@pytest.mark.slow
def test_more_entries_than_a_million_are_given_up(target, unpack):
    """All layers together; half a gigabyte of headers in a few kilobytes."""
    squeezer = zlib.compressobj(1, wbits=31)
    headers = block(b"evil", b"5") * 10_000
    stored = b"".join(squeezer.compress(headers) for _ in range(51))
    stored += squeezer.compress(END) + squeezer.flush()
    hasher = hashlib.sha256()
    for _ in range(51):
        hasher.update(headers)
    hasher.update(END)
    layer = layer_of(stored, TAR + "+gzip")._replace(diff_id=f"sha256:{hasher.hexdigest()}")
    with pytest.raises(
        KitdError, match="more than 1000000 entries, beyond which is 'evil'"
    ) as caught:
        unpack((layer, stored), (layer, stored))
    assert caught.value.code == "too_many_entries"
    assert snapshot(target) == {}


LINK_CASES = [
    lambda target: (target / "d").symlink_to(target.parent),
    lambda target: ((target / "x").mkdir(), (target / "d").symlink_to("x")),
    lambda target: (target / "d").symlink_to("nowhere"),
    lambda target: (target / "d").write_text("a file"),
]


@pytest.mark.parametrize("existing", Existing)
@pytest.mark.parametrize("make", LINK_CASES, ids=["outside", "inside", "dangling", "file"])
def test_a_parent_that_is_no_directory_is_not_gone_through(
    tmp_path, target, unpack, make, existing
):
    make(target)
    before = snapshot(tmp_path / "world")
    with pytest.raises(KitdError, match="'d' is a"):
        unpack(tar(a=b"1", d__evil=b"2"), existing=existing)
    assert snapshot(tmp_path / "world") == before


def test_existing_files_are_refused_all_by_name(target, unpack):
    for name in "abcdefg":
        (target / name).write_text("mine")
    before = snapshot(target)
    with pytest.raises(KitdError) as caught:
        unpack(tar(new=b"1", **dict.fromkeys("abcdefg", b"2")))
    assert caught.value.message == "already there: a, b, c, d, e and 2 more"
    assert snapshot(target) == before


def test_overwrite_replaces_the_content_and_keeps_the_mode(target, unpack):
    (target / "a").write_text("mine")
    (target / "a").chmod(0o600)
    assert unpack(tar(a=b"theirs", b=b"new"), existing=Existing.OVERWRITE) == (2, 9)
    assert snapshot(target) == {"a": ("-rw-------", b"theirs"), "b": ("-rw-r--r--", b"new")}


def test_overwriting_leaves_other_links_to_the_file_alone(target, unpack):
    (target / "a").write_text("mine")
    (target / "other").hardlink_to(target / "a")
    unpack(tar(a=b"theirs"), existing=Existing.OVERWRITE)
    assert (target / "other").read_text() == "mine"


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.symlink_to("other"),
        lambda path: path.mkdir(),
        os.mkfifo,
    ],
    ids=["link", "directory", "fifo"],
)
def test_overwrite_replaces_files_only(target, unpack, make):
    make(target / "z")
    before = snapshot(target)
    with pytest.raises(KitdError, match="'z' is a"):
        unpack(tar(a=b"1", z=b"2"), existing=Existing.OVERWRITE)
    assert snapshot(target) == before


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_text("mine"),
        lambda path: path.symlink_to("/etc/passwd"),
        lambda path: path.mkdir(),
    ],
    ids=["file", "link", "directory"],
)
def test_keep_leaves_whatever_is_there(target, unpack, make):
    make(target / "z")
    before = snapshot(target)
    assert unpack(tar(a=b"1", z=b"2"), existing=Existing.KEEP) == (1, 1)
    assert snapshot(target) == before | {"a": ("-rw-r--r--", b"1")}


@pytest.mark.parametrize("existing", Existing)
def test_the_same_kitfile_is_accepted(target, unpack, existing):
    (target / "Kitfile").write_text("name: x\n")
    unpack(tar(a=b"1"), kitfile="name: x\n", existing=existing)
    assert (target / "Kitfile").read_text() == "name: x\n"


@pytest.mark.parametrize("other", ["name: y\n", "name: x\nmore: 1\n", ""])
def test_another_kitfile_is_refused(target, unpack, other):
    (target / "Kitfile").write_text(other)
    before = snapshot(target)
    with pytest.raises(KitdError, match="another Kitfile"):
        unpack(tar(a=b"1"), kitfile="name: x\n")
    assert snapshot(target) == before


def test_keep_keeps_another_kitfile(target, unpack):
    (target / "Kitfile").write_text("name: y\n")
    assert unpack(tar(a=b"1"), kitfile="name: x\n", existing=Existing.KEEP) == (1, 1)
    assert (target / "Kitfile").read_text() == "name: y\n"
    assert (target / "a").read_bytes() == b"1"


def test_overwrite_replaces_another_kitfile(target, unpack):
    (target / "Kitfile").write_text("name: y\n")
    unpack(tar(a=b"1"), kitfile="name: x\n", existing=Existing.OVERWRITE)
    assert (target / "Kitfile").read_text() == "name: x\n"


def test_a_layer_may_not_bring_a_kitfile_of_its_own(target, unpack):
    with pytest.raises(KitdError, match="'Kitfile' twice"):
        unpack(tar(Kitfile=b"evil"), kitfile="name: x\n")
    assert snapshot(target) == {}


@pytest.mark.parametrize("when", [1, 2, 3])
def test_ctrl_c_leaves_no_trace(target, unpack, when):
    (target / "a").write_text("mine")
    before = snapshot(target)
    steps = iter(range(1, 10))

    def interrupt(_: int) -> None:
        if next(steps) == when:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(
            *(tar(**{f"{name}__f": b"x" * 100}) for name in "xyz"),
            existing=Existing.OVERWRITE,
            progress=interrupt,
        )
    assert snapshot(target) == before


def test_a_failure_in_the_middle_of_placing_is_undone(target, unpack):
    """A name that only this disk refuses is met after other files have theirs."""
    (target / "a").write_text("mine")
    (target / "a").chmod(0o640)
    before = snapshot(target)
    with pytest.raises(KitdError, match="too long"):
        unpack(
            tar(a=b"theirs", b__new=b"1"),
            pax(record(b"path", b"z/" + b"x" * 300)) + block(b"safe") + END,
            existing=Existing.OVERWRITE,
        )
    assert snapshot(target) == before


def test_the_target_may_be_reached_through_a_link(tmp_path, target, unpack):
    (tmp_path / "link").symlink_to(target)
    unpack(tar(a=b"1"), into=tmp_path / "link")
    assert (target / "a").exists()


def test_no_descriptor_is_left_open(target, unpack):
    before = len(os.listdir("/proc/self/fd"))
    unpack(tar(a=b"1", d__e__f=b"2"), kitfile="name: x\n")
    for case in HOSTILE.values():
        with pytest.raises(KitdError):
            unpack(case)
    assert len(os.listdir("/proc/self/fd")) == before


def test_tars_of_the_standard_library_are_unpacked(target, unpack, tmp_path):
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / ("n" * 120)).write_bytes(b"long")
    (source / "weights.bin").write_bytes(os.urandom(100_000))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for child in sorted(source.iterdir()):
            archive.add(child, arcname=child.name)
    unpack(buffer.getvalue())
    assert snapshot(target) == snapshot(source)


def test_a_layer_goes_beneath_its_directory(unpack, target):
    content = tar(a=b"1", data__b=b"2")
    raw = b"raw"
    unpack(
        (layer_of(content)._replace(directory="./sets//one/"), content),
        (layer_of(raw, RAW, path="c")._replace(directory="sets"), raw),
        content,
    )
    found = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert found == {"sets/one/a", "sets/one/data/b", "sets/c", "a", "data/b"}


@pytest.mark.parametrize("directory", ["..", "../x", "/etc", "a/../../b", "a\0b", "x/" * 300])
def test_a_directory_that_leads_out_is_refused(unpack, target, directory):
    content = tar(a=b"1")
    with pytest.raises(TarError):
        unpack((layer_of(content)._replace(directory=directory), content))
    assert snapshot(target) == {}


@pytest.mark.parametrize("path", ["..", "/etc/passwd", "a/../../b", ""])
def test_a_file_that_leads_out_is_refused(unpack, target, path):
    with pytest.raises(TarError):
        unpack(tar(a=b"1"), files=[LooseFile(path, 1, [b"x"])])
    assert snapshot(target) == {}


STAGING = ".kitd-unpack-0123456789abcdef"


@pytest.mark.parametrize(
    "content", [tar(**{f"{STAGING}/1": b"x"}), tar(**{f"./{STAGING}": b"x"})], ids=["in", "as"]
)
def test_what_a_kit_would_put_into_a_staging_directory_is_refused(unpack, target, content):
    """The next unpack would take it for what was left behind."""
    with pytest.raises(UnsafeNameError, match="unpacks use themselves"):
        unpack(content)
    with pytest.raises(UnsafeNameError, match="unpacks use themselves"):
        unpack(tar(a=b"1"), files=[LooseFile(f"{STAGING}/1", 1, [b"x"])])
    assert snapshot(target) == {}


def test_elsewhere_such_a_name_is_like_any_other(unpack, target):
    unpack(tar(**{f"a/{STAGING}/1": b"x", f"{STAGING}0": b"y", f"{STAGING[:-1]}G": b"z"}))
    assert len(list(target.iterdir())) == 3


def test_a_file_may_not_stand_where_a_layer_has_one(unpack, target):
    with pytest.raises(TarError, match="twice"):
        unpack(tar(a=b"1"), files=[LooseFile("a", 1, [b"x"])])
    assert snapshot(target) == {}


def test_a_file_that_breaks_off_takes_the_layers_with_it(unpack, target):
    def chunks():
        yield b"x"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        unpack(tar(a=b"1"), files=[LooseFile("far/b", 2, chunks())])
    assert snapshot(target) == {}


@pytest.mark.parametrize(
    "disk",
    [{"f_favail": 110, "f_files": 1000}, {"f_bavail": (64 << 20) // 4096 + 15}],
    ids=["inodes", "blocks"],
)
def test_directories_that_the_disk_cannot_hold_are_not_begun(target, unpack, monkeypatch, disk):
    room = {"f_favail": 1 << 30, "f_files": 1 << 31, "f_bavail": 1 << 30, "f_frsize": 4096} | disk
    monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(**room))
    with pytest.raises(KitdError, match="no space for 20 directories") as caught:
        unpack(block(b"d/" * 20 + b"f") + END)
    assert caught.value.code == "no_space"
    assert snapshot(target) == {}


def test_a_disk_that_does_not_count_files_is_written_to(target, unpack, monkeypatch):
    room = {"f_favail": 0, "f_files": 0, "f_bavail": 1 << 30, "f_frsize": 4096}
    monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(**room))
    assert unpack(tar(d__a=b"1")) == (1, 1)


CLASHES = {
    "files": (tar(Makefile=b"1", makefile=b"2"), "'Makefile' and 'makefile'"),
    "files below": (tar(d__A=b"1", d__a=b"2"), "'d/A' and 'd/a'"),
    "files far from each other": (tar(A=b"1", b=b"2", z=b"3", a=b"4"), "'A' and 'a'"),
    "files below directories": (tar(D__a=b"1", d__b=b"2"), "'D' and 'd'"),
    "a file and a directory": (tar(d__b=b"1", D=b"2"), "'d' and 'D'"),
    "spelling": (tar(É=b"1", é=b"2"), "'É' and 'é'"),
}


@pytest.mark.parametrize("existing", Existing)
@pytest.mark.parametrize("case", CLASHES)
def test_names_that_are_one_where_case_is_ignored(folding_disks, unpack, case, existing):
    """Both are named, and nothing is there, not even what is in order."""
    content, words = CLASHES[case]
    for disk in folding_disks:
        (disk / "mine").write_text("stays")
        with pytest.raises(KitdError, match=words) as caught:
            unpack(tar(good=b"1"), content, into=disk, existing=existing)
        assert caught.value.code == "case_clash"
        assert os.listdir(disk) == ["mine"]


@pytest.mark.parametrize("existing", Existing)
def test_names_that_are_one_and_are_there_already(folding_disks, unpack, existing):
    """None of the two is written over the other."""
    for disk in folding_disks:
        (disk / "makefile").write_text("stays")
        with pytest.raises(KitdError, match="'Makefile' and 'makefile'") as caught:
            unpack(tar(Makefile=b"1", makefile=b"2"), into=disk, existing=existing)
        assert caught.value.code == "case_clash"
        assert (disk / "makefile").read_text() == "stays"


def test_where_case_is_ignored_other_kits_are_unpacked(folding_disks, unpack):
    for disk in folding_disks:
        unpack(tar(d__A=b"1", e__a=b"2"), into=disk)
        unpack(tar(D__a=b"3"), into=disk, existing=Existing.OVERWRITE)
        # Linux remembers for a second what the other spelling was.
        assert (disk / "D" / "a").read_bytes() == b"3"


def test_names_that_differ_in_case_are_two_where_that_is_so(target, unpack):
    unpack(tar(Makefile=b"1", makefile=b"2", D__a=b"3", d__a=b"4"))
    unpack(tar(Makefile=b"5", makefile=b"6"), existing=Existing.OVERWRITE)
    assert ((target / "Makefile").read_bytes(), (target / "makefile").read_bytes()) == (b"5", b"6")


def test_hard_links_of_one_file_are_two_names(target, unpack):
    (target / "a").write_text("mine")
    (target / "A").hardlink_to(target / "a")
    unpack(tar(a=b"1", A=b"2"), existing=Existing.OVERWRITE)
    assert ((target / "a").read_bytes(), (target / "A").read_bytes()) == (b"1", b"2")
