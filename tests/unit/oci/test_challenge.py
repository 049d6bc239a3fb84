"""WWW-Authenticate headers, several challenges to one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitd.oci.challenge import MAX_HEADER, parse_challenges

BEARER = (
    'Bearer realm="https://auth.example.com/token",service="registry",scope="repository:a:pull"'
)
BEARER_PARAMETERS = {
    "realm": "https://auth.example.com/token",
    "service": "registry",
    "scope": "repository:a:pull",
}


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        ("", []),
        ("   , ,", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        ("basic REALM=x", [("basic", {"realm": "x"})]),
        ('BASIC realm = "x"', [("basic", {"realm": "x"})]),
        (BEARER, [("bearer", BEARER_PARAMETERS)]),
        (BEARER.replace(",", " ,\t"), [("bearer", BEARER_PARAMETERS)]),
        (f'{BEARER}, Basic realm="x"', [("bearer", BEARER_PARAMETERS), ("basic", {"realm": "x"})]),
        (f'Basic realm="x", {BEARER}', [("basic", {"realm": "x"}), ("bearer", BEARER_PARAMETERS)]),
        (f"Basic,{BEARER}", [("basic", {}), ("bearer", BEARER_PARAMETERS)]),
        ("Basic, Negotiate", [("basic", {}), ("negotiate", {})]),
        (
            'Bearer scope="repository:a:pull,push"',
            [("bearer", {"scope": "repository:a:pull,push"})],
        ),
        (r'Basic realm="a \"b\" \\ c"', [("basic", {"realm": r'a "b" \ c'})]),
        ('Basic realm="Basic realm=y, z"', [("basic", {"realm": "Basic realm=y, z"})]),
        ('Basic realm=""', [("basic", {"realm": ""})]),
        ('Basic realm="x",', [("basic", {"realm": "x"})]),
        ('Basic realm="x", realm="y"', [("basic", {"realm": "x"})]),
        (
            'Negotiate dG9rZW4=, Basic realm="x"',
            [("negotiate", {}), ("basic", {"realm": "x"})],
        ),
        ('Negotiate dG9r==,Basic realm="x"', [("negotiate", {}), ("basic", {"realm": "x"})]),
        ('Bearer error="invalid_token"', [("bearer", {"error": "invalid_token"})]),
    ],
)
def test_challenges_in_their_order(header, challenges):
    found = [(one.scheme, dict(one.parameters)) for one in parse_challenges(header)]
    assert found == challenges


@pytest.mark.parametrize(
    ("header", "schemes"),
    [
        ('realm="x"', []),
        ('"Basic"', []),
        ("<html>", []),
        ("Bäsic", []),
        ('Basic realm="x" "', ["basic"]),
        ('Basic realm="unfinished', ["basic"]),
        ('Basic realm="x"; Bearer realm="y"', ["basic"]),
        ("Basic =x", ["basic"]),
        ("Basic \x00", ["basic"]),
    ],
)
def test_what_cannot_be_read_ends_the_list(header, schemes):
    assert [one.scheme for one in parse_challenges(header)] == schemes


def test_an_endless_header_is_cut():
    header = "Basic," * MAX_HEADER
    assert len(parse_challenges(header)) <= MAX_HEADER // len("Basic,") + 1


@given(st.text() | st.text(alphabet='Basic="\\, \t=~+/', max_size=60))
def test_no_text_raises(header):
    for challenge in parse_challenges(header):
        assert challenge.scheme == challenge.scheme.lower()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["basic", "bearer", "x-scheme"]),
            st.dictionaries(
                st.sampled_from(["realm", "service", "scope", "error"]),
                st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20),
                min_size=1,
            ),
        )
    )
)
def test_what_is_written_by_the_grammar_is_read_back(challenges):
    def quote(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quote(value)}" for name, value in parameters.items())
        for scheme, parameters in challenges
    )
    assert [(one.scheme, one.parameters) for one in parse_challenges(header)] == challenges
