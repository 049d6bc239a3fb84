"""Metrics as Prometheus reads them: its text format 0.0.4, and OpenMetrics 1.0. Pure.

Sources: prometheus.io/docs/instrumenting/exposition_formats, and the OpenMetrics specification 1.0.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate

from kitd.histogram import Distribution
from kitd.metrics.catalogue import Kind, Metric

Values = Mapping[tuple[str, ...], float | Distribution]
"""By the values of the labels, in the order of the metric's labels."""
_SUFFIX = "_total"


class Format(Enum):
    """A format and its media type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric and its values at one moment."""

    metric: Metric
    values: Values


def expose(families: Sequence[Family], form: Format) -> bytes:
    """Return a whole page. Families without values are left out."""
    lines = [line for family in families if family.values for line in _family(family, form)]
    if form is Format.OPENMETRICS:
        lines.append("# EOF")
    return "".join(f"{line}\n" for line in lines).encode()


def _family(family: Family, form: Format) -> Iterator[str]:
    metric = family.metric
    name = metric.name
    if form is Format.OPENMETRICS and metric.kind is Kind.COUNTER:
        # There, the suffix belongs to the sample and not to the family.
        name = name.removesuffix(_SUFFIX)
    yield f"# HELP {name} {_escape(metric.help, quotes=form is Format.OPENMETRICS)}"
    yield f"# TYPE {name} {metric.kind}"
    for labels, value in sorted(family.values.items()):
        pairs = [
            f'{label}="{_escape(text, quotes=True)}"'
            for label, text in zip(metric.labels, labels, strict=True)
        ]
        if isinstance(value, Distribution):
            yield from _histogram(metric.name, pairs, value)
        else:
            yield _sample(metric.name, pairs, value)


def _histogram(name: str, pairs: Sequence[str], value: Distribution) -> Iterator[str]:
    counts = tuple(accumulate(value.counts))
    for bound, count in zip((*value.bounds, math.inf), counts, strict=True):
        yield _sample(f"{name}_bucket", [*pairs, f'le="{_bound(bound)}"'], count)
    yield _sample(f"{name}_sum", pairs, value.total)
    yield _sample(f"{name}_count", pairs, counts[-1])


def _sample(name: str, pairs: Sequence[str], value: float) -> str:
    labels = f"{{{','.join(pairs)}}}" if pairs else ""
    return f"{name}{labels} {_number(value)}"


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    # Counts of bytes have more digits than `g` shows, and need no exponent.
    return str(int(value)) if float(value).is_integer() and abs(value) < 1 << 53 else repr(value)


def _bound(value: float) -> str:
    # OpenMetrics wants a number that is no integer, and so has one bound one name in both.
    return "+Inf" if math.isinf(value) else repr(float(value))


def _escape(text: str, *, quotes: bool) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text
