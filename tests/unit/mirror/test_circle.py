import pytest

from kitd.mirror.circle import Circle, Routes
from kitd.mirror.order import TargetOrder
from kitd.mirror.route import Route
from kitd.oci.reference import parse_repository


def routes(**given):
    """`name="source repositories,or-nothing target"`; a target may end in `#<template of tags>`."""
    found = {}
    for name, text in given.items():
        source, repositories, target = text.split(" ")
        repository, _, tag = target.partition("#")
        globs = tuple(repositories.split(",")) if repositories != "-" else ()
        target = TargetOrder(repository=repository, tag=tag or "{tag}")
        found[name] = Route(source, globs, (target,))
    return Routes(found)


def circles(known):
    return {leg.route: circle for leg in known.legs() if (circle := known.circle(leg))}


@pytest.mark.parametrize(
    "given",
    [
        {"a": "a.io/x - b.io/x"},
        {"a": "a.io/x - b.io/x", "b": "b.io/x - c.io/x", "c": "a.io/x - c.io/x"},
        # Copies both ways, along a line and around a centre.
        {"a": "a.io/x - b.io/x", "b": "b.io/x - a.io/x"},
        {"a": "a.io/t * b.io/t", "b": "b.io/t * a.io/t"},
        {"a": "a.io/t * b.io/t", "b": "b.io/t bert-* a.io/t"},
        {
            "ab": "a.io/x - b.io/x",
            "ba": "b.io/x - a.io/x",
            "bc": "b.io/x - c.io/x",
            "cb": "c.io/x - b.io/x",
            "bd": "b.io/x - d.io/x",
            "db": "d.io/x - b.io/x",
        },
        # Below the prefix, but not among its repositories.
        {"a": "a.io/t * a.io/t/backup"},
        {"a": "a.io/t x a.io/t/backup"},
        {"a": "a.io/t bert-* a.io/t/copy-{name}"},
        # Round once, and out of what is carried.
        {"a": "a.io ** b.io", "b": "b.io/u * a.io/v"},
    ],
)
def test_what_ends_somewhere_is_no_circle(given):
    assert circles(routes(**given)) == {}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"a": "a.io/x - a.io/x"}, {"a": ("a",)}),
        ({"a": "a.io/x - A.io/x"}, {"a": ("a",)}),
        ({"a": "docker.io/t/x - index.docker.io/t/x"}, {"a": ("a",)}),
        ({"a": "a.io/t * a.io/t"}, {"a": ("a",)}),
        ({"a": "a.io/t ** a.io/t/backup"}, {"a": ("a",)}),
        ({"a": "a.io/t * a.io/t/copy-{name}"}, {"a": ("a",)}),
        ({"a": "a.io ** a.io/backup"}, {"a": ("a",)}),
        (
            {"a": "a.io/x - b.io/x", "b": "b.io/x - c.io/x", "c": "c.io/x - a.io/x"},
            {"a": ("a", "b", "c"), "b": ("b", "c", "a"), "c": ("c", "a", "b")},
        ),
        # Found from the narrowest of the three.
        (
            {"a": "a.io/t * b.io/t", "b": "b.io/t bert-* c.io/t", "c": "c.io/t * a.io/t"},
            {"b": ("b", "c", "a")},
        ),
        # The tags would grow with each round.
        (
            {"a": "a.io/x - b.io/x#from-a-{tag}", "b": "b.io/x - a.io/x"},
            {"a": ("a", "b"), "b": ("b", "a")},
        ),
    ],
)
def test_what_comes_back_is_a_circle(given, expected):
    found = circles(routes(**given))
    assert {name: circle.routes for name, circle in found.items()} == expected
    assert not any(circle.is_endless for circle in found.values())


def test_what_comes_back_under_longer_names_is_endless():
    known = routes(a="a.io ** b.io", b="b.io ** a.io/back")
    assert circles(known) == {
        "a": Circle(("a", "b"), is_endless=True),
        "b": Circle(("b", "a"), is_endless=True),
    }


def test_a_triangle_of_pairs_is_a_circle():
    sites = ("a", "b", "c")
    known = routes(
        **{f"{one}{other}": f"{one}.io/x - {other}.io/x" for one in sites for other in sites
           if one != other}
    )  # fmt: skip
    assert set(circles(known)) == {"ab", "ac", "ba", "bc", "ca", "cb"}


def test_content_comes_from_what_feeds_a_repository():
    known = routes(a="a.io/x - b.io/x", b="b.io/x - c.io/x")
    a, b, c = (parse_repository(f"{host}.io/x") for host in "abc")
    assert known.is_fed_by(b, a)
    assert known.is_fed_by(c, a)
    assert not known.is_fed_by(a, c)
    assert not known.is_fed_by(b, c)


def test_many_routes_take_no_time():
    """Five hundred pairs around one centre: each place is looked at once, not once for each way."""
    given = {}
    for number in range(250):
        given[f"to-{number}"] = f"hub.io/x - r{number}.io/x"
        given[f"from-{number}"] = f"r{number}.io/x - hub.io/x"
    assert circles(routes(**given)) == {}
