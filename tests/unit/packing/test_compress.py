"""What a blob becomes depends on its bytes alone, and every reader of the format takes it."""

import gzip
import hashlib
import random
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard

from kitd.oci.digest import digest_of
from kitd.packing.compress import MAX_THREADS, block_threads, compressing
from kitd.store.buffer_ring import BUFFER_BYTES, BufferRing

COMPRESSIONS = ["gzip", "gzip-fastest", "zstd"]


def weights(count, seed=1):
    """Floats as they are in a model: nothing repeats but their exponents."""
    source = random.Random(seed)
    # A sum instead of `gauss`, whose last digits are those of the machine's logarithm.
    draw = source.random
    return struct.pack(f"<{count}f", *(draw() + draw() + draw() - 1.5 for _ in range(count)))


def words(size):
    source = random.Random(2)
    vocabulary = [source.randbytes(source.randrange(1, 9)).hex() for _ in range(4000)]
    return " ".join(source.choices(vocabulary, k=size // 8)).encode()[:size]


CONTENT = weights(300_000) + words(3 << 20) + bytes(2 << 20) + weights(100_000, seed=3)
DIGESTS = {
    "gzip": "5bc4b06568bcf182a3b3b177cbaa0c80fb160e7587fa13722bdfadac7a237259",
    "gzip-fastest": "5c81826336f843c21596dc454d5dc0b19108b53bdb884a9e023cb5fb6bee0c49",
    "zstd": "b1054cea61795119cb83f60a1e569b8ba0712216e2e8116839c021be17a9abc1",
}
"""Of `CONTENT`, compressed. They change when a library does, and a release has to say so."""


def compressed(compression, content, threads=None):
    """Return a blob, and the digest of what was put in."""
    blob = bytearray()
    with (
        threads or block_threads() as pool,
        BufferRing(blob.extend) as ring,
        compressing(compression, pool)(ring) as compressor,
    ):
        compressor.ring.write(content)
        plain = compressor.finish()
        ring.drain()
    return bytes(blob), plain


def inflated(compression, blob):
    if compression == "zstd":
        inflater = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True)
        return inflater.decompress(blob)
    return gzip.decompress(blob)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("threads", [1, 3, 16])
def test_the_bytes_do_not_depend_on_the_number_of_threads(compression, threads):
    blob, plain = compressed(compression, CONTENT, ThreadPoolExecutor(threads))
    assert hashlib.sha256(blob).hexdigest() == DIGESTS[compression]
    assert plain == digest_of(CONTENT)
    assert inflated(compression, blob) == CONTENT


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize(
    "size", [0, 1, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, 9 * BUFFER_BYTES]
)
def test_blobs_of_all_lengths_are_whole(compression, size):
    content = (CONTENT * 2)[:size]
    blob, plain = compressed(compression, content)
    assert inflated(compression, blob) == content
    assert plain == digest_of(content)


@pytest.mark.parametrize("compression", ["gzip", "gzip-fastest"])
def test_a_gzip_blob_is_one_member(compression):
    blob, _ = compressed(compression, CONTENT)
    member = zlib.decompressobj(31)
    assert member.decompress(blob) == CONTENT
    assert member.eof
    assert member.unused_data == b""


def test_every_zstd_frame_says_how_long_it_is():
    blob, _ = compressed("zstd", CONTENT)
    assert zstandard.get_frame_parameters(blob).content_size == BUFFER_BYTES


@pytest.mark.parametrize(
    ("compression", "content", "most"),
    [
        ("gzip", weights(500_000), 0.93),
        ("gzip-fastest", weights(500_000), 0.93),
        ("zstd", weights(500_000), 0.93),
        ("gzip", bytes(4 << 20), 0.005),
        ("zstd", bytes(4 << 20), 0.005),
        ("gzip", random.Random(4).randbytes(2 << 20), 1.002),
        ("gzip-fastest", random.Random(4).randbytes(2 << 20), 1.002),
        ("zstd", random.Random(4).randbytes(2 << 20), 1.002),
    ],
)
def test_what_hardly_compresses_does_not_grow(compression, content, most):
    blob, _ = compressed(compression, content)
    assert len(blob) <= most * len(content)


def test_words_are_searched_for_repetitions():
    content = words(2 << 20)
    least = len(zlib.compress(content, 6))
    assert len(compressed("gzip", content)[0]) < 1.05 * least
    assert least < len(compressed("gzip-fastest", content)[0]) < 1.4 * least


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_few_blocks_wait_at_a_time(compression):
    class Counting(ThreadPoolExecutor):
        most, futures = 0, ()

        def submit(self, *arguments):
            future = super().submit(*arguments)
            self.futures = (*(one for one in self.futures if not one.done()), future)
            self.most = max(self.most, len(self.futures))
            return future

    threads = Counting(1)
    compressed(compression, CONTENT * 4, threads)
    assert 1 <= threads.most <= MAX_THREADS


def test_a_worker_that_compresses_nothing_loads_no_library():
    code = "import sys, kitd.packing.worker; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert "kitd.packing.compress" in loaded
    assert not loaded & {"zlib_ng", "zstandard"}
