"""Texts measured, cut and folded by the cells of a terminal. Pure.

All take texts that are printable: `kitd.ctl.format.printable`.
"""


def cells_of(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(character: str) -> int:
    """Return 2 for wide characters (UAX #11), 0 for those that are drawn over the one before."""
    if character.isascii():
        return 1
    from unicodedata import category, east_asian_width  # noqa: PLC0415 - rarely needed

    # Vowels and final consonants of Hangul are drawn into the syllable that they follow.
    if category(character) in ("Mn", "Me") or "\u1160" <= character <= "\u11ff":
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def shorten(text: str, width: int, *, keeps_end: bool = False) -> str:
    """Return a text of at most `width` cells, an ellipsis for its end or beginning if need be."""
    if cells_of(text) <= width:
        return text
    if width < 1:
        return ""
    if not keeps_end:
        return _beginning(text, width - 1) + "…"
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
    if width is None or cells_of(text) <= width:
        return [text]
    room = min(max(width - len(indent), 2), width)
    indent = indent[: width - room]
    lines: list[str] = []
    line = ""
    is_begun = False
    for word in text.split(" "):
        longer = f"{line} {word}" if is_begun else word
        is_begun = True
        while cells_of(longer) > (room if lines else width):
            if line.strip() and cells_of(word) <= room:
                lines.append(line)
                longer = word
                break
            # A character that is wider than the line is drawn right nowhere.
            piece = _beginning(longer, room if lines else width) or longer[0]
            lines.append(piece)
            longer = longer[len(piece) :]
        line = longer
    lines.append(line)
    return [lines[0], *(indent + each for each in lines[1:])]


def _beginning(text: str, width: int) -> str:
    """Return the longest beginning that has at most `width` cells."""
    end, left = 0, width
    while end < len(text) and _cells(text[end]) <= left:
        left -= _cells(text[end])
        end += 1
    return text[:end]
