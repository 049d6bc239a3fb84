"""Whatever the pieces that are written, the sinks get the same bytes."""

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from kitd.store.buffer_ring import BUFFER_BYTES, BufferRing

EDGES = (0, 1, 511, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, 3 * BUFFER_BYTES)
PIECES = st.lists(
    st.tuples(st.booleans(), st.sampled_from(EDGES) | st.integers(0, 5000)), max_size=9
)


@settings(max_examples=60)
@given(PIECES)
def test_any_mix_of_writing_and_filling_comes_out_as_it_went_in(pieces):
    expected, hashed, sizes = hashlib.sha256(), hashlib.sha256(), []
    with BufferRing(hashed.update, lambda data: sizes.append(len(data))) as ring:
        for number, (is_fill, size) in enumerate(pieces):
            content = bytes([number + 1]) * size
            expected.update(content)
            if is_fill:
                while content:
                    room = ring.room()[: len(content)]
                    room[:] = content[: len(room)]
                    content = content[len(room) :]
                    ring.fill(len(room))
            else:
                ring.write(content)
        ring.drain()
    assert hashed.digest() == expected.digest()
    assert sum(sizes) == sum(size for _, size in pieces)
    assert set(sizes[:-1]) <= {BUFFER_BYTES}
