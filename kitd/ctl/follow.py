"""Waiting for a job in front of a person: progress, retries, the end, or Ctrl-C."""

import time
from collections.abc import Callable
from contextlib import closing

from kitd.client import Client
from kitd.client.absence import PATIENCE_S, RECONNECTING, is_absence
from kitd.client.error import DeadlineExceededError
from kitd.client.outcome import JobFailedError
from kitd.client.record import Job, Progress
from kitd.ctl.error import InterruptedByUserError
from kitd.ctl.format import printable
from kitd.ctl.progress import ProgressLine
from kitd.ctl.session import Session
from kitd.ctl.terminal import Terminal
from kitd.errors import KitdError

_PAUSE_S = 0.25


class Presence:
    """Whether kitd is there, for those who follow what happens beyond its next start."""

    def __init__(self, terminal: Terminal, subject: str = "") -> None:
        """Begin without having heard of it. What is said begins with the subject."""
        self._terminal = terminal
        self._subject = subject
        self._is_known = False
        self._away_since_s: float | None = None

    def confirm(self) -> None:
        """Note that it answers."""
        if self._away_since_s is not None:
            self._terminal.note(f"{self._subject}kitd is back")
        self._is_known, self._away_since_s = True, None

    def wait(self, error: KitdError) -> None:
        """Wait a moment before looking for it again.

        Raises `error` if that is no absence, or one from the beginning or of half a minute.
        """
        now_s = time.monotonic()
        since_s = now_s if self._away_since_s is None else self._away_since_s
        if not is_absence(error) or not self._is_known or now_s - since_s >= PATIENCE_S:
            raise error
        if self._away_since_s is None:
            self._terminal.note(f"{self._subject}kitd is away, waiting for it")
        self._away_since_s = since_s
        time.sleep(_PAUSE_S)


def follow_job(
    session: Session, client: Client, job: int | Job, timeout_s: float | None = None
) -> Job:
    """Return a job once it has ended, well or not, and show its progress meanwhile.

    Raises `InterruptedByUserError` on Ctrl-C, `DeadlineExceededError` after `timeout_s`.
    """
    return _follow(session, client, job, timeout_s, until=lambda job: job.is_terminal)


def try_job(session: Session, client: Client, job: int | Job) -> Job:
    """Return a job once it has ended, or an attempt of it has failed and another will follow.

    Raises `InterruptedByUserError` on Ctrl-C.
    """
    return _follow(session, client, job, None, until=lambda job: job.is_terminal or _failed(job))


def _failed(job: Job) -> bool:
    return job.state == "scheduled" and job.error is not None


def _follow(
    session: Session,
    client: Client,
    job: int | Job,
    timeout_s: float | None,
    *,
    until: Callable[[Job], bool],
) -> Job:
    number = job.id if isinstance(job, Job) else job
    current: Job | None = None
    is_away = False
    try:
        with (
            ProgressLine(session.terminal) as line,
            closing(client.follow(job, timeout_s=timeout_s)) as items,
        ):
            for item in items:
                if item is RECONNECTING:
                    if not is_away:
                        line.clear()
                        session.terminal.note(f"job {number}: kitd is away, waiting for it")
                    is_away = True
                    continue
                if is_away:
                    session.terminal.note(f"job {number}: kitd is back")
                    is_away = False
                if isinstance(item, Progress):
                    line.update(item)
                    continue
                if until(item) and item.superseded_by is None:
                    return item
                if current is not None and item.state != current.state:
                    line.clear()
                    _note_retry(session, item)
                current = item
    except KeyboardInterrupt:
        raise InterruptedByUserError(
            f"job {number} goes on", hint=f"wait for it with: kitctl jobs wait {number}"
        ) from None
    except DeadlineExceededError as error:
        if current is None:
            raise
        raise DeadlineExceededError(
            f"job {current.id} is still {current.state}: {error}",
            hint=f"wait longer with: kitctl jobs wait {current.id}",
        ) from error
    assert current is not None
    return current


def complete_job(session: Session, client: Client, job: int | Job) -> Job:
    """Return a job once it has succeeded, and show its progress meanwhile.

    Raises `JobFailedError`, and what `follow_job` raises.
    """
    ended = follow_job(session, client, job)
    if ended.state != "succeeded":
        raise JobFailedError(ended)
    return ended


def _note_retry(session: Session, job: Job) -> None:
    if job.error is not None and job.state in ("scheduled", "ready"):
        session.terminal.note(
            f"job {job.id}: attempt {job.attempt} of {job.max_attempts} failed, trying again: "
            f"{printable(job.error.message)}"
        )
