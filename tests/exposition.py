"""A strict reader of what Prometheus reads: it refuses what a lenient one would guess at.

After prometheus.io/docs/instrumenting/exposition_formats and the OpenMetrics specification 1.0, as
far as kitd uses them: counters, gauges and histograms, without timestamps and exemplars.
"""

import math
import re
from collections import defaultdict
from dataclasses import dataclass, field

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"')
_SAMPLE = re.compile(rf"({_NAME})(?:\{{(.*)\}})? (\S+)")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d+)?(e[+-]?\d+)?|Inf)|NaN")
_RESERVED = ("_total", "_created", "_bucket", "_sum", "_count", "_gcount", "_gsum", "_info")
"""What OpenMetrics adds to names of families, and so would be taken for a part of another one."""
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


@dataclass
class Family:
    kind: str
    help: str
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = field(default_factory=dict)


def parse(text: str, *, openmetrics: bool = False) -> dict[str, Family]:
    """Return the families by name. Raises `AssertionError` for whatever is not as it has to be."""
    assert text.endswith("\n")
    lines = text[:-1].split("\n")
    if openmetrics:
        assert lines.pop() == "# EOF"
    families: dict[str, Family] = {}
    name = ""
    iterator = iter(lines)
    for line in iterator:
        if line.startswith("# HELP "):
            name, _, said = line.removeprefix("# HELP ").partition(" ")
            assert re.fullmatch(_NAME, name), line
            assert name not in families, f"{name} is there twice"
            assert said, f"{name} says nothing"
            kind_line = next(iterator)
            assert kind_line.startswith(f"# TYPE {name} "), kind_line
            kind = kind_line.rpartition(" ")[2]
            assert kind in ("counter", "gauge", "histogram"), kind_line
            families[name] = Family(kind, said)
            continue
        match = _SAMPLE.fullmatch(line)
        assert match, line
        sample, labels, number = match.groups()
        assert _suffix_fits(sample, name, families[name].kind, openmetrics=openmetrics), line
        assert _NUMBER.fullmatch(number), line
        key = (sample, _labels(labels))
        assert key not in families[name].samples, f"{line} is there twice"
        families[name].samples[key] = float(number)
    if openmetrics:
        _check_names(families)
    for name, family in families.items():
        assert family.samples, f"{name} has no samples"
        _check(name, family)
    return families


def _suffix_fits(sample: str, name: str, kind: str, *, openmetrics: bool) -> bool:
    suffix = sample.removeprefix(name)
    if kind == "histogram":
        return suffix in ("_bucket", "_sum", "_count")
    if kind == "counter" and openmetrics:
        return suffix == "_total"
    return suffix == ""


def _check_names(families: dict[str, Family]) -> None:
    for name in families:
        stem = next((name.removesuffix(each) for each in _RESERVED if name.endswith(each)), None)
        assert stem not in families, f"{name} would be a part of {stem}"


def _labels(text: str | None) -> frozenset[tuple[str, str]]:
    if text is None:
        return frozenset()
    labels, position = {}, 0
    while True:
        match = _LABEL.match(text, position)
        assert match, text
        assert match[1] not in labels, text
        assert not match[1].startswith("__"), text
        labels[match[1]] = re.sub(r'\\[\\"n]', lambda found: _ESCAPES[found[0]], match[2])
        position = match.end()
        if position == len(text):
            return frozenset(labels.items())
        assert text[position] == ",", text
        position += 1


def _check(name: str, family: Family) -> None:
    if family.kind == "counter":
        assert all(value >= 0 for value in family.samples.values()), name
        assert all(sample.endswith("_total") for sample, _ in family.samples), name
    if family.kind != "histogram":
        return
    buckets: dict[frozenset, dict[float, float]] = defaultdict(dict)
    for (sample, labels), value in family.samples.items():
        if sample.endswith("_bucket"):
            (bound,) = (text for label, text in labels if label == "le")
            buckets[labels - {("le", bound)}][float(bound)] = value
    for labels, counts in buckets.items():
        ordered = [counts[bound] for bound in sorted(counts)]
        assert math.inf in counts, name
        assert ordered == sorted(ordered), name
        assert family.samples[f"{name}_count", labels] == counts[math.inf], name
        assert (f"{name}_sum", labels) in family.samples, name


def value(families: dict[str, Family], name: str, **labels: str) -> float:
    """Return the value of one sample."""
    return families[name].samples[name, frozenset(labels.items())]
