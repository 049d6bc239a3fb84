"""Ignore rules against a literal, slow reading of the same patterns; any bytes; any walk."""

import contextlib
import re

from hypothesis import given, reject, settings
from hypothesis import strategies as st

from kitd.modelkit import ignore
from kitd.modelkit.dialect import Dialect
from kitd.modelkit.errors import KitignoreError
from kitd.modelkit.ignore import IgnoreRules
from kitd.modelkit.ignore_automaton import automaton_for
from kitd.modelkit.kitfile import parse_kitfile
from kitd.modelkit.plan import select

PIECES = st.sampled_from(["a", "b", "ab", "*", "?", "*a", "b*", "*b*", "*a*b*"])
PATTERNS = st.lists(
    st.tuples(st.booleans(), st.lists(PIECES | st.just("**"), min_size=1, max_size=3)),
    max_size=4,
)
ELEMENTS = st.sampled_from([b"a", b"b", b"ab", b"ba", b"aab", b"abb", b"c"])
PATHS = st.lists(ELEMENTS, min_size=1, max_size=5).map(b"/".join)


def element_matches(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(element_matches(pattern[1:], text[skip:]) for skip in range(len(text) + 1))
    return bool(text) and pattern[0] in {"?", text[0]} and element_matches(pattern[1:], text[1:])


def path_matches(pattern: list[str], path: list[str]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        if len(pattern) == 1:
            return bool(path)
        return any(path_matches(pattern[1:], path[skip:]) for skip in range(len(path) + 1))
    return (
        bool(path) and element_matches(pattern[0], path[0]) and path_matches(pattern[1:], path[1:])
    )


def is_ignored(patterns: list[tuple[bool, list[str]]], path: str) -> bool:
    elements, ignored = path.split("/"), False
    for exception, pattern in patterns:
        prefixes = (elements[:length] for length in range(1, len(elements) + 1))
        if any(path_matches(pattern, prefix) for prefix in prefixes):
            ignored = not exception
    return ignored


@given(PATTERNS, st.lists(PATHS, min_size=1, max_size=8))
@settings(max_examples=200)
def test_rules_agree_with_a_literal_reading(patterns, paths):
    lines = ("!" * exception + "/".join(pattern) for exception, pattern in patterns)
    rules = IgnoreRules.parse("\n".join(lines).encode())
    for path in paths:
        assert rules.matches(path) == is_ignored(patterns, path.decode()), path


MESSY = st.lists(
    st.sampled_from(["**", "*", "**/", "/", "a", "b", "?", "[ab]", "[^a]", "\\\\n", "."]),
    min_size=2,
    max_size=9,
).map("".join)


@given(MESSY, st.lists(st.text("ab/.\n", min_size=1, max_size=12), min_size=1, max_size=6))
@settings(max_examples=500)
def test_an_automaton_is_the_regular_expression_that_it_stands_for(pattern, paths):
    try:
        tokens = list(ignore._tokens(pattern))
    except ValueError:
        reject()
    expression = re.compile("".join(ignore._pieces(tokens)))
    automaton = automaton_for(tokens)
    for path in paths:
        assert automaton.matches(path) == (expression.fullmatch(path) is not None), path


@given(st.binary(max_size=60), PATHS)
def test_any_bytes_are_rules_or_an_error(content, path):
    with contextlib.suppress(KitignoreError):
        IgnoreRules.parse(content).matches(path)


@given(PATTERNS, st.sets(PATHS, min_size=1, max_size=5), st.lists(PATHS, max_size=12))
def test_a_walks_order_changes_no_decision(patterns, layers, paths):
    """Every file lands in the deepest layer around it, or in none if it is ignored."""
    listed = ", ".join(f"{{path: {layer.decode()}}}" for layer in sorted(layers))
    kitfile = parse_kitfile(f"code: [{listed}, {{path: .}}]".encode())
    lines = ("!" * exception + "/".join(pattern) for exception, pattern in patterns)
    rules = IgnoreRules.parse("\n".join(lines).encode())
    roots = [*sorted(layers), b"."]
    walk = select(kitfile, rules, Dialect.CURRENT)
    for path in paths:
        around = [root for root in roots if path == root or path.startswith(root + b"/")]
        deepest = max(around, key=len, default=b".")
        expected = () if rules.matches(path) else (roots.index(deepest),)
        assert walk.layers_of(path, is_dir=False) == expected
        if expected:
            parents = path.split(b"/")[:-1]
            assert all(
                walk.enter(b"/".join(parents[:depth])) for depth in range(1, len(parents) + 1)
            )
