"""Metrics as Prometheus reads them, to the letter."""

import math

import pytest

from exposition import parse, value
from kitd.histogram import Histogram
from kitd.metrics.catalogue import Kind, Metric, Source
from kitd.metrics.exposition import Family, Format, expose

JOBS = Metric("kitd_jobs_total", Kind.COUNTER, Source.LEDGER, 'A "quoted" \\ line\nand', ("kind",))
FREE = Metric("kitd_free_bytes", Kind.GAUGE, Source.LOOK, "Free.")
TOOK = Metric("kitd_took_seconds", Kind.HISTOGRAM, Source.PROCESS, "Took.", ("kind",))


def histogram(*values):
    """Return what was counted of values."""
    made = Histogram((0.5, 1.0, 10.0))
    for each in values:
        made.observe(each)
    return made.read()


def test_the_text_format():
    families = [
        Family(FREE, {(): 12345678901234.0}),
        Family(JOBS, {("push",): 2, ("pack",): 1.5}),
        Family(TOOK, {("pack",): histogram(0.25, 2, 100)}),
    ]
    assert expose(families, Format.TEXT).decode() == (
        "# HELP kitd_free_bytes Free.\n"
        "# TYPE kitd_free_bytes gauge\n"
        "kitd_free_bytes 12345678901234\n"
        '# HELP kitd_jobs_total A "quoted" \\\\ line\\nand\n'
        "# TYPE kitd_jobs_total counter\n"
        'kitd_jobs_total{kind="pack"} 1.5\n'
        'kitd_jobs_total{kind="push"} 2\n'
        "# HELP kitd_took_seconds Took.\n"
        "# TYPE kitd_took_seconds histogram\n"
        'kitd_took_seconds_bucket{kind="pack",le="0.5"} 1\n'
        'kitd_took_seconds_bucket{kind="pack",le="1.0"} 1\n'
        'kitd_took_seconds_bucket{kind="pack",le="10.0"} 2\n'
        'kitd_took_seconds_bucket{kind="pack",le="+Inf"} 3\n'
        'kitd_took_seconds_sum{kind="pack"} 102.25\n'
        'kitd_took_seconds_count{kind="pack"} 3\n'
    )


def test_openmetrics_names_counters_without_their_suffix_and_has_an_end():
    text = expose([Family(JOBS, {("pack",): 1})], Format.OPENMETRICS).decode()
    assert text == (
        '# HELP kitd_jobs A \\"quoted\\" \\\\ line\\nand\n'
        "# TYPE kitd_jobs counter\n"
        'kitd_jobs_total{kind="pack"} 1\n'
        "# EOF\n"
    )


@pytest.mark.parametrize("form", Format)
def test_whatever_a_label_holds_comes_back(form):
    names = ['a"b', "a\\b", "a\nb", "\\n", '\\"', "}", ",", "ä", "", 'x="y"']
    text = expose([Family(JOBS, {(name,): 1 for name in names})], form).decode()
    (family,) = parse(text, openmetrics=form is Format.OPENMETRICS).values()

    assert sorted(dict(labels)["kind"] for _, labels in family.samples) == sorted(names)


@pytest.mark.parametrize("number", [0, 1, 0.1, 1e-9, 2**52, 2**60, 1e300, math.inf, -math.inf])
def test_whatever_a_number_is_comes_back(number):
    text = expose([Family(FREE, {(): number})], Format.TEXT).decode()
    assert value(parse(text), "kitd_free_bytes") == number


def test_what_is_no_number_says_so():
    assert expose([Family(FREE, {(): math.nan})], Format.TEXT).endswith(b" NaN\n")


def test_a_family_without_values_is_left_out():
    assert expose([Family(JOBS, {})], Format.TEXT) == b""
    assert expose([Family(JOBS, {})], Format.OPENMETRICS) == b"# EOF\n"
