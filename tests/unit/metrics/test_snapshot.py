"""From readings to metrics."""

import pytest

from kitd.ledger.meter_ledger import Cursor, LedgerReading
from kitd.ledger.tally import Tallied
from kitd.metrics import catalogue
from kitd.metrics.names import Names
from kitd.metrics.sight import Health
from kitd.metrics.snapshot import (
    health_families,
    ledger_families,
    registry_families,
    webhook_families,
)
from kitd.queue.job import JobState, Lane
from kitd.registry.governor import Closure
from kitd.rpc.methods.wire import WireProject, WireReason

NAMES = Names(
    registries={"a.example.com"},
    projects={"demo"},
    mirrors={"prod"},
    sources={"hub"},
    endpoints={"chat"},
)


def by_name(families):
    return {family.metric: family.values for family in families}


@pytest.fixture
def ledger():
    """What a ledger tells, where nothing has happened but what is given."""

    def ledger(**given):
        plain = {"head_seq": 0, "queue": {}, "oldest_us": {}, "cursors": {}}
        tallies = {each: {} for each in Tallied}
        tallies |= given.pop("tallies", {})
        reading = LedgerReading(**{**plain, **given}, tallies=tallies)
        return by_name(ledger_families(reading, ("pack", "push"), NAMES, 10_000_000))

    return ledger


def test_what_can_happen_is_there_before_it_does(ledger):
    found = ledger()
    assert found[catalogue.JOBS]["push", "failed"] == 0
    assert found[catalogue.MIRROR_EDGES]["prod", "conflict"] == 0
    assert found[catalogue.NOTIFICATION_DROPPED] == {("chat",): 0}
    deliveries = by_name(webhook_families({}, NAMES))[catalogue.DELIVERIES]
    for verdict in ("accepted", "malformed", "refused", "busy", "unread"):
        assert deliveries["hub", verdict] == 0
    closed = by_name(registry_families({}, {}, {}, NAMES))[catalogue.REGISTRY_CLOSED]
    assert closed["a.example.com", "failing"] == closed["other", "forbidden"] == 0


def test_what_a_reload_took_out_of_the_configuration_moves_nowhere(ledger):
    """Under another name it would look as if all of it had just happened."""
    tallies = {
        Tallied.MIRROR_EDGE: {("", "copied"): 1, ("gone", "copied"): 2, ("prod", "copied"): 3},
        Tallied.NOTIFICATION: {("gone", "dropped"): 4, ("chat", "dropped"): 5},
    }
    found = ledger(tallies=tallies)
    copied = {
        name: count
        for (name, outcome), count in found[catalogue.MIRROR_EDGES].items()
        if outcome == "copied"
    }
    assert copied == {"other": 1, "prod": 3}
    assert found[catalogue.NOTIFICATION_DROPPED] == {("chat",): 5}
    verdicts = {("", "unknown"): 2, ("hub", "accepted"): 1, ("gone", "refused"): 3}
    deliveries = by_name(webhook_families(verdicts, NAMES))[catalogue.DELIVERIES]
    assert {labels: count for labels, count in deliveries.items() if count} == {
        ("other", "unknown"): 2,
        ("hub", "accepted"): 1,
    }


def test_what_the_configuration_does_not_know_is_summed_up(ledger):
    tallies = {Tallied.JOB: {("pack", "failed"): 1, ("old", "failed"): 2, ("older", "failed"): 3}}
    found = ledger(tallies=tallies)
    assert found[catalogue.JOBS]["pack", "failed"] == 1
    assert found[catalogue.JOBS]["other", "failed"] == 5
    answers = {("a.example.com", "2xx"): 1, ("b", "2xx"): 2, ("c", "2xx"): 3}
    troubled = {"b": {Closure.FAILING}, "c": {Closure.FAILING, Closure.FORBIDDEN}}
    found = by_name(registry_families(answers, {}, troubled, NAMES))
    assert found[catalogue.REGISTRY_REQUESTS] == {("a.example.com", "2xx"): 1, ("other", "2xx"): 5}
    closed = found[catalogue.REGISTRY_CLOSED]
    assert (closed["other", "failing"], closed["other", "forbidden"]) == (2, 1)


def test_the_queue_and_its_oldest(ledger):
    found = ledger(queue={(JobState.READY, Lane.PUSH): 7}, oldest_us={Lane.PUSH: 2_500_000})
    assert found[catalogue.QUEUE_JOBS]["ready", "push"] == 7
    assert found[catalogue.QUEUE_JOBS]["running", "push"] == 0
    assert found[catalogue.QUEUE_OLDEST]["push",] == 7.5
    assert found[catalogue.QUEUE_OLDEST]["pack",] == 0
    # The clock went back meanwhile.
    assert ledger(oldest_us={Lane.PUSH: 99_000_000})[catalogue.QUEUE_OLDEST]["push",] == 0


def test_how_far_behind_endpoints_are(ledger):
    found = ledger(head_seq=100, cursors={"chat": Cursor(90, 3), "gone": Cursor(1, 1)})
    assert found[catalogue.NOTIFICATION_LAG] == {("chat",): 10}
    assert found[catalogue.NOTIFICATION_FAILURES] == {("chat",): 3}


def test_projects_that_were_added_have_no_names_here():
    def project(name, state, source):
        return WireProject(
            name=name,
            path="/srv/x",
            reference="x",
            tags=(),
            push=True,
            state=state,
            reason=None,
            holds=(),
            warnings=(),
            last_digest=None,
            last_packed="1970-01-01T00:01:40.500Z",
            last_job=None,
            source=source,
        )

    projects = [
        project("demo", "idle", "config"),
        project("one", "blocked", "added"),
        project("two", "blocked", "added"),
    ]
    reasons = [WireReason("project_blocked", "text", "fix")] * 2
    found = by_name(health_families(Health(projects, reasons), NAMES))
    assert found[catalogue.DEGRADED] == {("project_blocked",): 2}
    assert found[catalogue.PROJECT_BLOCKED] == {("demo",): 0, ("other",): 2}
    assert found[catalogue.PROJECTS]["blocked",] == 2
    assert found[catalogue.PROJECTS]["held",] == 0
    assert found[catalogue.PROJECT_PACKED] == {("demo",): 100.5}
