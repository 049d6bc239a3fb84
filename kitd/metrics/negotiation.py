"""Which of two forms whoever asks prefers (RFC 9110, section 12.5.1). Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from kitd.metrics.exposition import Format

MAX_RANGES = 32
"""Of one header; what comes after them is not looked at."""


@dataclass(frozen=True, slots=True)
class _Range:
    kind: str
    version: str | None
    quality: float


def format_for(accept: str) -> Format:
    """Return the format for a scrape; the older one where both are as welcome."""
    wanted = tuple(_ranges(accept))
    # Of OpenMetrics there are drafts with a version of their own.
    openmetrics = max(
        (
            each.quality
            for each in wanted
            if each.kind == "application/openmetrics-text" and each.version in (None, "1.0.0")
        ),
        default=0.0,
    )
    text = max(
        (each.quality for each in wanted if each.kind in ("text/plain", "text/*")), default=0.0
    )
    return Format.OPENMETRICS if openmetrics > 0 and openmetrics >= text else Format.TEXT


def wants_json(accept: str) -> bool:
    """Whether JSON is preferred to text: where it is named, and text not as much."""
    best = {each.kind: each.quality for each in sorted(_ranges(accept), key=lambda it: it.quality)}
    return best.get("application/json", 0.0) > best.get("text/plain", 0.0)


def _ranges(accept: str) -> Iterator[_Range]:
    for text in accept.split(",", MAX_RANGES)[:MAX_RANGES]:
        kind, *parameters = (part.strip().lower() for part in text.split(";"))
        values = dict(_parameter(each) for each in parameters)
        yield _Range(kind, values.get("version"), _quality(values.get("q", "1")))


def _parameter(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip(), value.strip().strip('"')


def _quality(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0.0 <= value <= 1.0 else 0.0
