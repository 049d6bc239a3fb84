"""Tables at the widths of terminals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitd.ctl import cells
from kitd.ctl.cells import cells_of, fold, shorten
from kitd.ctl.format import printable
from kitd.ctl.table import Column, render

COLUMNS = (
    Column("JOB", is_right=True),
    Column("STATE"),
    Column("PROJECT", can_shrink=True),
    Column("REFERENCE", can_shrink=True),
)
ROWS = [
    (
        "7",
        "succeeded",
        "sentiment",
        "registry.example.com:5000/team/language/sentiment-analysis:v1",
    ),
    (
        "12",
        "failed",
        "重みモデル",
        "a-very-long-repository-name-that-goes-on-and-on-and-on/x:latest",
    ),
]

FULL = """\
JOB   STATE       PROJECT      REFERENCE
  7   succeeded   sentiment    registry.example.com:5000/team/language/sentiment-analysis:v1
 12   failed      重みモデル   a-very-long-repository-name-that-goes-on-and-on-and-on/x:latest"""

AT_80 = """\
JOB  STATE      PROJECT     REFERENCE
  7  succeeded  sentiment   registry.example.com:5000/team/language/sentiment-a…
 12  failed     重みモデル  a-very-long-repository-name-that-goes-on-and-on-and…"""

AT_40 = """\
JOB  STATE      PROJECT     REFERENCE
  7  succeeded  sentiment   registry.ex…
 12  failed     重みモデル  a-very-long…"""


@pytest.mark.parametrize(
    ("width", "expected"), [(None, FULL), (120, FULL), (80, AT_80), (40, AT_40)]
)
def test_the_widest_columns_give_way(width, expected):
    assert "\n".join(render(COLUMNS, ROWS, width=width)) == expected
    assert width is None or all(cells_of(line) <= width for line in expected.splitlines())


def test_columns_leave_in_their_order_once_shrinking_is_not_enough():
    columns = (
        Column("NAME", can_shrink=True, least=8),
        Column("DIGEST", leaves=1),
        Column("AGE", leaves=2),
        Column("STATE"),
    )
    rows = [("a-name-that-is-long", "0123456789ab", "3 days ago", "running")]

    def at(width):
        return render(columns, rows, width=width)[0].split()

    assert at(48) == ["NAME", "DIGEST", "AGE", "STATE"]
    assert at(42) == ["NAME", "AGE", "STATE"]
    assert at(27) == ["NAME", "STATE"]
    assert render(columns, rows, width=9)[1] == "a-name-t…"


def test_foreign_texts_stay_in_their_cell():
    lines = render((Column("A"), Column("B")), [("x\ny", "\x1b[2J")], width=80)
    assert lines == ["A     B", "x�y   �[2J"]


def test_colours_do_not_count():
    columns = (Column("A", paint=lambda cell: f"<{cell}>"), Column("B"))
    assert render(columns, [("x", "1"), ("long", "2")], width=80)[1:] == [
        "<x>      1",
        "<long>   2",
    ]


@pytest.mark.parametrize(
    ("text", "width", "short"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("重み重み", 5, "重み…"),
        ("重み重み", 4, "重…"),
        ("é" * 4, 3, "éé…"),
    ],
)
def test_texts_are_cut_by_cells(text, width, short):
    assert shorten(text, width) == short


def test_of_a_reference_its_end_is_kept():
    columns = [Column("SOURCE", can_shrink=True, keeps_end=True), Column("BYTES", is_right=True)]
    rows = [("registry.example.com/team/model:v1", "12")]
    assert render(columns, rows, width=24) == [
        "SOURCE             BYTES",
        "…om/team/model:v1     12",
    ]
    assert shorten("registry.example.com", 4, keeps_end=True) == "…com"


TEXTS = st.text(st.characters(categories=("L", "M", "N", "P", "S", "Z", "C")), max_size=60)


@st.composite
def tables(draw):
    columns = [
        Column(
            draw(st.sampled_from(["JOB", "REFERENCE", "重み"])),
            is_right=draw(st.booleans()),
            can_shrink=draw(st.booleans()),
            keeps_end=draw(st.booleans()),
            least=draw(st.integers(6, 20)),
            leaves=draw(st.none() | st.integers(0, 3)),
        )
        for _ in range(draw(st.integers(1, 7)))
    ]
    row = st.tuples(*(TEXTS for _ in columns))
    return columns, draw(st.lists(row, max_size=5))


@given(tables(), st.integers(1, 150))
def test_no_line_is_wider_than_the_terminal(table, width):
    assert all(cells_of(line) <= width for line in render(*table, width=width))


@given(tables())
def test_nothing_is_lost_where_there_is_no_terminal(table):
    columns, rows = table
    header, *lines = render(columns, rows, width=None)
    assert all(column.header in header for column in columns)
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        assert all(printable(cell).rstrip() in line for cell in row)
        assert printable(line) == line


@given(TEXTS.map(printable), st.integers(2, 100), st.sampled_from(["", "    "]))
def test_folding_loses_nothing_and_fits(text, width, indent):
    lines = fold(text, width, indent=indent)
    assert all(cells_of(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert fold(text, None) == [text]


@pytest.mark.parametrize("unit", ["é", "重", "\u0301", "重 ", "a\u0301" * 40 + " ", " "])
def test_long_texts_are_folded_in_a_pass(unit, monkeypatch):
    text = (unit * 20_000)[:20_000]
    looks = 0

    def counted(character):
        nonlocal looks
        looks += 1
        return one(character)

    one = cells._cells
    monkeypatch.setattr(cells, "_cells", counted)
    fold(text, 80, indent="  ")
    assert looks <= 4 * len(text)


@given(TEXTS.map(printable), st.integers(0, 100), st.booleans())
def test_what_is_cut_fits_and_says_so(text, width, keeps_end):
    short = shorten(text, width, keeps_end=keeps_end)
    assert cells_of(short) <= width
    assert short == text or short.strip("…") in text


def test_texts_are_folded_between_words():
    assert fold("why it waits: a-file.bin is open", 20, indent="  ") == [
        "why it waits:",
        "  a-file.bin is open",
    ]
    assert fold("0123456789", 4, indent="  ") == ["0123", "  45", "  67", "  89"]


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("abc", 3),
        ("重み", 4),
        ("e\u0301", 1),
        ("\u0915\u0941", 1),
        ("\u1112\u1161\u11ab", 2),
        ("x\u200dy\u00a0\u3000", 5),
    ],
)
def test_cells_are_those_that_a_terminal_takes(text, cells):
    assert cells_of(text) == cells
