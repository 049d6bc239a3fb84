"""Tables of text that fit a terminal. Pure."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from kitd.ctl.format import printable

GAP = "   "
MIN_WIDTH = 6
"""What is left of a column that had to shrink, the ellipsis included."""


class Column(NamedTuple):
    """How one column looks. `paint` colours a cell that has its final width.

    What shrinks loses its end, or its beginning where the end tells more, as that of a reference.
    """

    header: str
    is_right: bool = False
    can_shrink: bool = False
    keeps_end: bool = False
    paint: Callable[[str], str] | None = None


def cells_of(text: str) -> int:
    """Return how many cells of a terminal a printable text takes."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width  # noqa: PLC0415 - rarely needed

    return sum(
        0 if combining(character) else 2 if east_asian_width(character) in "WF" else 1
        for character in text
    )


def shorten(text: str, width: int, *, keeps_end: bool = False) -> str:
    """Return a text of at most `width` cells, an ellipsis for its end or beginning if need be."""
    if cells_of(text) <= width:
        return text
    if keeps_end:
        return shorten(text[::-1], width)[::-1]
    kept = text[: max(width - 1, 0)]
    while kept and cells_of(kept) > width - 1:
        kept = kept[:-1]
    return kept + "…"


def render(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], *, width: int | None
) -> list[str]:
    """Return the lines of a table, its header first; without a `width` nothing is cut."""
    texts = [[printable(cell) for cell in row] for row in rows]
    widths = [
        max(cells_of(cell) for cell in (column.header, *(row[position] for row in texts)))
        for position, column in enumerate(columns)
    ]
    if width is not None:
        _shrink(columns, widths, width)
    lines = [_line(columns, widths, [column.header for column in columns], is_header=True)]
    lines += [_line(columns, widths, row, is_header=False) for row in texts]
    return lines


def _shrink(columns: Sequence[Column], widths: list[int], width: int) -> None:
    """Take from the widest column that may shrink until the table fits or nothing is left."""
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - width
    while excess > 0:
        candidates = [
            position
            for position, column in enumerate(columns)
            if column.can_shrink and widths[position] > MIN_WIDTH
        ]
        if not candidates:
            return
        widest = max(candidates, key=lambda position: widths[position])
        widths[widest] -= 1
        excess -= 1


def _line(
    columns: Sequence[Column], widths: Sequence[int], row: Sequence[str], *, is_header: bool
) -> str:
    cells = []
    for column, width, text in zip(columns, widths, row, strict=True):
        cell = shorten(text, width, keeps_end=column.keeps_end and not is_header)
        filling = " " * (width - cells_of(cell))
        if column.paint is not None and not is_header:
            cell = column.paint(cell)
        cells.append(filling + cell if column.is_right else cell + filling)
    return GAP.join(cells).rstrip()
