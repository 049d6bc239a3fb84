"""What is wrong with a configuration: every problem at once, each with its place."""

from collections.abc import Sequence
from dataclasses import dataclass

from kitd.errors import KitdError

MAX_PROBLEMS = 100
"""More than anybody mends in one go; a hostile file could have a hundred thousand."""

KeyPath = tuple[str | int, ...]
"""Keys and list positions from the root of the document."""


class InvalidValueError(KitdError):
    """The text of one value does not have the form that its option asks for."""

    code = "invalid_value"


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the file, counted from 1 as editors do; columns are characters."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing to mend. `position` is None where the file as a whole is the problem."""

    position: Position | None
    path: KeyPath
    message: str
    hint: str | None = None

    def describe(self, source: str) -> str:
        """Return `file:line:column: path: message`, in one line."""
        where = source
        if self.position is not None:
            where = f"{source}:{self.position.line}:{self.position.column}"
        dotted = "".join(map(_step, self.path)).removeprefix(".")
        return ": ".join(part for part in (where, dotted, self.message) if part)


def _step(key: str | int) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    # Keys come from the file; one with a line break must not break the line it is reported in.
    return "." + (key if key.isprintable() else repr(key))[:80]


class RejectedError(Exception):
    """Carries problems from the value where they were found to the end of the parse."""

    def __init__(self, problems: Sequence[ConfigProblem]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)


class ConfigError(KitdError):
    """The configuration cannot be used. `problems` holds at most `MAX_PROBLEMS` of them."""

    code = "invalid_config"

    def __init__(self, source: str, problems: Sequence[ConfigProblem]) -> None:
        self.source = source
        self.problems = tuple(problems[:MAX_PROBLEMS])
        first = problems[0]
        message, hint = first.describe(source), first.hint
        if len(problems) > 1:
            message = f"{message}; and {len(problems) - 1} more"
            hint = f"kitd check-config {source} lists them"
        super().__init__(message, hint=hint)

    @property
    def lines(self) -> tuple[str, ...]:
        """One line for each problem, with its hint, in the order of the file."""
        return tuple(
            problem.describe(self.source) + (f" ({problem.hint})" if problem.hint else "")
            for problem in self.problems
        )
