"""Headers of any entry can be read by another implementation."""

import io
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from kitd.modelkit.tar import BLOCK, TRAILER, header, padding

ELEMENTS = st.binary(min_size=1, max_size=160).filter(
    lambda element: element not in {b".", b".."} and not set(b"/\0") & set(element)
)
ASCII = st.text(st.sampled_from("abc.-_ "), min_size=1, max_size=120).map(str.encode)
PATHS = st.lists(ELEMENTS | ASCII, min_size=1, max_size=4).map(b"/".join)


@given(PATHS, st.integers(0, 0o7777), st.integers(0, 2**40), st.booleans())
def test_name_mode_size_and_kind_come_back(path, mode, size, is_dir):
    size = 0 if is_dir else size
    block = header(path, mode, size, is_dir=is_dir)
    assert len(block) % BLOCK == 0
    with tarfile.open(fileobj=io.BytesIO(block + TRAILER)) as archive:
        member = archive.next()
    assert member.name.encode("utf-8", "surrogateescape") == path
    assert (member.mode, member.size, member.isdir()) == (mode, size, is_dir)
    assert (size + len(padding(size))) % BLOCK == 0
