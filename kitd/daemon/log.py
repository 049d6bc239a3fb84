"""Logs: one event name for each fact, key and value pairs, to standard error.

Console lines on a terminal, JSON lines otherwise. Secrets do not get here: rooms that hold them
keep them out of reprs and messages; the processors below are the second line of defence.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from kitd.config.model import LogConfig, LogFormat
from kitd.secret import Secrets

_SECRET_KEYS = frozenset({"password", "secret", "token", "authorization", "auth", "cookie"})


def _redact(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for key in event:
        if key.lower() in _SECRET_KEYS:
            event[key] = "[redacted]"
    return event


class _Redactor:
    """The last processor: no line that is rendered has a secret in it."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def __call__(self, _logger: object, _method: str, line: Any) -> str:
        return self._secrets.redact(line)


def configure_logs(config: LogConfig, secrets: Secrets) -> None:
    """Set up structlog and send the standard library's records the same way.

    May be called again: what it says holds from then on.
    """
    console = config.format is LogFormat.CONSOLE or (
        config.format is LogFormat.AUTO and sys.stderr.isatty()
    )
    level = logging.getLevelNamesMapping()[config.level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _redact,
    ]
    ending: list[structlog.typing.Processor] = (
        [
            # Without the frames' variables, where secrets would stand.
            structlog.dev.ConsoleRenderer(
                colors=True, exception_formatter=structlog.dev.plain_traceback
            )
        ]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    redactor = _Redactor(secrets)
    structlog.configure(
        processors=[*shared, *ending, redactor],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        # Not kept by those who log: the level may be another after a reload.
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
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
