"""Logs: one event name for each fact, key and value pairs, to standard error.

Console lines on a terminal, JSON lines otherwise. Secrets do not get here: rooms that hold them
keep them out of reprs and messages; the processor below is the second line of defence.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from kitd.config.model import LogConfig, LogFormat

_SECRET_KEYS = frozenset({"password", "secret", "token", "authorization", "auth", "cookie"})


def _redact(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for key in event:
        if key.lower() in _SECRET_KEYS:
            event[key] = "[redacted]"
    return event


def configure_logs(config: LogConfig) -> None:
    """Set up structlog and send the standard library's records the same way."""
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
        [structlog.dev.ConsoleRenderer(colors=True)]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *ending,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries speak up only when something is wrong.
    root.setLevel(max(level, logging.WARNING))
