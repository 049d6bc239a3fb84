"""Logs: one event name for each fact, key and value pairs, to standard error.

Console lines on a terminal, JSON lines otherwise. Secrets do not get here: rooms that hold them
keep them out of reprs and messages; the processors below are the second line of defence.
"""

import contextlib
import io
import logging
import os
import threading
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, TextIO, cast

import structlog

from kitd.config.model import LogConfig, LogFormat
from kitd.daemon.log_writer import LAST_LINES_S, STDERR, LogWriter
from kitd.errors import printable
from kitd.secret import Secrets

_SECRET_KEYS = frozenset({"password", "secret", "token", "authorization", "auth", "cookie"})
_MANY_LINES = frozenset({"exception", "stack"})


def _redact(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for key in event:
        if key.lower() in _SECRET_KEYS:
            event[key] = "[redacted]"
    return event


def _of_library(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Keep the words of others out of `event`, where tools look for names."""
    event["text"] = event["event"]
    event["event"] = "library.message"
    return event


def _escape(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Keep what others named from steering the terminal that shows it."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = (
                "\n".join(map(printable, value.split("\n")))
                if key in _MANY_LINES
                else printable(value)
            )
    return event


class _Redactor:
    """The last processor: no line that is rendered has a secret in it."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def __call__(self, _logger: object, _method: str, line: Any) -> str:
        return self._secrets.redact(line)


class _Lines:
    """What structlog takes for a logger: each line that is rendered goes to the writer."""

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer

    def msg(self, line: str) -> None:
        self._writer.put(f"{line}\n")

    debug = info = warning = error = critical = msg


class _Records(logging.Handler):
    """Takes the standard library's records to the writer."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._writer.put(f"{self.format(record)}\n")
        except Exception:  # noqa: BLE001 - whoever logs is told of nothing
            self.handleError(record)


class _Strays(io.TextIOBase):
    """What is printed to `sys.stderr`, by Python itself most of all: whole lines of each thread."""

    def __init__(self, writer: LogWriter, secrets: Secrets) -> None:
        self._writer = writer
        self._secrets = secrets
        self._begun = threading.local()

    def write(self, text: str) -> int:
        *lines, rest = (getattr(self._begun, "text", "") + text).split("\n")
        self._begun.text = rest
        for line in lines:
            self._writer.put(f"{self._secrets.redact(line)}\n")
        return len(text)


def is_for_people(config: LogConfig) -> bool:
    """Whether the log has lines for people, not for programs."""
    return config.format is LogFormat.CONSOLE or (
        config.format is LogFormat.AUTO and os.isatty(STDERR)
    )


@dataclass(frozen=True, slots=True)
class Logs:
    """The log of one daemon: who writes it, and what it keeps back."""

    writer: LogWriter
    secrets: Secrets

    def configure(self, config: LogConfig) -> None:
        """Log like this from now on."""
        configure_logs(config, self.secrets, self.writer)


@contextlib.contextmanager
def open_logs() -> Iterator[Logs]:
    """Write to standard error what is logged once it is configured, and what is printed there.

    At the end the last lines get a moment to come out.
    """
    logs = Logs(LogWriter(STDERR), Secrets())
    try:
        with contextlib.redirect_stderr(cast("TextIO", _Strays(logs.writer, logs.secrets))):
            yield logs
    finally:
        logs.writer.flush(LAST_LINES_S)


def configure_logs(config: LogConfig, secrets: Secrets, writer: LogWriter) -> None:
    """Set up structlog and send the standard library's records the same way.

    May be called again: what it says holds from then on.
    """
    level = logging.getLevelNamesMapping()[config.level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _redact,
    ]
    ending: list[structlog.typing.Processor] = (
        [
            structlog.processors.format_exc_info,
            _escape,
            # Without the frames' variables, where secrets would stand.
            structlog.dev.ConsoleRenderer(
                colors=True, exception_formatter=structlog.dev.plain_traceback
            ),
        ]
        if is_for_people(config)
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    redactor = _Redactor(secrets)
    structlog.configure(
        processors=[*shared, *ending, redactor],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Lines(writer),
        # Not kept by those who log: the level may be another after a reload.
        cache_logger_on_first_use=False,
    )
    handler = _Records(writer)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name, _of_library],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *ending,
                redactor,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries speak up only when something is wrong.
    root.setLevel(max(level, logging.WARNING))
