"""Frames are read to their end, in bounded pieces, and nothing that is none is taken for one."""

import itertools
import random

import pytest
import zstandard

from kitd.client.pieces import FREE_PIECES, Pieces, TooManyPiecesError
from kitd.client.zstd_frames import MAX_BLOCK_BYTES, MAX_WINDOW_BYTES, ZstdError, plain_chunks

SKIPPED = (0x184D2A5F).to_bytes(4, "little") + (5).to_bytes(4, "little") + b"\x28\xb5\x2f\xfd!"
CONTENTS = {
    "empty": b"",
    "short": b"weights",
    "of one byte": bytes(3 << 20),
    "of all bytes": random.Random(1).randbytes(300_000),
    "repeated": b"the same words again, " * 50_000,
}


def fed(stored, step):
    return (stored[at : at + step] for at in range(0, len(stored), step))


def read(stored, step=1 << 20):
    chunks = list(plain_chunks(fed(stored, step), Pieces("sha256:0")))
    assert all(0 < len(chunk) <= MAX_BLOCK_BYTES for chunk in chunks)
    return b"".join(chunks)


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("step", [7, 1 << 20])
@pytest.mark.parametrize(
    ("write_checksum", "write_content_size"), list(itertools.product([True, False], repeat=2))
)
def test_frames_are_read_in_a_row(content, step, write_checksum, write_content_size):
    compressor = zstandard.ZstdCompressor(
        write_checksum=write_checksum, write_content_size=write_content_size
    )
    frame = compressor.compress(content)
    assert read(frame + SKIPPED + frame, step) == content * 2


def test_a_frame_of_several_jobs_is_read():
    content = CONTENTS["of all bytes"] * 20
    assert read(zstandard.ZstdCompressor(threads=2).compress(content)) == content


@pytest.mark.parametrize("write_checksum", [True, False])
def test_whatever_is_cut_short_is_noticed(write_checksum):
    frame = zstandard.ZstdCompressor(write_checksum=write_checksum).compress(b"ab" * 200_000)
    for end in range(len(frame)):
        with pytest.raises(ZstdError):
            read(frame[:end])
        if end:
            with pytest.raises(ZstdError, match="in the middle"):
                read(frame + frame[:end])


def test_a_wrong_checksum_is_noticed():
    frame = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(b"weights"))
    frame[-1] ^= 1
    with pytest.raises(ZstdError, match="checksum"):
        read(bytes(frame))


@pytest.mark.parametrize(("log", "fits"), [(27, True), (28, False)])
def test_a_window_has_a_limit(log, fits):
    assert MAX_WINDOW_BYTES == 1 << 27
    last_empty_block = b"\1\0\0"
    frame = b"\x28\xb5\x2f\xfd\0" + bytes([log - 10 << 3]) + last_empty_block
    if fits:
        assert read(frame) == b""
    else:
        with pytest.raises(ZstdError, match="memory"):
            read(frame)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (b"\x28\xb5\x2f\xfd\1\0\7\1\0\0", "dictionary"),
        (b"\x28\xb5\x2f\xfd\0\0\7\0\0", "no known kind"),
        (b"\x28\xb5\x2f\xfd\0\0" + (MAX_BLOCK_BYTES + 1 << 3 | 1).to_bytes(3, "little"), "large"),
        (b"\x1f\x8b\x08", "middle"),
        (b"\x1f\x8b\x08\0\0", "other bytes"),
    ],
)
def test_what_is_no_frame_is_refused(frame, words):
    with pytest.raises(ZstdError, match=words):
        read(frame)


EMPTY_BLOCKS = b"\x28\xb5\x2f\xfd\x00\x70" + bytes(3) * 2_000
EMPTY_SKIPPED = (0x184D2A50).to_bytes(4, "little") + bytes(4)


@pytest.mark.parametrize(
    "stored",
    [
        zstandard.compress(b"") * (FREE_PIECES + 1),
        EMPTY_BLOCKS,
        EMPTY_SKIPPED * (FREE_PIECES + 1),
        zstandard.compress(b"x") * (FREE_PIECES + 1),
    ],
    ids=["frames", "blocks", "skipped", "a byte each"],
)
def test_pieces_that_hold_next_to_nothing_are_given_up_early(stored):
    with pytest.raises(TooManyPiecesError, match="sha256:0"):
        read(stored)


def test_as_many_pieces_as_their_content_takes_are_read():
    assert read(zstandard.compress(b"x" * 600) * 5_000) == b"x" * 3_000_000
