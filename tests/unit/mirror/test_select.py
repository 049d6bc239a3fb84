import pytest

from kitd.mirror.order import Selection
from kitd.mirror.select import (
    InvalidPatternError,
    admits,
    needs_ages,
    parse_tag_glob,
    parse_tag_regex,
    select,
)

NOW_US = 1_000_000_000_000
HEX = "0123456789abcdef" * 4
DAY_US = 86_400_000_000


@pytest.mark.parametrize(
    ("selection", "inside", "outside"),
    [
        (Selection(), "latest v1 A_b", ""),
        (Selection(include=("v*", "latest")), "v v1 latest", "V1 av latest2"),
        (Selection(include=("v?", "[ab]c", "[!d]e")), "v1 ac xe", "v v12 cc de"),
        (Selection(exclude=("*-dev", "tmp*")), "v1", "v1-dev tmp tmp1"),
        (Selection(include=("v1*",), exclude=("v1*",)), "", "v1 v12"),
        (Selection(include=()), "", "latest"),
        (Selection(regex="v[0-9]+"), "v1 v20", "av1 v1a v"),
        (Selection(regex="a|bc"), "a bc", "abc ac"),
        (Selection(semver="^1.2"), "1.2 v1.9.9 1.3.0", "1.1 2.0.0 latest 1.3.0-rc.1"),
        (Selection(semver="1.x", include=("v*",), exclude=("*.1",)), "v1.2", "1.2 v1.1 v2"),
    ],
)
def test_a_tag_passes_everything_that_is_given(selection, inside, outside):
    assert all(admits(selection, tag) for tag in inside.split())
    assert not any(admits(selection, tag) for tag in outside.split())


@pytest.mark.parametrize(
    "tag", [f"sha256-{HEX}", *(f"sha256-{HEX}.{end}" for end in ("sig", "att", "sbom"))]
)
def test_a_digest_tag_is_never_meant_by_itself(tag):
    assert not admits(Selection(include=(tag,)), tag)
    assert select(Selection(), {tag: 1, "latest": 2}, NOW_US) == ("latest",)


@pytest.mark.parametrize(
    "tag",
    ["sha256", f"sha256-{HEX[1:]}", f"sha256-{HEX}-sig", f"md5-{HEX}", f"sha256-{HEX.upper()}"],
)
def test_what_only_looks_like_a_digest_tag_is_a_name(tag):
    assert admits(Selection(), tag)


def test_what_is_too_long_for_a_tag_never_meets_an_expression():
    assert not admits(Selection(regex="(a|a)*b"), "a" * 129)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), False),
        (Selection(semver="1.x", newest=3), False),
        (Selection(newest=3), True),
        (Selection(max_age_s=60.0), True),
        (Selection(semver="1.x", max_age_s=60.0), True),
    ],
)
def test_ages_are_asked_for_where_they_count(selection, expected):
    assert needs_ages(selection) is expected


@pytest.mark.parametrize(
    ("selection", "tags", "expected"),
    [
        (Selection(), {}, ()),
        (Selection(), {"b": None, "a": None}, ("a", "b")),
        (Selection(newest=2), {"a": 1, "b": 3, "c": 2}, ("b", "c")),
        (Selection(newest=2), {"c": 1, "b": 1, "a": 1}, ("a", "b")),
        (Selection(newest=2), {"a": None, "b": -5, "c": None}, ("b", "a")),
        (Selection(newest=1, exclude=("b",)), {"a": 1, "b": 3}, ("a",)),
        (Selection(semver="*", newest=2), {"1.9": 9, "1.10": 1, "1.2": 5}, ("1.10", "1.9")),
        (Selection(semver="*", newest=2), {"v1.2": 1, "1.2.0": 2, "1.2": 3}, ("1.2", "1.2.0")),
        (Selection(newest=5, semver="1.x"), {"1.2": None, "2.0": None}, ("1.2",)),
        (
            Selection(max_age_s=86_400.0),
            {"edge": NOW_US - DAY_US, "old": NOW_US - DAY_US - 1, "?": None, "soon": NOW_US + 1},
            ("soon", "edge"),
        ),
        (
            Selection(max_age_s=86_400.0, semver="*", newest=1),
            {"2.0.0": NOW_US - 2 * DAY_US, "1.0.0": NOW_US},
            ("1.0.0",),
        ),
    ],
)
def test_the_newest_come_first(selection, tags, expected):
    assert select(selection, tags, NOW_US) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(", "missing ), unterminated subpattern at character 1"),
        ("v[0-9", "unterminated character set at character 2"),
        ("a**", "multiple repeat at character 3"),
        ("a{99999999999999}", "the repetition number is too large"),
        ("[[a]", "Possible nested set at position 1"),
    ],
)
def test_an_expression_that_cannot_be_read_says_where(text, message):
    with pytest.raises(InvalidPatternError) as caught:
        parse_tag_regex(text)
    assert caught.value.message == f"not a regular expression: {message}"


def test_an_expression_is_bounded():
    assert parse_tag_regex("a" * 256)
    with pytest.raises(InvalidPatternError, match="at most 256 characters"):
        parse_tag_regex("a" * 257)


@pytest.mark.parametrize("text", ["", "v1:2", "a b", "a/b", "é*", "*\n", "*" * 257])
def test_what_is_no_glob_of_tags_is_refused(text):
    with pytest.raises(InvalidPatternError):
        parse_tag_glob(text)
