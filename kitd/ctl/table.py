"""Tables of text that fit a terminal. Pure."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from kitd.ctl.cells import cells_of, shorten
from kitd.ctl.format import printable

GAP = "   "
NARROW_GAP = "  "
"""Between columns where the table would not fit otherwise."""
MIN_WIDTH = 6
"""What is left of a column that had to shrink, the ellipsis included."""


class Column(NamedTuple):
    """How one column looks. `paint` colours a cell that has its final width.

    What shrinks loses its end, or its beginning where the end tells more, as that of a reference.
    Where shrinking to `least` is not enough, columns with a number in `leaves` are left out, that
    with the lowest first; without a number a column stays.
    """

    header: str
    is_right: bool = False
    can_shrink: bool = False
    keeps_end: bool = False
    paint: Callable[[str], str] | None = None
    least: int = MIN_WIDTH
    leaves: int | None = None


class _Layout(NamedTuple):
    """The positions of the columns that are shown, their widths in cells, and what is between."""

    widths: dict[int, int]
    gap: str

    @property
    def width(self) -> int:
        return sum(self.widths.values()) + len(self.gap) * (len(self.widths) - 1)


def render(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], *, width: int | None
) -> list[str]:
    """Return the lines of a table, its header first; without a `width` nothing is cut.

    With one no line has more cells than that.
    """
    texts = [[printable(cell) for cell in row] for row in rows]
    natural = [
        max(cells_of(cell) for cell in (column.header, *(row[position] for row in texts)))
        for position, column in enumerate(columns)
    ]
    layout = _Layout(dict(enumerate(natural)), GAP)
    if width is not None and layout.width > width:
        layout = _fit(columns, natural, width)
    lines = [_line(columns, layout, [column.header for column in columns], is_header=True)]
    lines += [_line(columns, layout, row, is_header=False) for row in texts]
    return lines


def _fit(columns: Sequence[Column], natural: Sequence[int], width: int) -> _Layout:
    """Return a layout of at most `width` cells: narrower columns first, then fewer."""
    shown = list(range(len(columns)))
    leaving = sorted(
        (position for position in shown if columns[position].leaves is not None),
        key=lambda position: columns[position].leaves or 0,
    )
    while True:
        least = {position: columns[position].least for position in shown}
        layout = _narrowed(columns, natural, least, width)
        if layout.width <= width or not leaving:
            break
        shown.remove(leaving.pop(0))
    if layout.width > width:
        layout = _narrowed(columns, natural, dict.fromkeys(shown, MIN_WIDTH), width)
    # A terminal that is narrower than what has to stay shows the beginning of it.
    while layout.width > width and len(layout.widths) > 1:
        layout.widths.popitem()
    if len(layout.widths) == 1:
        layout.widths[shown[0]] = min(natural[shown[0]], width)
    return layout


def _narrowed(
    columns: Sequence[Column], natural: Sequence[int], least: dict[int, int], width: int
) -> _Layout:
    """Take from the widest column that may shrink until the table fits or nothing is left."""
    layout = _Layout({position: natural[position] for position in least}, NARROW_GAP)
    widths = layout.widths
    excess = layout.width - width
    while excess > 0:
        candidates = [
            position
            for position in widths
            if columns[position].can_shrink and widths[position] > least[position]
        ]
        if not candidates:
            break
        widest = max(candidates, key=lambda position: widths[position] - least[position])
        widths[widest] -= 1
        excess -= 1
    return layout


def _line(
    columns: Sequence[Column], layout: _Layout, row: Sequence[str], *, is_header: bool
) -> str:
    cells = []
    for position, width in layout.widths.items():
        column = columns[position]
        cell = shorten(row[position], width, keeps_end=column.keeps_end and not is_header)
        filling = " " * (width - cells_of(cell))
        if column.paint is not None and not is_header:
            cell = column.paint(cell)
        cells.append(filling + cell if column.is_right else cell + filling)
    return layout.gap.join(cells).rstrip()
