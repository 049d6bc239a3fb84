import json

import msgspec
import pytest

from kitd.rpc.codec import (
    MAX_BATCH,
    MAX_DEPTH,
    Batch,
    Decoder,
    Notification,
    Request,
    TooLong,
    Violation,
    encode_batch,
    encode_error,
    encode_notification,
    encode_result,
    parse,
)
from kitd.rpc.error import MethodNotFoundError, wire_error

CALL = '{"jsonrpc":"2.0","id":1,"method":"m"'


def shape(call):
    """What a message means, comparable: errors by their code."""
    if isinstance(call, Batch):
        return [shape(item) for item in call.calls]
    if isinstance(call, Violation):
        return (call.id, call.error.code)
    return call


SPECIFICATION = [
    (
        '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
        Request(1, "subtract", [42, 23]),
    ),
    (
        '{"jsonrpc":"2.0","method":"subtract","params":{"subtrahend":23,"minuend":42},"id":3}',
        Request(3, "subtract", {"subtrahend": 23, "minuend": 42}),
    ),
    (
        '{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}',
        Notification("update", [1, 2, 3, 4, 5]),
    ),
    ('{"jsonrpc": "2.0", "method": "foobar"}', Notification("foobar", {})),
    ('{"jsonrpc": "2.0", "method": "foobar", "id": "1"}', Request("1", "foobar", {})),
    (
        '{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]',
        (None, "parse_error"),
    ),
    ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', (None, "invalid_request")),
    (
        '[{"jsonrpc":"2.0","method":"sum","params":[1,2,4],"id":"1"},{"jsonrpc":"2.0","method"]',
        (None, "parse_error"),
    ),
    ("[]", (None, "invalid_request")),
    ("[1]", [(None, "invalid_request")]),
    ("[1,2,3]", [(None, "invalid_request")] * 3),
    (
        """
        [{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "get_data", "id": "9"}]
        """,
        [
            Request("1", "sum", [1, 2, 4]),
            Notification("notify_hello", [7]),
            (None, "invalid_request"),
            Request("9", "get_data", {}),
        ],
    ),
]


@pytest.mark.parametrize(("line", "expected"), SPECIFICATION)
def test_reads_the_examples_of_the_specification(line, expected):
    assert shape(parse(line.encode())) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (CALL + "}", Request(1, "m", {})),
        (CALL + "} \r", Request(1, "m", {})),
        ('{"jsonrpc":"2.0","id":"","method":"m"}', Request("", "m", {})),
        ('{"jsonrpc":"2.0","id":0,"method":"m"}', Request(0, "m", {})),
        ('{"jsonrpc":"2.0","id":-9223372036854775808,"method":"m"}', Request(-(2**63), "m", {})),
        ('{"jsonrpc":"2.0","id":null,"method":"m"}', (None, "invalid_request")),
        ('{"jsonrpc":"2.0","id":true,"method":"m"}', (None, "invalid_request")),
        ('{"jsonrpc":"2.0","id":1.5,"method":"m"}', (None, "invalid_request")),
        ('{"jsonrpc":"2.0","id":[],"method":"m"}', (None, "invalid_request")),
        ('{"jsonrpc":"2.0","id":"%s","method":"m"}' % ("x" * 257), (None, "invalid_request")),
        ('{"jsonrpc":"1.0","id":1,"method":"m"}', (1, "invalid_request")),
        ('{"id":1,"method":"m"}', (1, "invalid_request")),
        ('{"jsonrpc":"2.0","id":1}', (1, "invalid_request")),
        ('{"jsonrpc":"2.0","id":1,"method":""}', (1, "invalid_request")),
        ('{"jsonrpc":"2.0","id":1,"method":null}', (1, "invalid_request")),
        ('{"jsonrpc":"2.0","id":1,"result":{}}', (1, "invalid_request")),
        (CALL + ',"params":"x"}', (1, "invalid_request")),
        (CALL + ',"params":null}', (1, "invalid_request")),
        (CALL + ',"parms":{}}', (1, "invalid_request")),
        (CALL + ',"id":2}', (None, "parse_error")),
        (CALL + ',"params":{"a":{"b":1,"b":2}}}', (None, "parse_error")),
        (CALL + ',"params":{"a":NaN}}', (None, "parse_error")),
        (CALL + ',"params":{"a":-Infinity}}', (None, "parse_error")),
        (CALL + ',"params":{"a":1e999}}', (None, "parse_error")),
        (CALL + ',"params":{"a":9223372036854775808}}', (None, "parse_error")),
        (CALL + ',"params":{"a":' + "9" * 5000 + "}}", (None, "parse_error")),
        (CALL + ',"params":{"a":"\\ud800"}}', (None, "parse_error")),
        (CALL + ',"params":{"a":"\\ud83d\\ude00"}}', Request(1, "m", {"a": "😀"})),
        (CALL + "} {}", (None, "parse_error")),
        ("\ufeff" + CALL + "}", (None, "parse_error")),
        ("[" + ",".join([CALL + "}"] * (MAX_BATCH + 1)) + "]", (None, "invalid_request")),
        ("[[]]", [(None, "invalid_request")]),
        ('"text"', (None, "invalid_request")),
    ],
)
def test_is_strict_where_leniency_would_hide_a_mistake(line, expected):
    assert shape(parse(line.encode())) == expected


@pytest.mark.parametrize("line", [b"\xff", b'{"a":"\xc3("}', "{}".encode("utf-16"), b'"\x01"'])
def test_refuses_what_is_not_utf8_json(line):
    assert shape(parse(line)) == (None, "parse_error")


def nested(levels: int, opening: str = "[", closing: str = "]") -> bytes:
    # The call's own object and params object are two levels.
    inner = opening * (levels - 2) + closing * (levels - 2)
    return f'{CALL},"params":{{"a":{inner}}}}}'.encode()


def test_takes_the_deepest_nesting_and_no_deeper():
    assert isinstance(parse(nested(MAX_DEPTH)), Request)
    deeper = parse(nested(MAX_DEPTH + 1))
    assert isinstance(deeper, Violation)
    assert "nested deeper" in deeper.error.message


@pytest.mark.parametrize("line", [b"[" * 1_000_000, b'{"a":' * 200_000, b"[{" * 500_000])
def test_unclosed_nesting_does_not_exhaust_the_stack(line):
    assert shape(parse(line)) == (None, "parse_error")


def test_brackets_in_strings_are_not_nesting():
    text = '\\"' + "[{" * 100 + "\\\\"
    assert isinstance(parse((CALL + ',"params":{"a":"' + text + '","b":[]}}').encode()), Request)


def test_a_flat_line_of_many_brackets_is_not_deep():
    line = CALL + ',"params":{"a":[' + ",".join(["{}"] * 1000) + "]}}"
    assert isinstance(parse(line.encode()), Request)


def test_cuts_lines_and_skips_blank_ones():
    decoder = Decoder()
    assert decoder.feed(b"one\n\n \r\ntw") == (b"one",)
    assert decoder.feed(b"o\nthree") == (b"two",)
    assert decoder.feed(b"\n") == (b"three",)


@pytest.mark.parametrize("end", [b"", b"\n", b"\nnext\n"])
def test_a_line_beyond_the_limit_ends_the_stream(end):
    decoder = Decoder(4)
    assert decoder.feed(b"1234\n12345" + end) == (b"1234", TooLong(4))
    assert decoder.feed(b"\nfine\n") == ()


def test_a_line_of_exactly_the_limit_is_read():
    decoder = Decoder(4)
    assert decoder.feed(b"1234") == ()
    assert decoder.feed(b"\n") == (b"1234",)


def test_encodes_compact_lines():
    error = wire_error(MethodNotFoundError("there is no method 'x'", hint="look"))
    assert encode_result("a", {"text": "ä\n"}) == (
        '{"jsonrpc":"2.0","id":"a","result":{"text":"ä\\n"}}'.encode()
    )
    assert json.loads(encode_error(None, error)) == {
        "jsonrpc": "2.0",
        "id": None,
        "error": {
            "code": -32601,
            "message": "there is no method 'x'",
            "data": {
                "code": "method_not_found",
                "retryable": False,
                "retry_after_ms": None,
                "hint": "look",
            },
        },
    }
    assert encode_notification("n", {}) == b'{"jsonrpc":"2.0","method":"n","params":{}}'
    assert encode_batch([b"1", b"2"]) == b"[1,2]"


def test_a_message_is_one_line_whatever_it_is_given_raw():
    with pytest.raises(ValueError, match="more than one line"):
        encode_result(1, msgspec.Raw(b'{"a":\n1}'))
    assert encode_result(1, {"a": "\n"}).count(b"\n") == 0
