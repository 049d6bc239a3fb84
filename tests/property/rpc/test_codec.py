import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kitd.rpc.codec import (
    MAX_DEPTH,
    Batch,
    Decoder,
    Notification,
    Request,
    TooLong,
    Violation,
    parse,
)

LIMIT = 8

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


def lines_of(stream: bytes) -> list[bytes | TooLong]:
    """The lines of a whole stream, by the book."""
    lines: list[bytes | TooLong] = []
    *complete, rest = stream.split(b"\n")
    for line in complete:
        if len(line) > LIMIT:
            return [*lines, TooLong(LIMIT)]
        if line.strip():
            lines.append(line)
    return [*lines, TooLong(LIMIT)] if len(rest) > LIMIT else lines


@given(st.lists(st.lists(st.sampled_from([b"\n", b" ", b"x", b"{"])).map(b"".join)))
def test_any_split_of_a_stream_gives_the_same_lines(pieces):
    decoder = Decoder(LIMIT)
    fed = [item for piece in pieces for item in decoder.feed(piece)]
    assert fed == lines_of(b"".join(pieces))


@given(st.binary() | st.text(alphabet='[]{}",:\\u0d8e1-. ').map(str.encode))
def test_no_bytes_make_parsing_raise(line):
    assert isinstance(parse(line), Request | Notification | Violation | Batch)


@given(JSON)
def test_a_document_is_a_call_or_a_violation_and_every_violation_can_be_answered(document):
    message = parse(json.dumps(document).encode())
    for call in message.calls if isinstance(message, Batch) else [message]:
        assert not isinstance(call, Violation) or msgspec.json.encode(call.error.message)


@given(st.dictionaries(st.text(), JSON), st.integers(-(2**63), 2**63 - 1) | st.text(max_size=256))
def test_what_another_program_encodes_is_what_is_read(params, request_id):
    document = {"jsonrpc": "2.0", "id": request_id, "method": "m", "params": params}
    assert parse(json.dumps(document).encode()) == Request(request_id, "m", params)
    assert parse(msgspec.json.encode(document)) == Request(request_id, "m", params)


@given(st.integers(0, 100), st.integers(0, 100), st.text(alphabet='[{}]\\"', max_size=20))
def test_the_depth_bound_is_exact_whatever_strings_hold(lists, objects, text):
    document: object = text
    for _ in range(lists):
        document = [document]
    for _ in range(objects):
        document = {text: document}
    message = parse(json.dumps(document).encode())
    if isinstance(message, Batch):
        (message,) = message.calls
    assert isinstance(message, Violation)
    assert ("nested deeper" in message.error.message) == (lists + objects > MAX_DEPTH)
