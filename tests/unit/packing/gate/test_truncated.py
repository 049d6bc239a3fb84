"""A file that promises more than it has is told from one that is whole, by header and footer."""

import io
import json
import struct
import tarfile
import time
import zipfile

import pytest

from kitd.packing.gate.format.content import Content
from kitd.packing.gate.truncated import truncation


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(begin, end):
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}


def gguf(pairs=(), tensors=(), data=b"", *, order="<", version=3, alignment=32):
    """`pairs` are keys with kind and encoded value; `tensors` name, dimensions, type, offset."""

    def string(text):
        return struct.pack(f"{order}Q", len(text)) + text

    out = b"GGUF" + struct.pack(f"{order}IQQ", version, len(tensors), len(pairs))
    for key, kind, value in pairs:
        out += string(key) + struct.pack(f"{order}I", kind) + value
    for name, dimensions, kind, offset in tensors:
        out += string(name) + struct.pack(f"{order}I", len(dimensions))
        out += struct.pack(f"{order}{len(dimensions)}Q", *dimensions)
        out += struct.pack(f"{order}IQ", kind, offset)
    return out + (bytes(-len(out) % alignment) + data if tensors else b"")


def full_gguf(order="<"):
    strings = b"".join(struct.pack(f"{order}Q", len(text)) + text for text in (b"a", b"bcd", b""))
    return gguf(
        [
            (b"general.architecture", 8, struct.pack(f"{order}Q", 5) + b"llama"),
            (b"general.alignment", 4, struct.pack(f"{order}I", 64)),
            (b"flag", 7, b"\1"),
            (b"double", 12, bytes(8)),
            (b"tokens", 9, struct.pack(f"{order}IQ", 8, 3) + strings),
            (b"scores", 9, struct.pack(f"{order}IQ", 6, 5) + bytes(20)),
        ],
        # 2 x 32 elements of Q8_0 are 68 bytes, and 3 of F32 are 12 at the next alignment.
        [(b"w", (32, 2), 8, 0), (b"b", (3,), 0, 128)],
        b"w" * 68 + bytes(60) + b"b" * 12,
        order=order,
        alignment=64,
    )


def archive(*, entries=3, comment=b"", zip64=False, stored=b""):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for number in range(entries):
            file.writestr(f"archive/data/{number}", bytes(40))
        if stored:
            file.writestr("inner.zip", stored)
        if zip64:
            with file.open("large", "w", force_zip64=True) as member:
                member.write(b"x" * 10)
        file.comment = comment
    return out.getvalue()


def with_zip64_records(plain):
    """Add the records of a large archive to a small one, as PyTorch's writer does."""
    at = plain.rindex(b"PK\5\6")
    *_, count, _, size, offset, _ = struct.unpack("<4s4H2LH", plain[at:])
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return plain[:at] + record + locator + end


def parquet(*, magic=b"PAR1", footer=b"f" * 30):
    return magic + b"column data" + footer + struct.pack("<I", len(footer)) + magic


def arrow(*, magic=b"ARROW1", footer=b"f" * 30):
    return magic.ljust(8, b"\0") + b"batches" + footer + struct.pack("<i", len(footer)) + magic


def npy(descr, shape, data, *, version=1):
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes((version, 0)) + length + header + data


def hdf5_0(size, *, version=0, base=0, driver=2**64 - 1, width=8):
    letter = {4: "I", 8: "Q"}[width]
    undefined = 2 ** (8 * width) - 1
    out = b"\x89HDF\r\n\x1a\n" + bytes((version, 0, 0, 0, 0, width, 8, 0, 4, 0, 16, 0, 0, 0, 0, 0))
    out += bytes(4) if version == 1 else b""
    out += struct.pack(f"<4{letter}", base, undefined, size, min(driver, undefined))
    return out + bytes(size - len(out))


def hdf5_2(size, *, version=2, extension=2**64 - 1):
    out = b"\x89HDF\r\n\x1a\n" + bytes((version, 8, 8, 0))
    out += struct.pack("<4Q", 0, extension, size, 48)
    return out + bytes(size - len(out))


def onnx(graph=b"g" * 300, *, opset=b"\x42\x02\x10\x15"):
    length = bytes((len(graph) & 0x7F | 0x80, len(graph) >> 7))
    return b"\x08\x08" + b"\x12\x01p" + b"\x3a" + length + graph + opset


def tar():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        member = tarfile.TarInfo("a")
        member.size = 700
        file.addfile(member, io.BytesIO(b"a" * 700))
    return out.getvalue()


INNER = archive(entries=1)

# A name, a complete file, and from which to which length cutting it is told (None: all).
WHOLE = {
    "safetensors": (
        "m.safetensors",
        safetensors(
            {"__metadata__": {"data_offsets": "x"}, "a": tensor(0, 20), "b": tensor(20, 50)},
            bytes(50),
        ),
    ),
    "safetensors, padded header": (
        "m.safetensors",
        safetensors(json.dumps({"a": tensor(0, 9)}).encode() + b"   ", b"x" * 9),
    ),
    "safetensors without tensors": ("m.safetensors", safetensors({})),
    "GGUF": ("m.gguf", full_gguf()),
    "GGUF, big endian": ("M.GGUF", full_gguf(">")),
    "GGUF version 2": ("m.gguf", gguf(tensors=[(b"x", (4,), 24, 0)], data=b"xxxx", version=2)),
    "GGUF without tensors": ("v.gguf", gguf([(b"a", 4, bytes(4))])),
    "npz": ("a.npz", archive()),
    "Keras": ("a.keras", archive()),
    "NPY": ("a.npy", npy("'<f4'", "(3, 4)", b"x" * 48)),
    "NPY version 2": ("a.npy", npy("'>i2'", "(5,)", b"x" * 10, version=2)),
    "NPY scalar": ("a.npy", npy("'<c16'", "()", b"x" * 16)),
    "NPY strings": ("a.npy", npy("'<U3'", "(2,)", b"x" * 24)),
    "NPY bytes": ("a.npy", npy("'|S3'", "(2,)", b"x" * 6)),
    "NPY times": ("a.npy", npy("'<M8[ns]'", "(2,)", b"x" * 16)),
    "Parquet": ("a.parquet", parquet()),
    "Parquet, encrypted": ("a.parquet", parquet(magic=b"PARE")),
    "Feather 2": ("a.feather", arrow()),
    "Feather 1": ("a.feather", arrow(magic=b"FEA1")),
}
WHOLE_AFTER_MAGIC = {
    "PyTorch": ("m.pt", archive(), 4),
    "PyTorch, zip64": ("m.bin", with_zip64_records(archive()), 4),
    "ZIP with a comment": ("a.zip", archive(comment=b"hello PK\5\6 world" + b"x" * 30), 4),
    "ZIP with a ZIP in it": ("a.zip", archive(entries=1, stored=INNER), 4),
    "ZIP with a large member": ("a.mcpb", archive(zip64=True), 4),
    "Arrow": ("a.arrow", arrow(), 6),
    "HDF5 version 0": ("m.h5", hdf5_0(300), 8),
    "HDF5 version 1": ("m.hdf5", hdf5_0(300, version=1), 8),
    "HDF5, narrow": ("m.h5", hdf5_0(300, width=4), 8),
    "HDF5 version 2": ("m.h5", hdf5_2(300), 8),
    "HDF5 version 3": ("m.nc", hdf5_2(300, version=3), 8),
}
COMPLETE_OTHERWISE = {
    "no such suffix": ("notes.txt", b""),
    "no suffix": ("safetensors", b""),
    "a pointer of Git LFS": ("m.safetensors", b"version https://git-lfs.github.com/spec/v1\n"),
    "text for weights": ("m.safetensors", b"weights"),
    "a header beyond the bound": ("m.safetensors", struct.pack("<Q", 100_000_001) + b"{"),
    "text for GGUF": ("m.gguf", b"text"),
    "GGUF version 1": ("m.gguf", b"GGUF" + struct.pack("<III", 1, 9, 9)),
    "GGUF version 4": ("m.gguf", b"GGUF" + struct.pack("<IQQ", 4, 9, 9)),
    "GGUF, unknown type": ("m.gguf", gguf(tensors=[(b"x", (4000,), 99, 0)])),
    "GGUF, unknown value": ("m.gguf", gguf([(b"x", 77, b"")])),
    "GGUF, arrays of arrays": ("m.gguf", gguf([(b"x", 9, struct.pack("<IQ", 9, 4))])),
    "GGUF, no alignment": ("m.gguf", gguf([(b"general.alignment", 4, bytes(4))])),
    "GGUF, half a block": ("m.gguf", gguf(tensors=[(b"x", (31,), 8, 0)])),
    "GGUF, many dimensions": ("m.gguf", gguf(tensors=[(b"x", (1,) * 9, 0, 0)])),
    "a pickle": ("m.pt", b"\x80\x02}q\x00."),
    "an empty placeholder": ("m.bin", b""),
    "an empty ZIP archive": ("a.npz", b"PK\5\6" + bytes(18)),
    "NPY of objects": ("a.npy", npy("'|O'", "(300,)", b"")),
    "NPY of records": ("a.npy", npy("[('x', '<i4')]", "(300,)", b"")),
    "NPY of a later version": ("a.npy", b"\x93NUMPY\x09\x00"),
    "two arrays in one NPY": ("a.npy", npy("'<f4'", "(1,)", b"xxxx") + npy("'<f4'", "()", b"1234")),
    "an Arrow stream": ("a.arrow", b"\xff\xff\xff\xff" + bytes(20)),
    "HDF5 in several files": ("a.h5", hdf5_0(300, driver=96)[:200]),
    "HDF5 with an extension": ("a.h5", hdf5_2(300, extension=48)[:200]),
    "HDF5 elsewhere": ("a.h5", bytes(512) + hdf5_0(300)),
    "HDF5 with a base": ("a.h5", hdf5_0(300, base=512)[:200]),
    "HDF5 of a later version": ("a.h5", b"\x89HDF\r\n\x1a\n\x09" + bytes(50)),
    "an empty tar archive": ("a.tar", bytes(10240)),
    "a tar archive": ("a.tar", tar()),
    "a tar archive without padding": ("a.tar", tar()[: 512 + 1024 + 1024]),
    "an ONNX model": ("m.onnx", onnx()),
    "a text that is no ONNX model": ("m.onnx", b"model"),
    "no protocol buffer": ("m.onnx", b"\x08\x08\x07\x07\x07"),
}


def content(data):
    return Content(len(data), lambda offset, count: data[offset : offset + count])


def judge(name, data):
    return truncation(name.encode(), content(data))


@pytest.mark.parametrize(
    ("name", "data"), [*WHOLE.values(), *(case[:2] for case in WHOLE_AFTER_MAGIC.values())]
)
def test_a_complete_file_passes(name, data):
    assert judge(name, data) is None


@pytest.mark.parametrize(("name", "data"), WHOLE.values(), ids=WHOLE)
def test_a_file_that_is_cut_anywhere_is_held(name, data):
    assert [size for size in range(len(data)) if judge(name, data[:size]) is None] == []


@pytest.mark.parametrize(
    ("name", "data", "magic_bytes"), WHOLE_AFTER_MAGIC.values(), ids=WHOLE_AFTER_MAGIC
)
def test_under_a_suffix_that_others_have_too_a_cut_file_is_held_from_its_magic_number_on(
    name, data, magic_bytes
):
    passed = [size for size in range(len(data)) if judge(name, data[:size]) is None]
    assert passed == list(range(magic_bytes))


@pytest.mark.parametrize(("name", "data"), COMPLETE_OTHERWISE.values(), ids=COMPLETE_OTHERWISE)
def test_what_cannot_be_told_passes(name, data):
    assert judge(name, data) is None


@pytest.mark.parametrize("cut", [262, 600, 1024, 1400, 512 + 700 + 100])
def test_a_tar_archive_without_its_end_is_held(cut):
    assert judge("a.tar", tar()[:cut]) == "the blocks of zeros that end a tar archive are missing"


def test_an_onnx_model_is_held_unless_it_is_cut_right_after_its_graph():
    data = onnx()
    passed = [size for size in range(len(data)) if judge("m.onnx", data[:size]) is None]
    assert passed == [0, len(data) - 4]


@pytest.mark.parametrize(
    ("name", "data", "detail"),
    [
        (
            "a.safetensors",
            safetensors({"a": tensor(0, 100)}, bytes(30)),
            "safetensors header promises 172 bytes, the file has 102",
        ),
        (
            "a.safetensors",
            safetensors({"a": tensor(0, 10)}, bytes(30)),
            "safetensors header promises 80 bytes, the file has 100",
        ),
        ("a.safetensors", bytes(5000), "zeros stand where its safetensors header has to be"),
        ("a.safetensors", b"", "the file ends before its safetensors header"),
        ("a.safetensors", safetensors(b"{" + bytes(9)), "its safetensors header is not valid"),
        ("a.gguf", bytes(50), "its first bytes are zeros, where a GGUF header has to be"),
        ("a.gguf", b"GG", "the file ends within the first bytes of its GGUF header"),
        ("a.gguf", full_gguf()[:99], "the file ends within its GGUF header, after 99 bytes"),
        ("a.gguf", full_gguf()[:-5], "GGUF header promises 524 bytes, the file has 519"),
        ("a.npz", archive()[:-9], "the directory at the end of the ZIP archive is missing"),
        (
            "a.npz",
            archive() + bytes(70_000),
            "the directory at the end of the ZIP archive is missing",
        ),
        ("a.parquet", parquet()[:-1], "the footer of the Parquet file is missing"),
        (
            "a.parquet",
            b"PAR1" + struct.pack("<I", 900) + b"PAR1",
            "Parquet footer promises 912 bytes, the file has 12",
        ),
        (
            "a.npy",
            npy("'<f8'", "(1000,)", b"")[:200],
            "NumPy header promises 8071 bytes, the file has 71",
        ),
        ("a.h5", hdf5_0(300)[:100], "HDF5 superblock promises 300 bytes, the file has 100"),
        ("a.onnx", onnx()[:100], "ONNX model promises 308 bytes, the file has 100"),
        ("a.onnx", b"\x08\x08", "the graph of the ONNX model is missing"),
    ],
)
def test_what_is_found_is_said_in_words_and_numbers(name, data, detail):
    assert judge(name, data) == detail


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.safetensors", safetensors(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")),
        ("a.safetensors", safetensors(b'{"\xff": 1}')),
        ("a.safetensors", safetensors(b'{"a": {"data_offsets": [0, ' + b"9" * 5000 + b"]}}")),
        ("a.safetensors", safetensors({"a": {"data_offsets": "0,1"}})),
        ("a.safetensors", safetensors({"a": {}})),
        ("a.safetensors", safetensors({"a": 5})),
    ],
)
def test_a_hostile_header_is_no_valid_one(name, data):
    assert judge(name, data) == "its safetensors header is not valid"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.gguf", b"GGUF" + struct.pack("<IQQ", 3, 2**64 - 1, 2**64 - 1) + bytes(50_000_000)),
        ("a.gguf", b"GGUF" + struct.pack("<IQQ", 3, 100_000, 100_000) + bytes(50_000_000)),
        ("a.gguf", gguf([(b"a", 9, struct.pack("<IQ", 8, 2**63))]) + bytes(50_000_000)),
        ("a.gguf", gguf([(b"a", 9, struct.pack("<IQ", 8, 2_000_000))]) + bytes(50_000_000)),
        ("a.gguf", gguf([(b"a", 9, struct.pack("<IQ", 0, 2**64 - 1))])),
        ("a.zip", b"PK\3\4" + b"PK\5\6" * 16_000),
        ("a.onnx", b"\x08\x08" * 10_000_000),
        ("a.npy", npy("'<f4'", "(" + "9" * 19 + "," + "9" * 5000 + ",)", b"")),
        ("a.npy", npy("'<f4'", "(" + "9" * 19 + "," * 5000 + ")", b"")),
    ],
    ids=[
        "counts",
        "entries",
        "string counts",
        "strings",
        "numbers",
        "ends of archives",
        "fields",
        "digits",
        "commas",
    ],
)
def test_a_file_of_hostile_numbers_costs_little(name, data):
    begin = time.process_time()
    judge(name, data)
    assert time.process_time() - begin < 4
