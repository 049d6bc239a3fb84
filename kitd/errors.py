"""The root of kitd's errors, and what a queue should do about each.

Every error that can reach a person carries a stable `code` (snake_case, listed in
`docs/errors.md`), a message that names the thing and the reason, and a `hint`: what to do next.
Each room derives its own families here; nothing in this module knows them.
"""

import enum
from typing import ClassVar


class Disposition(enum.StrEnum):
    """What the queue does with an attempt that ended in an error."""

    FAIL = "fail"
    """Trying again cannot help: the input or the configuration has to change."""
    RETRY = "retry"
    """The world may be different later: back off and try again, counting the attempt. Where it is
    known how long that takes (`retry_after_s`), not before, and the attempt does not count."""
    SNOOZE = "snooze"
    """The input moved while it was read: try again later without counting the attempt."""
    STEP_ASIDE = "step_aside"
    """What asked for the work will ask anew if there is still something to be done."""
    PAUSE = "pause"
    """There is no room: nothing new begins until there is, and the attempt does not count."""
    CRASH = "crash"
    """A process died of it: try again, but not for ever."""
    FATAL = "fatal"
    """What is durable is not known any more: kitd ends, and its next start finds out."""


def printable(path: bytes | str) -> str:
    """Return a path for a message: undecodable bytes and control characters escaped."""
    text = path.decode("utf-8", "backslashreplace") if isinstance(path, bytes) else path
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class KitdError(Exception):
    """An error a person can read: what failed, on which thing, why, and what to do next.

    `str(error)` is the message. Subclasses set `code` and `disposition` as class attributes.
    """

    code: ClassVar[str] = "internal"
    disposition: ClassVar[Disposition] = Disposition.FAIL
    retry_after_s: float | None = None
    """Before so many seconds have passed trying again is in vain, where somebody knows."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def message(self) -> str:
        """What failed, on which thing, and why, in one line."""
        return str(self)

    def describe(self) -> str:
        """Return the message and what to do about it, in one line."""
        return f"{self} ({self.hint})" if self.hint else str(self)


class UnavailableError(KitdError):
    """Something kitd needs is not there right now; it may be later."""

    code = "unavailable"
    disposition = Disposition.RETRY


class DurabilityError(KitdError):
    """An fsync failed: what was written before it may be lost, whatever a later one says."""

    code = "fsync_failed"
    disposition = Disposition.FATAL


class NotFoundError(KitdError):
    """The named thing does not exist."""

    code = "not_found"
