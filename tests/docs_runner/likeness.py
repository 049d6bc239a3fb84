"""Whether a command printed what a page shows.

Digests, times, and the numbers of what is measured may differ, and how wide a table is. Units may
not, nor how many there are of something.
"""

import re

_MASKS = (
    (re.compile(r"sha256:[0-9a-f]{6,64}…?"), "sha256:#"),
    (re.compile(r"\b(?=[0-9a-f]*[0-9])[0-9a-f]{7,64}\b…?"), "#"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?Z?"), "#"),
    (re.compile(r"\bjust now\b"), "1s ago"),
    # How long something took is below a minute, whatever the machine.
    (re.compile(r"\d[\d,]*(\.\d+)? ?(ms|us|s)\b"), "#s"),
    (re.compile(r"\d[\d,]*(\.\d+)? ?([KMGT]i?B|kB|B|bytes|min|m|h|d)\b"), r"# \2"),
    (re.compile(r"\bjob \d+"), "job #"),
    # How many there are of something, which schema, and what a program ends with are not measured.
    (
        re.compile(
            r"(?<!exit )(?<!code )(?<!schema )"
            r"\b\d[\d,]*(\.\d+)?\b(?![,.]?\d)(?! [a-z]{3}| +blobs?\b)"
        ),
        "#",
    ),
)


def masked(text: str) -> list[str]:
    """Return the lines without what differs from one run to the next, and without empty ones."""
    lines = []
    for line in text.splitlines():
        for pattern, mask in _MASKS:
            line = pattern.sub(mask, line)  # noqa: PLW2901
        if plain := " ".join(line.split()):
            lines.append(plain)
    return lines


def is_like(shown: str, printed: str) -> bool:
    """Whether they are the same but for that.

    `…` stands for some text, on a line of its own for some lines.
    """
    parts = []
    for line in masked(shown):
        if line == "…":
            parts.append(r"(?:[^\n]*\n)+?")
        else:
            parts.append(
                r".*\S.*".join(re.escape(piece) for piece in re.split(" *… *", line)) + "\n"
            )
    return (
        re.fullmatch("".join(parts), "".join(f"{line}\n" for line in masked(printed))) is not None
    )
