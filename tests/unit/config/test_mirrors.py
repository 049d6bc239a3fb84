"""Mirrors that are well-formed and do not fit together, and what follows from those that do."""

import time

import pytest

from kitd.config.mirrors import conflicts_in_force
from kitd.config.model import MirrorTargetConfig
from kitd.config.problem import ConfigError
from kitd.mirror.order import Conflicts


def problems(parse, *rules):
    """The problems of a file with a mirror in each line, as `line:column: path: message`."""
    with pytest.raises(ConfigError) as caught:
        parse("mirrors:\n" + "".join(f"  {rule}\n" for rule in rules))
    # The message is enough to know which it is; each has a hint where it is not plain what to do.
    return [found.describe("f").removeprefix("f:") for found in caught.value.problems]


def test_a_target_is_text_or_keys(parse):
    config = parse(
        "mirrors: {m: {source: a.example/x, targets:"
        " [b.example/x, {repository: b.example/x, tag: 'eu-{tag}'}, {repository: b.example/y}]}}"
    )
    assert config.mirrors["m"].targets == (
        MirrorTargetConfig(repository="b.example/x"),
        MirrorTargetConfig(repository="b.example/x", tag="eu-{tag}"),
        MirrorTargetConfig(repository="b.example/y", tag="{tag}"),
    )


THERE = "a: {source: a.example/t, repositories: ['*'], targets: [b.example/t]"
BACK = "b: {source: b.example/t, repositories: ['*'], targets: [a.example/t]"
OVERWRITE, KEEP = Conflicts.OVERWRITE, Conflicts.KEEP


@pytest.mark.parametrize(
    ("there", "back", "expected"),
    [
        ("", "", (OVERWRITE, KEEP)),
        (", conflicts: overwrite", "", (OVERWRITE, KEEP)),
        (", conflicts: keep", "", (KEEP, OVERWRITE)),
        ("", ", conflicts: overwrite", (KEEP, OVERWRITE)),
        ("", ", conflicts: keep", (OVERWRITE, KEEP)),
        (", conflicts: keep", ", conflicts: keep", (KEEP, KEEP)),
        (", conflicts: null", ", conflicts: overwrite", (KEEP, OVERWRITE)),
    ],
)
def test_of_two_that_copy_both_ways_one_is_right(parse, there, back, expected):
    mirrors = parse(f"mirrors:\n  {THERE}{there}}}\n  {BACK}{back}}}\n").mirrors
    in_force = conflicts_in_force(mirrors)
    assert (in_force["a"], in_force["b"]) == expected


def test_a_mirror_that_nobody_carries_back_overwrites(parse):
    mirrors = parse(
        f"mirrors:\n  {THERE}}}\n  c: {{source: b.example/u, targets: [a.example/t/x]}}\n"
    ).mirrors
    assert conflicts_in_force(mirrors) == {"a": OVERWRITE, "c": OVERWRITE}


CIRCLE = (
    "a: {source: a.example/x, targets: [b.example/x]}",
    "b: {source: b.example/x, targets: [c.example/x]}",
    "c: {source: c.example/x, targets: [d.example/x, a.example/x]}",
)
GROWING = (
    "a: {source: a.example, repositories: ['**'], targets: [b.example]}",
    "b: {source: b.example, repositories: ['**'], targets: [a.example/back]}",
)
RETAGGED = (
    "a: {source: a.example/x, targets: [{repository: b.example/x, tag: 'a-{tag}'}]}",
    "b: {source: b.example/x, targets: [a.example/x]}",
)
TWO_WRITERS = (
    "a: {source: a.example/x, targets: [c.example/x]}",
    "b: {source: b.example/x, targets: [d.example/x, c.example/x], tags: {newest: 2}}",
)
PREFIX, LONG = "y" * 30, "x" * 230


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (
            ["a: {source: a.example, targets: [b.example/x]}"],
            "2:15: mirrors.a.source: a.example is a registry, not a repository",
        ),
        (
            ["a: {source: a.example, targets: [b.example/x]}", f"{BACK}}}"],
            "2:15: mirrors.a.source: a.example is a registry, not a repository",
        ),
        (
            ["a: {source: a.example/x, targets: [b.example/x, b.example]}"],
            "2:51: mirrors.a.targets[1]: b.example is a registry, not a repository",
        ),
        (
            [f"a: {{source: a.io/{PREFIX}, repositories: [x, {LONG}], targets: [b.io/x]}}"],
            (
                f"2:70: mirrors.a.repositories[1]: the name 'a.io/{PREFIX}/xxxx'… is longer than"
                " 255 characters"
            ),
        ),
        (
            [f"a: {{source: a.io, repositories: [{LONG}], targets: [b.io/{PREFIX}]}}"],
            (
                f"2:279: mirrors.a.targets[0]: the name 'b.io/{PREFIX}/xxxx'… is longer than"
                " 255 characters"
            ),
        ),
        (
            ["a: {source: a.example, repositories: ['**'], targets: [b.example, a.example/copy]}"],
            (
                "2:69: mirrors.a.targets[1]: a.example/copy/x is below the source of this mirror,"
                " which would copy its own copies"
            ),
        ),
        (
            ["a: {source: a.example/t, repositories: ['*'], targets: ['A.example/t/{name}']}"],
            "2:59: mirrors.a.targets[0]: a.example/t/x is the source of this mirror",
        ),
        (
            CIRCLE,
            (
                "4:51: mirrors.c.targets[1]: what is copied to a.example/x goes on by 'a', 'b' and"
                " comes back to its source"
            ),
        ),
        (
            GROWING,
            (
                "3:58: mirrors.b.targets[0]: what is copied to a.example/back/x goes on by 'a' and"
                " comes back for ever, under longer and longer names"
            ),
        ),
        (
            RETAGGED,
            (
                "3:38: mirrors.b.targets[0]: what is copied to a.example/x goes on by 'a' and comes"
                " back to its source"
            ),
        ),
        (
            [f"{THERE}, conflicts: overwrite}}", f"{BACK}, conflicts: overwrite}}"],
            "3:84: mirrors.b.conflicts: mirror 'a' copies the other way and overwrites as well",
        ),
        (
            TWO_WRITERS,
            "3:51: mirrors.b.targets[1]: c.example/x is written from a.example/x by mirror 'a' too",
        ),
        (
            ["a: {source: a.example, repositories: [t/x, u/x], targets: ['b.example/{name}']}"],
            (
                "2:62: mirrors.a.targets[0]: b.example/x is written from a.example/t/x by mirror"
                " 'a' too"
            ),
        ),
    ],
)
def test_mirrors_that_work_against_each_other_are_refused(parse, rules, expected):
    assert problems(parse, *rules) == [expected]


@pytest.mark.parametrize(
    "rules",
    [
        [f"{THERE}}}", f"{BACK}}}"],
        [f"{THERE}, deletes: propagate}}", f"{BACK}}}"],
        [f"{THERE}, deletes: propagate}}", f"{BACK}, deletes: propagate}}"],
        [f"{THERE}, deletes: propagate, tags: {{newest: 3}}}}"],
        # Two that write a repository: other tags of it, or the same content.
        [
            "a: {source: a.example/x, targets: [c.example/x], tags: {include: ['1.*']}}",
            "b: {source: b.example/x, targets: [c.example/x], tags: {include: ['2.*']}}",
        ],
        [
            "a: {source: a.example/x, targets: [c.example/x]}",
            "b: {source: b.example/x, targets: [{repository: c.example/x, tag: 'b-{tag}'}]}",
        ],
        [
            "a: {source: a.example/x, targets: [b.example/x, c.example/x]}",
            "b: {source: b.example/x, targets: [c.example/x]}",
        ],
        [
            "a: {source: a.example/x, targets: [c.example/x], tags: {newest: 5}}",
            "b: {source: a.example/x, targets: [c.example/x], tags: {semver: 1.x}}",
        ],
        ["a: {source: a.example, repositories: ['**'], targets: ['b.example/{name}']}"],
        ["a: {source: a.example/x, targets: [b.example/x, {repository: b.example/x, tag: v-{tag}}]}"
         .replace("v-{tag}", "'v-{tag}'")],
    ],
)  # fmt: skip
def test_what_only_looks_like_a_conflict_of_mirrors_is_accepted(parse, rules):
    parse("mirrors:\n" + "".join(f"  {rule}\n" for rule in rules))


def test_hundreds_of_mirrors_are_read_in_no_time(parse):
    """A chain, pairs around a centre, and a mirror with many repositories."""
    chain = [f"c{n}: {{source: h{n}.example/x, targets: [h{n + 1}.example/x]}}" for n in range(150)]
    pairs = [
        f"{way}{n}: {{source: {source}, targets: [{target}]}}"
        for n in range(100)
        for way, source, target in (
            ("to", "hub.example/y", f"s{n}.example/y"),
            ("from", f"s{n}.example/y", "hub.example/y"),
        )
    ]
    many = ", ".join(f"r{n}" for n in range(500))
    wide = [f"w: {{source: w.example, repositories: [{many}], targets: [v.example, u.example]}}"]
    began = time.process_time()
    parse("mirrors:\n" + "".join(f"  {rule}\n" for rule in (*chain, *pairs, *wide)))
    assert time.process_time() - began < 20.0
