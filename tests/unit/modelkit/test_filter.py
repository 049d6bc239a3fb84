"""The filters of unpack and list."""

import pytest

from kitd.modelkit.errors import InvalidFilterError
from kitd.modelkit.filter import Filter, FilterType, parse_filter, selection, selects_kitfile
from kitd.modelkit.kitfile import layer_entries, parse_kitfile

KITFILE = b"""\
model: {name: m, path: ./model, parts: [{name: tok, path: tok.json}]}
code: [{path: src}]
datasets: [{name: train, path: data/train}, {name: test, path: data/test}]
docs: [{path: ./README.md}]
prompts: [{name: agent, path: AGENTS.md}]
mcpServers: [{name: tools, path: t.mcpb}]
"""


def taken(*filters: str) -> list[str]:
    parsed = [parse_filter(text) for text in filters]
    places = layer_entries(parse_kitfile(KITFILE))
    return [place.entry.path for place in places if selection(parsed)(place)]


@pytest.mark.parametrize(
    ("filters", "paths"),
    [
        (["model"], ["./model", "tok.json"]),
        (["model:tok"], ["tok.json"]),
        (["datasets:train,data/test"], ["data/train", "data/test"]),
        (["docs:README.md"], []),
        (["docs:./README.md"], ["./README.md"]),
        (["code,docs"], ["src", "./README.md"]),
        (["model,datasets:m,test"], ["./model", "data/test"]),
        (["model:m", "code"], ["./model", "src"]),
        (["model:m,docs"], ["./model"]),
        (["prompts", "mcpservers:tools"], ["AGENTS.md", "t.mcpb"]),
        (["kitfile"], []),
    ],
)
def test_types_and_names_within_a_filter_alternatives_between(filters, paths):
    assert taken(*filters) == paths


def test_no_filter_takes_everything():
    assert len(taken()) == 8
    assert selects_kitfile([])


def test_the_kitfile_is_taken_only_where_it_is_named():
    assert selects_kitfile([parse_filter("model"), parse_filter("kitfile:x")])
    assert not selects_kitfile([parse_filter("model")])


def test_a_filter_is_types_and_names():
    assert parse_filter("code,docs:a,b") == Filter(
        frozenset({FilterType.CODE, FilterType.DOCS}), frozenset({"a", "b"})
    )


@pytest.mark.parametrize(
    "text", ["", ":x", "model,", "Model", "dataset", "model:a:b", "model:", "model:a,", "m" * 5000]
)
def test_what_is_no_filter_is_refused(text):
    with pytest.raises(InvalidFilterError):
        parse_filter(text)
