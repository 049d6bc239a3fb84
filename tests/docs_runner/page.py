"""What is in a page: its fenced blocks, and the commands and answers in those of a console.

A block is run, unless a comment right before it says that it is not, or what else runs it, which
gets it by `run_elsewhere`:

    <!-- not run: needs systemd -->
    <!-- run by: tests/unit/docs/test_notifications.py -->

A block whose first line is a comment with a path below the home or `/etc`, such as
`# ~/.config/kitd/kitd.yaml`, is that file, and is not run for itself.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md")))

RUN = frozenset({"console", "python", "sh", "yaml"})
"""Languages that are run."""
SHOWN = frozenset({"text"})
"""Languages in which there is nothing to run."""

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>```+)(?P<language>[a-z]*)$")
_MARKER = re.compile(r"<!-- (?P<kind>not run|run by): (?P<what>[^>]+?) -->")
_FILE = re.compile(r"^# (?P<path>(?:~|/etc)/\S+)$")


@dataclass(frozen=True, slots=True)
class Step:
    """A command at a prompt and what is shown below it."""

    command: str
    output: str


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `marker` is what kind of comment is before it, and its text."""

    page: str
    line: int
    language: str
    text: str
    marker: tuple[str, str] | None

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that it is, as `~/...` or `/etc/...`."""
        match = _FILE.match(self.text.partition("\n")[0])
        return None if match is None else match["path"]

    @property
    def steps(self) -> tuple[Step, ...]:
        """The commands of a console, those of several lines with `> ` before all but the first."""
        steps: list[Step] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                steps.append(Step(line[2:], ""))
                continue
            assert steps, f"{self.place}: begins without a prompt"
            command, output = steps[-1].command, steps[-1].output
            if line.startswith("> ") and not output:
                steps[-1] = Step(f"{command}\n{line[2:]}", "")
            else:
                steps[-1] = Step(command, f"{output}{line}\n")
        return tuple(steps)


def blocks(page: str) -> Iterator[Block]:
    """Return the fenced blocks of a page, in its order."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    begin: re.Match[str] | None = None
    first = 0
    for number, line in enumerate(lines):
        if begin is None:
            begin, first = _FENCE.match(line), number
        elif line == f"{begin['indent']}{begin['fence']}":
            before = [above for above in lines[max(0, first - 3) : first] if above.strip()]
            marker = _MARKER.fullmatch(before[-1].strip()) if before else None
            text = "".join(
                f"{inner.removeprefix(begin['indent'])}\n" for inner in lines[first + 1 : number]
            )
            yield Block(
                page,
                first + 1,
                begin["language"],
                text,
                None if marker is None else (marker["kind"], marker["what"]),
            )
            begin = None
    assert begin is None, f"{page}:{first + 1}: the block has no end"


def run_elsewhere(page: str, language: str) -> Block:
    """Return the only block of a page in a language that has a test of its own, which asks for it.

    Raises `ValueError` if there is not one.
    """
    (found,) = (
        block
        for block in blocks(page)
        if block.language == language and block.marker is not None and block.marker[0] == "run by"
    )
    return found


def markers(page: str) -> int:
    """Return how many markers a page has, wherever they are."""
    return len(re.findall(r"<!-- *(?:not run|run by)", (ROOT / page).read_text(encoding="utf-8")))
