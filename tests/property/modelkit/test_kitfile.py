"""Kitfiles of any content."""

import json
import math

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kitd.modelkit.config_blob import encode_config, parse_config
from kitd.modelkit.errors import InvalidConfigError, KitfileError
from kitd.modelkit.json_writer import encode_json
from kitd.modelkit.kitfile import (
    Code,
    Dataset,
    Docs,
    Kitfile,
    McpServer,
    Model,
    ModelPart,
    Package,
    Prompt,
    parse_kitfile,
)
from kitd.modelkit.yaml_writer import kitfile_to_yaml

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
AWKWARD = st.text(st.sampled_from(" \n\t:-#'\"[]{},&*!|>?%@`~abc019.\\e+_"), max_size=10) | TEXT
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
# JSON readers make an integer of -0 and lose its sign.
NUMBERS = st.integers(-(2**63), 2**64 - 1) | FLOATS.map(lambda number: number + 0.0)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | AWKWARD,
    lambda inner: (
        st.lists(inner, max_size=4).map(tuple) | st.dictionaries(AWKWARD, inner, max_size=4)
    ),
    max_leaves=12,
)
PARTS = st.builds(ModelPart, name=AWKWARD, path=AWKWARD, license=AWKWARD, type=AWKWARD)
KITFILES = st.builds(
    Kitfile,
    manifest_version=AWKWARD,
    package=st.builds(
        Package, AWKWARD, AWKWARD, AWKWARD, AWKWARD, st.lists(AWKWARD, max_size=2).map(tuple)
    ),
    model=st.none()
    | st.builds(
        Model, name=AWKWARD, parts=st.lists(PARTS, max_size=2).map(tuple), parameters=VALUES
    ),
    code=st.lists(st.builds(Code, path=AWKWARD, license=AWKWARD), max_size=2).map(tuple),
    datasets=st.lists(st.builds(Dataset, remote_path=AWKWARD, parameters=VALUES), max_size=2).map(
        tuple
    ),
    docs=st.lists(st.builds(Docs, path=AWKWARD, description=AWKWARD), max_size=2).map(tuple),
    prompts=st.lists(st.builds(Prompt, name=AWKWARD, path=AWKWARD), max_size=2).map(tuple),
    mcp_servers=st.lists(st.builds(McpServer, name=AWKWARD), max_size=2).map(tuple),
)


def one_line(content: bytes) -> str:
    """Return the message of the error; "" if it has several lines, its beginning if none is due."""
    try:
        parse_kitfile(content)
    except KitfileError as error:
        return "" if "\n" in error.message else error.message
    return "Kitfile:"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_kitfile_or_a_kitfile_error(content):
    assert one_line(content).startswith("Kitfile:")


@given(st.lists(st.sampled_from(
    ["model", "code", "parameters", ": ", "- ", "\n", "\n  ", "{", "}", "[", "]", ",", "&a ", "*a ",
     "<<", "!!int ", "!!binary ", "!x ", "1", "2020-01-01", "~", "'", '"', "|", "? ", "#", "---\n",
     "...", "\t", "%YAML 1.2\n", "\\"]
), max_size=25).map("".join))  # fmt: skip
@settings(max_examples=200)
def test_anything_like_yaml_is_a_kitfile_or_a_kitfile_error(text):
    assert one_line(text.encode()).startswith("Kitfile:")


@given(KITFILES)
@settings(deadline=None)
def test_what_is_written_as_yaml_reads_back_the_same(kitfile):
    text = kitfile_to_yaml(kitfile)
    assert parse_kitfile(text.encode()) == kitfile
    assert list(yaml.compose_all(text, Loader=yaml.SafeLoader))


@given(KITFILES)
def test_a_config_that_was_read_is_written_as_it_was(kitfile):
    """Values may change their type: a float without a fraction is written as an integer."""
    content = encode_config(kitfile)
    assert encode_config(parse_config(content)) == content


@given(st.binary(max_size=100) | VALUES.map(encode_json))
def test_any_bytes_are_a_config_or_a_config_error(content):
    try:
        parse_config(content)
    except InvalidConfigError:
        return


@given(VALUES)
def test_json_is_safe_in_html_and_is_written_as_it_was_read(value):
    content = encode_json(value)
    assert not set(b"<>&") & set(content)
    assert encode_json(json.loads(content)) == content


@given(FLOATS)
def test_a_float_is_the_same_float_when_read(value):
    written = encode_json(value).decode()
    assert float(written) == value
    assert math.copysign(1, float(written)) == math.copysign(1, value)
