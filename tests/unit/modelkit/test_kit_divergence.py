"""What kitd packs and `kit` would not."""

from dataclasses import dataclass

import pytest

from kitd.modelkit.dialect import Dialect
from kitd.modelkit.ignore import IgnoreRules
from kitd.modelkit.kit_divergence import MAX_PATHS, DivergenceReason, find_divergences
from kitd.modelkit.kitfile import parse_kitfile
from kitd.modelkit.plan import select


@dataclass(frozen=True)
class Entry:
    path: bytes
    is_dir: bool
    layers: tuple[int, ...]


def divergences(paths, files, dialect):
    """Return what is found in a project with these code paths; a file is given by its path."""
    lines = [f"  - path: {path}" for path in paths]
    kitfile = parse_kitfile("\n".join(["manifestVersion: 1.0.0", "code:", *lines]).encode())
    selection = select(kitfile, IgnoreRules.parse(b""), dialect)
    seen, entries = set(), []
    for file in sorted(files):
        elements = file.encode().split(b"/")
        for depth in range(1, len(elements) + 1):
            path, is_dir = b"/".join(elements[:depth]), depth < len(elements)
            layers = selection.layers_of(path, is_dir=is_dir)
            if path not in seen and layers:
                entries.append(Entry(path, is_dir, layers))
            seen.add(path)
    return find_divergences(selection.layers, entries, dialect)


def found(paths, files, dialect):
    return {one.reason: list(one.paths) for one in divergences(paths, files, dialect)}


@pytest.mark.parametrize(
    ("paths", "files", "lost"),
    [
        (["."], ["a", "b/c"], []),
        (["model", "."], ["model/w", "model-card.md", "x"], [b"model-card.md"]),
        (["model", "."], ["model/w", "model2/a", "models/b/c"], [b"model2/a", b"models/b/c"]),
        (["./model/", "."], ["model/w", "model.py"], [b"model.py"]),
        (["a.bin", "."], ["a.bin", "a.bin.index"], [b"a.bin.index"]),
        (["src/a", "src"], ["src/a/x", "src/ab", "src/b"], [b"src/ab"]),
        # The layer's own path begins with the other one: to kit that is its parent.
        (["data", "data2/x"], ["data/a", "data2/x/b", "data2/y"], []),
        (["model", "model2"], ["model/a", "model2/b"], []),
        # The way to a deeper layer is no file.
        (["a", "ab/c", "."], ["a/x", "ab/c/y"], []),
        (["a", "ab/c", "."], ["a/x", "ab/c/y", "ab/d"], [b"ab/d"]),
        ([".", "model"], ["model/w", "model2"], [b"model2"]),
        (["docs"], ["docs/a", "docs2/b"], []),
    ],
)
def test_kit_1_7_loses_what_begins_like_another_layer(paths, files, lost):
    expected = {DivergenceReason.PREFIX: lost} if lost else {}
    assert found(paths, files, Dialect.KIT_1_7) == expected
    assert found(paths, files, Dialect.CURRENT) == {}


@pytest.mark.parametrize("dialect", Dialect)
def test_kit_drops_and_refuses_dots_in_names_in_both_dialects(dialect):
    files = ["a..b", "x/c..", "y..z/d", "..e/f", "fine.d/...g", "v1.2.bin"]
    assert found(["."], files, dialect) == {
        DivergenceReason.DOTS: [
            b"..e", b"..e/f", b"a..b", b"fine.d/...g", b"x/c..", b"y..z", b"y..z/d",
        ]
    }  # fmt: skip


def test_a_path_is_named_for_one_reason():
    assert found(["a", "."], ["a/x", "a..b"], Dialect.KIT_1_7) == {DivergenceReason.DOTS: [b"a..b"]}


def test_the_first_are_named_and_all_are_counted():
    files = [f"model-{number:03}" for number in range(MAX_PATHS + 15)]
    (divergence,) = divergences(["model", "."], ["model/w", *files], Dialect.KIT_1_7)
    assert divergence.paths == tuple(file.encode() for file in files[:MAX_PATHS])
    assert divergence.count == MAX_PATHS + 15


def test_nothing_diverges_in_a_project_without_layers():
    assert find_divergences((), (), Dialect.KIT_1_7) == ()
