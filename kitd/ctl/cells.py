"""Texts measured, cut and folded by the cells of a terminal. Pure.

All take texts that are printable: `kitd.ctl.format.printable`.
"""

_FIRST_COMBINING = "\u0300"
"""Whatever is printable before it takes one cell."""


def cells_of(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(character: str) -> int:
    """Return 2 for wide characters (UAX #11), 0 for those that are drawn over the one before."""
    if character < _FIRST_COMBINING:
        return 1
    from unicodedata import category, east_asian_width  # noqa: PLC0415 - rarely needed

    # Vowels and final consonants of Hangul are drawn into the syllable that they follow.
    if category(character) in ("Mn", "Me", "Cf") or "\u1160" <= character <= "\u11ff":
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def shorten(text: str, width: int, *, keeps_end: bool = False) -> str:
    """Return a text of at most `width` cells, an ellipsis for its end or beginning if need be."""
    if cells_of(text) <= width:
        return text
    if width < 1:
        return ""
    if not keeps_end:
        return text[: _end_of(text, 0, width - 1)] + "…"
    start, left = len(text), width - 1
    while start > 0 and _cells(text[start - 1]) <= left:
        start -= 1
        left -= _cells(text[start])
    # What is drawn over a character that is gone would be drawn over the ellipsis.
    while start < len(text) and _cells(text[start]) == 0:
        start += 1
    return "…" + text[start:]


def fold(text: str, width: int | None, *, indent: str = "") -> list[str]:
    """Return a text as lines of at most `width` cells, all but the first after `indent`.

    Broken between words where that is possible; nothing is lost. Without a width it is one line.
    """
    if width is None:
        return [text]
    room = min(max(width - len(indent), 2), width)
    indent = indent[: width - room]
    lines: list[str] = []
    start, end = 0, _end_of(text, 0, width)
    # Each character is looked at a few times at most, however long the text is: it may be foreign.
    while end < len(text):
        space = text.rfind(" ", start, end + 1)
        if space > start and text[start:space].strip() and _has_short_word(text, space + 1, room):
            lines.append(text[start:space])
            start = space + 1
        else:
            # A character that is wider than the line is drawn right nowhere.
            end = max(end, start + 1)
            lines.append(text[start:end])
            start = end
        end = _end_of(text, start, room)
    lines.append(text[start:])
    return [lines[0], *(indent + each for each in lines[1:])]


def _has_short_word(text: str, start: int, width: int) -> bool:
    """Whether what begins at `start` reaches a space or the end within `width` cells."""
    end = _end_of(text, start, width)
    return end == len(text) or text.find(" ", start, end + 1) >= 0


def _end_of(text: str, start: int, width: int) -> int:
    """Return where the longest part of `text` ends that begins at `start` and has `width` cells."""
    end, left = start, width
    while end < len(text) and (cells := _cells(text[end])) <= left:
        left -= cells
        end += 1
    return end
