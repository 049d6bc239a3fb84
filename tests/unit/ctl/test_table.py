"""Tables at the widths of terminals."""

import pytest

from kitd.ctl.table import Column, cells_of, render, shorten

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
JOB   STATE       PROJECT      REFERENCE
  7   succeeded   sentiment    registry.example.com:5000/team/language/sentimen…
 12   failed      重みモデル   a-very-long-repository-name-that-goes-on-and-on-…"""

AT_40 = """\
JOB   STATE       PROJECT     REFERENCE
  7   succeeded   sentiment   registry.…
 12   failed      重みモデ…   a-very-lo…"""


@pytest.mark.parametrize(
    ("width", "expected"), [(None, FULL), (120, FULL), (80, AT_80), (40, AT_40)]
)
def test_the_widest_columns_give_way(width, expected):
    assert "\n".join(render(COLUMNS, ROWS, width=width)) == expected
    assert width is None or all(cells_of(line) <= width for line in expected.splitlines())


def test_a_table_that_cannot_fit_keeps_what_may_not_shrink():
    lines = render(COLUMNS, ROWS, width=10)
    assert lines[1].startswith("  7   succeeded   ")


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
        "…m/team/model:v1      12",
    ]
    assert shorten("registry.example.com", 4, keeps_end=True) == "…com"
