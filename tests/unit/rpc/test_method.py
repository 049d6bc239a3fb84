import msgspec
import pytest

from kitd.rpc.error import InvalidParamsError
from kitd.rpc.method import Context, Params, Reply, method
from kitd.rpc.openrpc import openrpc_document
from kitd.rpc.peer import Access, Peer, Role


class Span(Params, frozen=True):
    start: int
    words: tuple[str, ...] = ()


class Length(msgspec.Struct, frozen=True):
    length: int
    extra: dict[str, object] | None = None


async def measure(context: Context[str], params: Span) -> Length:
    """Measure a span.

    Not part of the summary.
    """
    return Length(params.start + len(params.words))


async def attach(context: Context[str], params: Span) -> Reply[Length]:
    """Attach something."""
    return Reply(Length(0), after=list)


MEASURE = method("spans.measure", Role.READ, Span, Length, measure)
ATTACH = method("spans.attach", Role.SUBMIT, Span, Length, attach, alone=True)


@pytest.fixture
def context():
    return Context(Peer(1, 0, frozenset()), Access(Role.READ), None, "services")


async def test_parameters_reach_the_handler_typed(context):
    reply = await MEASURE.call(context, {"start": 2, "words": ["a"]})
    assert reply == Reply(Length(3))


async def test_a_reply_is_handed_on_as_it_is(context):
    assert (await ATTACH.call(context, {"start": 2})).after is list


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({}, "start"),
        ({"start": "2"}, r"\$\.start"),
        ({"start": True}, r"\$\.start"),
        ({"start": 1, "words": ["a", 1]}, r"\$\.words\[1\]"),
        ({"start": 2, "wrods": []}, "wrods"),
        ([2], "object"),
    ],
)
async def test_wrong_parameters_are_named_by_their_path(context, params, path):
    with pytest.raises(InvalidParamsError, match="spans.measure: .*" + path):
        await MEASURE.call(context, params)


def test_the_openrpc_document_describes_the_methods():
    described = msgspec.json.decode(
        msgspec.json.encode(openrpc_document((MEASURE, ATTACH), version="1.2.3"))
    )
    assert described["openrpc"].startswith("1.3")
    assert described["info"] == {"title": "kitd", "version": "1.2.3"}
    first, second = described["methods"]
    assert first == {
        "name": "spans.measure",
        "summary": "Measure a span.",
        "paramStructure": "by-name",
        "params": [
            {"name": "start", "required": True, "schema": {"type": "integer"}},
            {
                "name": "words",
                "required": False,
                "schema": {"type": "array", "items": {"type": "string"}},
            },
        ],
        "result": {"name": "result", "schema": {"$ref": "#/components/schemas/Length"}},
        "x-role": "read",
    }
    assert (second["name"], second["x-role"]) == ("spans.attach", "submit")
    assert described["components"]["schemas"]["Length"]["required"] == ["length"]
