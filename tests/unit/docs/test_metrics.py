"""The dashboard, the alerts and the page of metrics speak of metrics that there are."""

import json
import re
from pathlib import Path

import pytest
import yaml

from kitd.doctor.symptom import NEARLY_FULL_BYTES, NEARLY_FULL_SHARE
from kitd.metrics.catalogue import CATALOGUE, Kind

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
DASHBOARD = json.loads((ROOT / "config" / "grafana" / "kitd.json").read_text(encoding="utf-8"))
RULES = yaml.safe_load(
    (ROOT / "config" / "prometheus" / "kitd.rules.yml").read_text(encoding="utf-8")
)
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
METRICS = {metric.name: metric for metric in CATALOGUE}
_SUFFIXES = ("", "_bucket", "_sum", "_count")
_NOT_LABELS = {"job", "instance", "le"}
"""Those that Prometheus adds, and that of histograms."""


def panels():
    """Return the panels that show something."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions():
    """Return all that is asked of Prometheus, by what asks."""
    found = [
        (f"{panel['title']} {target['refId']}", target["expr"])
        for panel in panels()
        for target in panel["targets"]
    ]
    found += [(note["name"], note["expr"]) for note in DASHBOARD["annotations"]["list"]]
    return found + [(rule["alert"], rule["expr"]) for rule in ALERTS]


def sampled(metric):
    """Return the names of a metric's samples."""
    if metric.kind is not Kind.HISTOGRAM:
        return {metric.name}
    return {f"{metric.name}{suffix}" for suffix in _SUFFIXES[1:]}


SAMPLES = {name: metric for metric in CATALOGUE for name in sampled(metric)}


@pytest.mark.parametrize(("who", "expression"), expressions())
def test_what_is_asked_for_is_there(who, expression):
    named = re.findall(r"\b((?:kitd|process)_[a-z_]+)(\{[^}]*\})?", expression)
    assert named or "up{" in expression, who
    for name, selector in named:
        assert name in SAMPLES, f"{who}: {name}"
        labels = set(re.findall(r'([a-z_]+)(?:=~|!~|!=|=)"', selector))
        assert labels <= {*SAMPLES[name].labels} | _NOT_LABELS, f"{who}: {labels}"
    known = {label for name, _ in named for label in SAMPLES[name].labels} | _NOT_LABELS
    for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
        assert set(re.split(r",\s*", group)) <= known, f"{who}: {group}"


def test_counters_are_asked_for_how_they_grow():
    counters = [metric.name for metric in CATALOGUE if metric.kind is Kind.COUNTER]
    for who, expression in expressions():
        for name in re.findall(r"\b(?:kitd|process)_[a-z_]+", expression):
            if name in counters:
                assert re.search(rf"(?:rate|increase)\({name}\b", expression), f"{who}: {name}"


def test_every_alert_says_what_is_wrong_and_leads_to_what_to_do():
    _, _, runbook = PAGE.partition("## What to do at an alert")
    sections = re.split(r"^### ", runbook, flags=re.MULTILINE)[1:]
    written = {section.partition("\n")[0]: section.partition("\n")[2] for section in sections}
    assert list(written) == [rule["alert"] for rule in ALERTS]
    assert all(len(text.strip()) > 60 for text in written.values())
    for rule in ALERTS:
        assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("page", "warn")
        notes = rule["annotations"]
        assert set(notes) == {"summary", "description", "runbook", "runbook_url"}
        assert notes["runbook"] == f"docs/metrics.md of kitd, under {rule['alert']}"
        link = f"{{{{ . }}}}#{rule['alert'].lower()}"
        assert (
            notes["runbook_url"] == f"{{{{ with $externalLabels.kitd_docs }}}}{link}{{{{ end }}}}"
        )
        shown = re.findall(r"\$labels\.([a-z_]+)", notes["summary"] + notes["description"])
        metrics = [SAMPLES[name] for name in SAMPLES if re.search(rf"\b{name}\b", rule["expr"])]
        known = {label for metric in metrics for label in metric.labels} | _NOT_LABELS
        assert set(shown) <= known, rule["alert"]


def test_numbers_that_every_program_has_are_asked_of_kitd():
    for who, expression in expressions():
        for selector in re.findall(r"\bprocess_[a-z_]+(\{[^}]*\})?", expression):
            assert 'job="kitd"' in selector, who


def test_a_disk_is_nearly_full_to_alerts_and_status_alike():
    (expression,) = (rule["expr"] for rule in ALERTS if rule["alert"] == "KitdDiskLow")
    assert re.findall(r"< ([0-9.]+)", expression) == [
        str(NEARLY_FULL_BYTES),
        str(1 / NEARLY_FULL_SHARE),
    ]


def test_links_within_the_page_lead_somewhere():
    headings = {heading.lower() for heading in re.findall(r"^#+ (\w+)$", PAGE, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= headings


def test_the_dashboard_shows_every_metric_that_is_no_mere_detail():
    asked = " ".join(expression for _, expression in expressions())
    unseen = {name for name in METRICS if not re.search(rf"\b{name}(_bucket)?\b", asked)}
    assert unseen == {
        "kitd_starts_total",
        "kitd_jobs_asked_total",
        "kitd_job_attempts_total",
        "kitd_project_last_packed_timestamp_seconds",
        "kitd_mirror_last_equal_timestamp_seconds",
        "kitd_build_info",
        "kitd_rpc_connections",
    }


def test_a_panel_of_one_number_shows_that_of_now():
    """And not the last one of a kitd that is down."""
    for panel in panels():
        if panel["type"] == "stat":
            assert all(each["instant"] and not each["range"] for each in panel["targets"])
            assert not any("vector(" in each["expr"] for each in panel["targets"])


def test_panels_have_a_place_of_their_own():
    taken = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                other = taken.setdefault((x, y), panel["id"])
                assert other == panel["id"], panel["title"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_names_are_as_prometheus_wants_them():
    names = [metric.name for metric in CATALOGUE]
    assert len(set(names)) == len(names)
    for metric in CATALOGUE:
        assert re.fullmatch(r"(kitd|process)_[a-z_]+", metric.name)
        # OpenMetrics adds these to names of its own: `x_created` would be when `x` was.
        stem = metric.name.removesuffix("_total")
        assert not re.search(r"_(total|created|bucket|sum|count|gcount|gsum)$", stem), metric.name
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER), metric.name
        assert metric.kind is not Kind.HISTOGRAM or metric.name.endswith("_seconds"), metric.name
        assert metric.help.endswith("."), metric.name
        assert not {"job", "instance", "le", "quantile"} & set(metric.labels), metric.name
