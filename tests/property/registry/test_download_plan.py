"""The segments of a download, whoever reads how fast."""

from hypothesis import given
from hypothesis import strategies as st

from kitd.registry.download_plan import SEGMENT_BYTES, Lookahead


@given(
    size=st.integers(1, 40 * SEGMENT_BYTES),
    steps=st.lists(
        st.tuples(st.integers(0, 3 * SEGMENT_BYTES), st.integers(0, 8)), min_size=1, max_size=40
    ),
)
def test_segments_are_in_order_apart_and_ahead_of_the_reader(size, steps):
    lookahead, position, planned = Lookahead(size), 0, 0
    for progress, wanted in steps:
        position = min(size, position + progress)
        for _ in range(wanted):
            segment = lookahead.next(position)
            # Asking is not taking.
            assert segment == lookahead.next(position)
            if segment is None:
                assert max(planned, position + SEGMENT_BYTES) >= size
                break
            assert segment.start >= planned
            assert segment.start >= position + SEGMENT_BYTES
            assert 0 < segment.size <= SEGMENT_BYTES
            assert segment.end <= size
            assert segment.size == SEGMENT_BYTES or segment.end == size
            lookahead.begin(segment)
            planned = segment.end
