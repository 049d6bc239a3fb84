"""Whether a command printed what a page shows: numbers, times, digests and widths may differ."""

import re

_MASKS = (
    (re.compile(r"sha256:[0-9a-f]{6,64}…?"), "sha256:#"),
    (re.compile(r"\b(?=[0-9a-f]*[0-9])[0-9a-f]{7,64}\b…?"), "#"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?Z?"), "#"),
    (re.compile(r"\d[\d,]*(\.\d+)?( ?([KMGT]i?B|kB|B|bytes|ms|us|s|min|m|h|d)(/s)?\b)?"), "#"),
    (re.compile(r"\bjust now\b"), "# ago"),
    (re.compile(r"#( #)+"), "#"),
)


def masked(text: str) -> list[str]:
    """Return the lines without what differs from one run to the next, and without empty ones."""
    lines = []
    for line in text.splitlines():
        plain = " ".join(line.split())
        for pattern, mask in _MASKS:
            plain = pattern.sub(mask, plain)
        if plain:
            lines.append(plain)
    return lines


def is_like(shown: str, printed: str) -> bool:
    """Whether they are the same but for that; `…` stands for any text, on a line of its own for
    any lines."""
    parts = []
    for line in masked(shown):
        if line == "…":
            parts.append(r"(?:[^\n]*\n)*?")
        else:
            parts.append(".*".join(re.escape(piece) for piece in re.split(" *… *", line)) + "\n")
    return (
        re.fullmatch("".join(parts), "".join(f"{line}\n" for line in masked(printed))) is not None
    )
