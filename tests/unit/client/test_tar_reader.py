"""Names and headers of an archive, without a file."""

import io
import tarfile

import pytest

from kitd.client.tar_reader import (
    MAX_DEPTH,
    MAX_NAME_BYTES,
    Entry,
    TarError,
    TarReader,
    clean_name,
    printable,
)


def archive(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def read(content: bytes, step: int = 1 << 20) -> list[tuple[Entry, bytes]]:
    source = io.BytesIO(content)
    reader = TarReader(lambda size: source.read(min(size, step)))
    return [(entry, b"".join(reader.content())) for entry in reader.entries()]


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        (b"a", b"a"),
        (b"a/b", b"a/b"),
        (b"./a", b"a"),
        (b"a//b/./c/", b"a/b/c"),
        (b"...", b"..."),
        (b"a..b", b"a..b"),
        (b"\xff", b"\xff"),
        (b"x" * MAX_NAME_BYTES, b"x" * MAX_NAME_BYTES),
        (b"/".join([b"d"] * MAX_DEPTH), b"/".join([b"d"] * MAX_DEPTH)),
    ],
)
def test_a_name_that_leads_down_is_cleaned(name, clean):
    assert clean_name(name) == clean


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b".",
        b"./",
        b"././.",
        b"/",
        b"/a",
        b"//a",
        b"..",
        b"../a",
        b"a/..",
        b"a/../../b",
        b"a/../b",
        b"a\0b",
        b"x" * (MAX_NAME_BYTES + 1),
        b"/".join([b"d"] * (MAX_DEPTH + 1)),
    ],
)
def test_a_name_that_could_lead_elsewhere_is_refused(name):
    with pytest.raises(TarError):
        clean_name(name)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("length", [1, 99, 100, 101, 200])
@pytest.mark.parametrize("step", [1, 511, 1 << 20])
def test_names_of_every_length_are_read_in_every_format(form, length, step):
    name = "/".join("d" * 49 for _ in range(length // 50)) + "n" * (length % 50 or 1)
    assert read(archive((tarfile.TarInfo(name), b"content"), form=form), step) == [
        (Entry(name.encode(), 0o644, 7, is_directory=False), b"content")
    ]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_outside_ascii_are_read(form):
    content = archive((tarfile.TarInfo("modèle/重み.bin"), b""), form=form)
    assert read(content)[0][0].name == "modèle/重み.bin".encode()


def test_content_that_is_not_read_is_skipped():
    content = archive((tarfile.TarInfo("a"), b"x" * 3000), (tarfile.TarInfo("b"), b"y"))
    reader = TarReader(io.BytesIO(content).read)
    assert [entry.name for entry in reader.entries()] == [b"a", b"b"]


def test_permission_bits_are_all_that_is_left_of_the_mode():
    member = tarfile.TarInfo("a")
    member.mode = 0o107644
    assert read(archive((member, b"")))[0][0].mode == 0o644


def test_the_size_of_a_pax_record_wins():
    # What kit writes for files of 8 GiB and more, here with a small one.
    member = tarfile.TarInfo("a")
    member.pax_headers = {"size": "3"}
    content = bytearray(archive((member, b"abc")))
    header = content.rindex(b"a" + bytes(99))
    content[header + 124 : header + 136] = b"0" * 11 + b"\0"
    content[header + 148 : header + 156] = b" " * 8
    total = sum(content[header : header + 512])
    content[header + 148 : header + 156] = f"{total:06o}\0 ".encode()
    assert read(bytes(content))[0] == (Entry(b"a", 0o644, 3, is_directory=False), b"abc")


def test_entries_are_counted():
    content = archive(*((tarfile.TarInfo(f"f{number}"), b"") for number in range(3)))
    reader = TarReader(io.BytesIO(content).read, max_entries=2)
    with pytest.raises(TarError, match="more than"):
        list(reader.entries())


@pytest.mark.parametrize("cut", [0, 100, 512, 700, 1024, 1535])
def test_an_archive_that_ends_early_is_refused(cut):
    content = archive((tarfile.TarInfo("a"), b"x" * 10))[:cut]
    with pytest.raises(TarError):
        read(content)


@pytest.mark.parametrize("seed", range(0, 512, 7))
def test_a_flipped_bit_of_a_header_is_refused(seed):
    content = bytearray(archive((tarfile.TarInfo("a"), b""), form=tarfile.USTAR_FORMAT))
    content[seed] ^= 0x01
    with pytest.raises(TarError):
        read(bytes(content))


def test_a_name_is_shown_in_one_harmless_line():
    assert printable(b"a\x1b[31m\n\xff") == "a\\x1b[31m\\n\\xff"
    assert len(printable(b"x" * 5000)) < 250
