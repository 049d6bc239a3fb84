import pytest

from kitd.content.store import MismatchError
from kitd.content.stream import Counted, Portion, direct


async def stream(*chunks):
    for chunk in chunks:
        yield chunk


@pytest.mark.parametrize("chunks", [(b"abcdef",), (b"ab", b"cd", b"ef"), (b"abc", b"", b"def")])
@pytest.mark.parametrize("count", range(7))
async def test_a_portion_has_exactly_the_bytes_asked_for(chunks, count):
    portion = [bytes(chunk) async for chunk in Portion(stream(*chunks), count)]
    assert b"".join(portion) == b"abcdef"[:count]


async def test_a_source_that_is_too_short_is_an_error():
    with pytest.raises(MismatchError):
        _ = [chunk async for chunk in Portion(stream(b"abc"), 4)]


async def test_a_chunk_counts_once_more_is_asked_for():
    counts = []
    counted = Counted(stream(b"ab", b"cde"), counts.append)
    assert await anext(counted) == b"ab"
    assert counts == []
    assert await anext(counted) == b"cde"
    assert counts == [2]
    assert await anext(counted, None) is None
    assert counts == [2, 3]


async def test_a_stream_of_chunks_knows_no_shorter_way():
    counts = []
    counted = Counted(Portion(stream(b"ab"), 2), counts.append)
    assert direct(counted).sendable == 0
    assert await counted.receive_into(None, 10) is None
    assert [bytes(chunk) async for chunk in counted] == [b"ab"]
    assert counts == [2]
