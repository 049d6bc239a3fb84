"""The alerts, as Prometheus judges them: what is worth a look fires, and what is usual does not.

Time is in steps of 15 seconds, as between scrapes.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from conftest import require
from kitd.metrics.catalogue import CATALOGUE

CONFIG = Path(__file__).parents[3] / "config"
RULES = CONFIG / "prometheus" / "kitd.rules.yml"
DASHBOARD = CONFIG / "grafana" / "kitd.json"
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
}
GIB = 1 << 30
MINUTE, HOUR = 4, 240
"""In steps."""
DAY_S = 86_400
WELL = {
    "up": "1x2000",
    "kitd_ready": "1x2000",
    # The series begin at the time 0.
    "process_start_time_seconds": f"-{DAY_S}x2000",
    'kitd_look_timestamp_seconds{look="state_disk"}': "0+15x2000",
}
"""A kitd that has run for a day."""


def flapping(on, off, steps):
    """Return values that are 1 for some steps and then 0 for others, again and again."""
    return " ".join([f"1x{on - 1} 0x{off - 1}"] * (steps // (on + off)))


FIRES = [
    ("it is down", {"up": "1x40 0x2000"}, 20 * MINUTE, {"KitdDown"}),
    ("nobody knows of it", {"up": "1x40 stale"}, HOUR, {"KitdDown"}),
    ("it takes no work", {"kitd_ready": "0x2000"}, 6 * MINUTE, {"KitdNotReady"}),
    (
        "it starts again and again",
        {"process_start_time_seconds": "-86400x9 100x9 200x9 300x9 400x2000"},
        12 * MINUTE,
        {"KitdRestarting"},
    ),
    (
        "its loop hangs for a second each time",
        {
            'kitd_loop_lag_seconds_bucket{le="0.5"}': "0x2000",
            'kitd_loop_lag_seconds_bucket{le="1.0"}': "0+7x2000",
            'kitd_loop_lag_seconds_bucket{le="+Inf"}': "0+7x2000",
        },
        20 * MINUTE,
        {"KitdLoopSlow"},
    ),
    (
        "it has no descriptors left",
        {"process_open_fds": "95x2000", "process_max_fds": "100x2000"},
        20 * MINUTE,
        {"KitdOpenFiles"},
    ),
    (
        "a disk answers no more",
        {'kitd_look_timestamp_seconds{look="state_disk"}': "0x2000"},
        21 * MINUTE,
        {"KitdLooksStale"},
    ),
    (
        "a disk has never answered",
        {
            "process_start_time_seconds": "0x2000",
            'kitd_look_timestamp_seconds{look="cache"}': "0x2000",
        },
        21 * MINUTE,
        {"KitdLooksStale"},
    ),
    (
        "a transfer that fails, and runs when it is looked at now and then",
        {'kitd_degraded{reason="transfer_failing"}': " ".join(["1x15 stale _x15"] * 20)},
        30 * MINUTE,
        {"KitdDegraded"},
    ),
    ("a disk is full", {"kitd_queue_paused": "1x2000"}, 3 * MINUTE, {"KitdQueuePaused"}),
    (
        "a disk is nearly full",
        {
            'kitd_disk_free_bytes{place="state"}': f"{GIB // 4}x2000",
            'kitd_disk_size_bytes{place="state"}': f"{50 * GIB}x2000",
        },
        15 * MINUTE,
        {"KitdDiskLow"},
    ),
    (
        "nothing is kept back",
        {
            "kitd_disk_reserve_bytes": "0x2000",
            'kitd_disk_size_bytes{place="state"}': f"{50 * GIB}x2000",
        },
        20 * MINUTE,
        {"KitdDiskReserveGone"},
    ),
    ("the cache is over", {"kitd_cache_over_limit": "1x2000"}, 61 * MINUTE, {"KitdCacheOverLimit"}),
    (
        "a job does not begin",
        {'kitd_degraded{reason="queue_stuck"}': "1x2000"},
        6 * MINUTE,
        {"KitdQueueStuck"},
    ),
    (
        "jobs wait for hours",
        {'kitd_queue_oldest_ready_seconds{lane="push"}': "0+15x2000"},
        2 * HOUR,
        {"KitdQueueLong"},
    ),
    (
        "a mirror is late",
        {'kitd_queue_oldest_ready_seconds{lane="mirror"}': "0+15x2000"},
        30 * MINUTE,
        {"KitdMirrorLate"},
    ),
    (
        "jobs fail",
        {'kitd_jobs_total{kind="push",state="failed"}': "0x20 4x2000"},
        10 * MINUTE,
        {"KitdJobsFailing"},
    ),
    (
        "jobs are tried again and again",
        {'kitd_job_retries_total{kind="push"}': "0+1x2000"},
        61 * MINUTE,
        {"KitdJobsRetrying"},
    ),
    (
        "a project is blocked but for the attempts that are made",
        {'kitd_project_blocked{project="demo"}': flapping(30, 2, 2000)},
        2 * HOUR,
        {"KitdProjectBlocked"},
    ),
    (
        "the disk takes no writes",
        {"kitd_ledger_commit_failures_total": "0x20 1x2000"},
        7 * MINUTE,
        {"KitdLedgerFailing"},
    ),
    (
        "the ledger does not answer",
        {"kitd_scrape_failures_total": "0+1x2000"},
        20 * MINUTE,
        {"KitdLedgerUnread"},
    ),
    (
        "the disk is slow",
        {
            'kitd_ledger_commit_seconds_bucket{le="1.0"}': "0x2000",
            'kitd_ledger_commit_seconds_bucket{le="5.0"}': "0+3x2000",
            'kitd_ledger_commit_seconds_bucket{le="+Inf"}': "0+3x2000",
        },
        20 * MINUTE,
        {"KitdLedgerSlow"},
    ),
    ("a backup hangs", {"kitd_ledger_wal_bytes": "200e6x2000"}, HOUR, {"KitdLedgerLogLarge"}),
    (
        "a registry is down",
        {'kitd_registry_closed{registry="r",why="failing"}': "1x2000"},
        16 * MINUTE,
        {"KitdRegistryFailing"},
    ),
    (
        "a quota is used up",
        {'kitd_registry_closed{registry="r",why="forbidden"}': "1x2000"},
        31 * MINUTE,
        {"KitdRegistryForbids"},
    ),
    (
        "tags cannot be copied",
        {'kitd_mirror_tags{mirror="prod",state="failed"}': "3x2000"},
        31 * MINUTE,
        {"KitdMirrorFailing"},
    ),
    (
        "both ends have changed",
        {'kitd_mirror_tags{mirror="prod",state="conflict"}': "1x2000"},
        31 * MINUTE,
        {"KitdMirrorConflict"},
    ),
    (
        "a sender has another secret",
        {'kitd_webhook_deliveries_total{source="hub",verdict="refused"}': "0+1x2000"},
        10 * MINUTE,
        {"KitdWebhookRefused"},
    ),
    (
        "bodies break off",
        {'kitd_webhook_deliveries_total{source="hub",verdict="unread"}': "0x40 20x2000"},
        12 * MINUTE,
        {"KitdWebhookUnusable"},
    ),
    (
        "an endpoint is down",
        {'kitd_notification_failures{endpoint="chat"}': "0+1x2000"},
        20 * MINUTE,
        {"KitdNotificationFailing"},
    ),
    (
        "an endpoint misses something",
        {'kitd_notification_dropped_total{endpoint="chat"}': "0x20 1x2000"},
        10 * MINUTE,
        {"KitdNotificationDropped"},
    ),
]
QUIET = [
    ("all is well", {}),
    ("it starts anew", {"up": "1x20 0x3 1x2000", "process_start_time_seconds": "0x20 400x2000"}),
    (
        "it has just started, and looked at nothing yet",
        {
            "process_start_time_seconds": "0x40 590x2000",
            'kitd_look_timestamp_seconds{look="cache"}': "0x43 0+15x2000",
        },
    ),
    ("something hinders it once", {'kitd_degraded{reason="x"}': "0x20 1x4 0x2000"}),
    ("a registry hiccups", {'kitd_registry_closed{registry="r",why="failing"}': "0x20 1x8 0x2000"}),
    (
        "a large disk is as full as the cache may make it by default",
        {
            'kitd_disk_free_bytes{place="cache"}': f"{10 * GIB}x2000",
            'kitd_disk_size_bytes{place="cache"}': f"{230 * GIB}x2000",
        },
    ),
    (
        "a disk that is small, with a fair share of it free",
        {
            'kitd_disk_free_bytes{place="state"}': f"{GIB // 5}x2000",
            'kitd_disk_size_bytes{place="state"}': f"{GIB}x2000",
        },
    ),
    (
        "a stranger tries a secret",
        {'kitd_webhook_deliveries_total{source="hub",verdict="refused"}': "0x20 1x2000"},
    ),
    (
        "a reload takes away an endpoint that has missed events, and gives it back",
        {'kitd_notification_dropped_total{endpoint="chat"}': "50x20 stale _x40 50x2000"},
    ),
    (
        "another program has no descriptors left",
        {
            'process_open_fds{job="node"}': "95x2000",
            'process_max_fds{job="node"}': "100x2000",
            'process_start_time_seconds{job="node"}': " ".join(f"{n}x5" for n in range(99)),
            'up{job="node"}': "0x2000",
        },
    ),
]


def labelled(name):
    """Return the name of a series with the labels that Prometheus adds, where it has none."""
    metric, _, labels = name.partition("{")
    labels = labels.rstrip("}")
    if not re.search(r"\bjob=", labels):
        labels = ",".join(filter(None, [labels, 'job="kitd"']))
    if "instance=" not in labels:
        labels = f'{labels},instance="a"'
    return f"{metric}{{{labels}}}"


@pytest.fixture
def judge(tmp_path):
    """Return what promtool says of series, and of what is expected of them."""

    def judge(series, test, external_labels=None):
        values = {labelled(name): text for name, text in (WELL | series).items()}
        document = {
            "rule_files": [str(RULES)],
            "evaluation_interval": "15s",
            "tests": [
                {
                    "interval": "15s",
                    "external_labels": external_labels or {},
                    "input_series": [{"series": name, "values": values[name]} for name in values],
                    **test,
                }
            ],
        }
        path = tmp_path / "test.yml"
        # JSON is YAML.
        path.write_text(json.dumps(document))
        return subprocess.run(
            [require("promtool"), "test", "rules", path],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return judge


@pytest.fixture
def firing(judge):
    """Check which alerts fire after so many steps."""

    def firing(series, step, expected):
        asked = {
            "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
            "eval_time": f"{step * 15}s",
            "exp_samples": [
                {"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(expected)
            ],
        }
        done = judge(series, {"promql_expr_test": [asked]})
        assert done.returncode == 0, done.stdout + done.stderr

    return firing


@pytest.mark.parametrize(
    ("series", "step", "alerts"), [case[1:] for case in FIRES], ids=[case[0] for case in FIRES]
)
def test_it_fires(firing, series, step, alerts):
    firing(series, step, alerts)


@pytest.mark.parametrize("series", [case[1] for case in QUIET], ids=[case[0] for case in QUIET])
def test_it_is_quiet(judge, series):
    """At no time: a page in the middle of the night is over in the morning."""
    asked = [
        {
            "expr": 'count_over_time(ALERTS{alertstate="firing"}[3h])',
            "eval_time": "3h",
            "exp_samples": [],
        }
    ]
    done = judge(series, {"promql_expr_test": asked})
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_was_seen_to_fire():
    assert {alert for *_, alerts in FIRES for alert in alerts} == set(ALERTS)


def test_the_series_are_those_of_kitd():
    metrics = {metric.name: set(metric.labels) for metric in CATALOGUE}
    for name in {name for case in (*FIRES, *QUIET) for name in case[1]} - {"up", 'up{job="node"}'}:
        metric, _, labels = name.partition("{")
        known = metrics[metric.removesuffix("_bucket")]
        assert set(re.findall(r"(\w+)=", labels)) - {"job", "le"} <= known, name


@pytest.mark.parametrize(
    ("series", "ready", "degraded"),
    [
        ({}, 1, 0),
        ({'kitd_degraded{reason="x"}': "2x2000"}, 1, 2),
        ({"kitd_ready": "0x2000"}, 0, 0),
        # A scrape that fails takes away all that is not `up`.
        ({"up": "1x40 0x2000", "kitd_ready": "1x40 stale"}, 0, None),
        ({"up": "1x40 stale", "kitd_ready": "1x40 stale"}, None, None),
        ({"up": "0x2000", "kitd_ready": "0 stale", 'kitd_ready{instance="b"}': "1x2000"}, 0, None),
    ],
)
def test_the_dashboard_is_not_green_while_kitd_is_down(judge, series, ready, degraded):
    stats = {
        panel["title"]: panel["targets"][0]["expr"].replace("$instance", ".+")
        for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
        if panel["type"] == "stat"
    }
    asked = [
        {
            "expr": stats[title],
            "eval_time": "1h",
            "exp_samples": [] if value is None else [{"labels": "{}", "value": value}],
        }
        for title, value in (("Ready", ready), ("Degraded", degraded))
    ]
    done = judge(series, {"promql_expr_test": asked})
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("labels", "url"),
    [
        ({}, ""),
        (
            {"kitd_docs": "https://docs.example.com/metrics.html"},
            "https://docs.example.com/metrics.html#kitddown",
        ),
    ],
)
def test_an_alert_leads_to_where_the_page_is_kept(judge, labels, url):
    notes = ALERTS["KitdDown"]["annotations"]
    expected = {
        "exp_labels": {"severity": "page", "instance": "a", "job": "kitd"},
        "exp_annotations": {
            "summary": "kitd at a does not answer",
            "description": notes["description"],
            "runbook": "docs/metrics.md of kitd, under KitdDown",
            "runbook_url": url,
        },
    }
    test = {"eval_time": "20m", "alertname": "KitdDown", "exp_alerts": [expected]}
    done = judge({"up": "0x2000"}, {"alert_rule_test": [test]}, labels)
    assert done.returncode == 0, done.stdout + done.stderr
