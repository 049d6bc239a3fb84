"""Whatever is in a file: what is cut is held, what is whole passes, and nothing raises."""

import io
import json
import struct
import zipfile

from hypothesis import assume, given
from hypothesis import strategies as st

from kitd.packing.gate.format.content import Content
from kitd.packing.gate.truncated import FORMATS, truncation

SIZES = st.lists(st.integers(0, 200), max_size=5)
SUFFIXES = sorted(suffix for form in FORMATS for suffix in form.suffixes | form.shared_suffixes)
MAGICS = sorted(bytes(form.magic_offset) + magic for form in FORMATS for magic in form.magics)
HOSTILE = st.one_of(
    st.binary(max_size=200),
    st.integers(0, 2**64 - 1).map(lambda number: struct.pack("<Q", number)),
    st.integers(0, 2**32 - 1).map(lambda number: struct.pack("<I", number)),
    st.sampled_from([b'{"a":{"data_offsets":[0,9]}}', b"PK\5\6", b"PK\6\7", b"PK\6\6", b"PAR1"]),
    st.sampled_from(
        [b"'descr': '<f4'", b"'shape': (9, 9)", b"ARROW1", b"\x3a\xff\x7f", bytes(1024)]
    ),
)


def judge(suffix, data):
    content = Content(len(data), lambda offset, count: data[offset : offset + count])
    return truncation(b"dir/name" + suffix, content)


def cut(data, share):
    return data[: int(len(data) * share)]


shares = st.floats(0, 1, exclude_max=True)


@st.composite
def safetensors(draw):
    header, end = {}, 0
    for name, size in enumerate(draw(SIZES)):
        header[draw(st.text(max_size=5)) + str(name)] = {"data_offsets": [end, end + size]}
        end += size
    if draw(st.booleans()):
        header["__metadata__"] = {"format": draw(st.text(max_size=5))}
    text = json.dumps(header).encode() + b" " * draw(st.integers(0, 8))
    return struct.pack("<Q", len(text)) + text + bytes(end)


@st.composite
def gguf(draw):
    order = draw(st.sampled_from("<>"))
    alignment = draw(st.sampled_from([8, 32, 64]))

    def string(text):
        return struct.pack(f"{order}Q", len(text)) + text

    pairs = [string(b"general.alignment") + struct.pack(f"{order}II", 4, alignment)]
    for key in draw(st.lists(st.binary(max_size=20), max_size=5)):
        values = draw(st.lists(st.binary(max_size=9), max_size=5))
        value = struct.pack(f"{order}IIQ", 9, 8, len(values)) + b"".join(map(string, values))
        pairs.append(string(b"k" + key) + value)
    tensors, end = [], 0
    for size in draw(st.lists(st.integers(1, 200), min_size=1, max_size=5)):
        end += -end % alignment
        tensors.append(string(b"t") + struct.pack(f"{order}IQIQ", 1, size, 24, end))
        end += size
    out = b"GGUF" + struct.pack(f"{order}IQQ", 3, len(tensors), len(pairs))
    out += b"".join(pairs) + b"".join(tensors)
    return out + bytes(-len(out) % alignment) + bytes(end)


@st.composite
def archive(draw):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for number, content in enumerate(draw(st.lists(st.binary(max_size=50), min_size=1))):
            kind = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
            file.writestr(f"{number}", content, kind)
        file.comment = draw(st.binary(max_size=30))
    return out.getvalue()


@given(safetensors(), shares)
def test_safetensors(data, share):
    assert judge(b".safetensors", data) is None
    assert judge(b".safetensors", cut(data, share)) is not None


@given(gguf(), shares)
def test_gguf(data, share):
    assert judge(b".gguf", data) is None
    assert judge(b".gguf", cut(data, share)) is not None


@given(archive(), shares)
def test_archives(data, share):
    assert judge(b".npz", data) is None
    assert judge(b".npz", cut(data, share)) is not None


@given(st.sampled_from(SUFFIXES), st.sampled_from(MAGICS), st.lists(HOSTILE, max_size=8))
def test_nothing_in_a_file_raises(suffix, magic, parts):
    detail = judge(suffix, magic + b"".join(parts))
    assert detail is None or detail.isprintable()


@given(st.sampled_from([safetensors(), gguf(), archive()]).flatmap(lambda kind: kind), st.data())
def test_no_changed_byte_raises(data, choice):
    assume(data)
    position = choice.draw(st.integers(0, len(data) - 1))
    changed = bytearray(data)
    changed[position] = choice.draw(st.integers(0, 255))
    for suffix in SUFFIXES:
        judge(suffix, bytes(changed))
