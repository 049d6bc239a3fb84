import itertools

import pytest

from kitd.mirror.semver import (
    MAX_RANGE,
    InvalidRangeError,
    Version,
    parse_range,
    parse_version,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.2.3", Version((1, 2, 3))),
        ("v1.2.3", Version((1, 2, 3))),
        ("V1.2.3", Version((1, 2, 3))),
        ("1.2", Version((1, 2, 0))),
        ("v1", Version((1, 0, 0))),
        ("0.0.0", Version((0, 0, 0))),
        ("1.2.3-rc.1", Version((1, 2, 3), ("rc", 1))),
        ("1.2.3-0a.00b.--", Version((1, 2, 3), ("0a", "00b", "--"))),
        ("1.2.3+build.007", Version((1, 2, 3))),
        ("1.2.3-rc.1+x", Version((1, 2, 3), ("rc", 1))),
        ("1.2-cuda12", Version((1, 2, 0), ("cuda12",))),
        ("20240105", Version((20240105, 0, 0))),
    ],
)
def test_a_tag_names_a_version(text, expected):
    assert parse_version(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "v", "latest", "1.", "1.2.3.4", "01.2", "1.02.3", "1.2.3-", "1.2.3-01", "1.2.3-a..b",
     "1.2.3+", "1.2.3_4", "-1.2", " 1.2", "1.2\n", "1.x", "\u0661.2.3", "1" * 257],
)  # fmt: skip
def test_other_tags_name_none(text):
    assert parse_version(text) is None


def test_precedence_is_that_of_the_specification():
    """The examples of sections 9 and 11, each lower than the next."""
    ascending = [
        "0.9.9", "1.0.0-0", "1.0.0-1", "1.0.0-10", "1.0.0-alpha", "1.0.0-alpha.1",
        "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0",
        "1.0.1", "1.9.0", "1.10.0", "2.0.0", "2.1.0", "2.1.1",
    ]  # fmt: skip
    for lower, higher in itertools.pairwise(map(parse_version, ascending)):
        assert lower.precedence < higher.precedence


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("*", "0.0.0 9.9.9", "1.0.0-rc.1"),
        ("1.2.3", "1.2.3 v1.2.3+x", "1.2.2 1.2.4 1.2.3-rc"),
        ("=1.2.3", "1.2.3", "1.2.4"),
        ("v1.2", "1.2.0 1.2.9", "1.1.9 1.3.0"),
        ("1.x", "1.0.0 1.9.9", "0.9.9 2.0.0 2.0.0-0"),
        ("1.2.*", "1.2.0 1.2.9", "1.3.0"),
        ("1.X.x", "1.9", "2.0.0"),
        (">=1.2 <2", "1.2.0 1.99.0", "1.1.9 2.0.0 2.0.0-rc.1 1.5.0-rc.1"),
        (">= 1.2  <  2", "1.2.0", "2.0.0"),
        (">1", "2.0.0", "1.0.0 1.9.9"),
        (">1.2", "1.3.0", "1.2.0 1.2.9"),
        (">1.2.3", "1.2.4", "1.2.3"),
        ("<=1.2", "1.2.9", "1.3.0"),
        ("<=1.2.3", "1.2.3", "1.2.4"),
        ("<1.2", "1.1.9", "1.2.0 1.2.0-rc"),
        ("<*", "", "0.0.0 0.0.0-0 1.0.0"),
        (">=*", "0.0.0", "1.0.0-rc"),
        ("^1.2.3", "1.2.3 1.9.0", "1.2.2 2.0.0 2.0.0-0 1.3.0-rc.1"),
        ("^0.2.3", "0.2.3 0.2.9", "0.3.0 0.2.2"),
        ("^0.0.3", "0.0.3", "0.0.4 0.0.2"),
        ("^0.0.0", "0.0.0", "0.0.1"),
        ("^0.0", "0.0.0 0.0.9", "0.1.0"),
        ("^0.x", "0.0.0 0.9.9", "1.0.0"),
        ("^1.x", "1.0.0 1.9.9", "2.0.0"),
        ("^1.2.3-beta.2", "1.2.3-beta.2 1.2.3-rc 1.2.3 1.9.0", "1.2.3-beta.1 1.2.4-beta.2 2.0.0"),
        ("~1.2.3", "1.2.3 1.2.9", "1.3.0 1.2.2"),
        ("~> 1.2", "1.2.0 1.2.9", "1.3.0"),
        ("~1", "1.0.0 1.9.9", "2.0.0"),
        ("~0", "0.9.9", "1.0.0"),
        ("~1.2.3-beta.2", "1.2.3-beta.4 1.2.9", "1.2.4-beta.2"),
        ("1.2.3 - 2.3.4", "1.2.3 2.3.4", "1.2.2 2.3.5"),
        ("1.2 - 2.3.4", "1.2.0", "1.1.9"),
        ("1.2.3 - 2.3", "2.3.9", "2.4.0"),
        ("1.2.3 - 2", "2.9.9", "3.0.0"),
        ("* - 2", "0.0.1 2.9", "3.0.0"),
        ("1.x || >=2.5.0 || 5.0.0 - 7.2.3", "1.2.3 2.5.0 6.0.0", "2.4.9"),
        (">1.2.3-alpha.3", "1.2.3-alpha.7 3.4.5", "3.4.5-alpha.9 1.2.3-alpha.2"),
        (">=1.0.0-rc.1 <1.0.0", "1.0.0-rc.2", "1.0.0 1.0.1"),
    ],
)  # fmt: skip
def test_ranges_are_those_of_npm(text, inside, outside):
    found = parse_range(text)
    assert all(found.admits(parse_version(version)) for version in inside.split())
    assert not any(found.admits(parse_version(version)) for version in outside.split())


@pytest.mark.parametrize(
    "text",
    ["", " ", "||", "1 ||", "latest", "1.2.3.4", ">", "=>1", ">=1.2,<2", "1 -2", ">1 - 2", "^^1",
     "1 - ^2", "01.2", "x.1", "1.x.3", "1.2-rc", "1.x-rc", "1.2.3-", "!1", ">=1\n2.y"],
)  # fmt: skip
def test_what_is_no_range_is_refused(text):
    with pytest.raises(InvalidRangeError):
        parse_range(text)


def test_a_range_is_bounded():
    longest = "||".join(["1.2"] * 51) + "||"
    assert parse_range(f"{longest}1")
    with pytest.raises(InvalidRangeError, match="at most 256 characters"):
        parse_range("1" * (MAX_RANGE + 1))
