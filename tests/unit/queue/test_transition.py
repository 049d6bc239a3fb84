"""The state machine: every state against every signal, and how a wish meets a waiting job."""

import itertools
import re
from dataclasses import replace

import pytest

from kitd.ledger.schema import migrations
from kitd.queue.job import TERMINAL, WAITING, JobRequest, JobState, Lane
from kitd.queue.transition import (
    TRANSITIONS,
    Admission,
    IllegalTransitionError,
    Signal,
    admit,
    step,
)

LEGAL = {
    "scheduled": {"due": "ready", "cancel": "cancelled", "supersede": "superseded"},
    "ready": {"claim": "running", "cancel": "cancelled", "supersede": "superseded"},
    "running": {
        "succeed": "succeeded",
        "fail": "failed",
        "back_off": "scheduled",
        "interrupt": "ready",
        "cancel": "cancelled",
        "supersede": "superseded",
    },
    "succeeded": {},
    "failed": {"retry": "ready"},
    "cancelled": {"retry": "ready"},
    "superseded": {},
}


@pytest.mark.parametrize(("state", "signal"), list(itertools.product(JobState, Signal)))
def test_every_signal_leads_somewhere_or_is_illegal(state, signal):
    following = LEGAL[state].get(signal)
    if following is None:
        with pytest.raises(IllegalTransitionError) as caught:
            step(state, signal)
        assert caught.value.code == "conflict"
        assert str(state) in caught.value.message
        assert "_" not in caught.value.message
    else:
        assert step(state, signal) is JobState(following)


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_only_a_person_brings_an_ended_job_back(state):
    assert {signal for (at, signal) in TRANSITIONS if at is state} <= {Signal.RETRY}


def test_no_state_is_both_waiting_and_ended_and_only_running_is_neither():
    assert WAITING.isdisjoint(TERMINAL)
    assert set(JobState) - WAITING - TERMINAL == {JobState.RUNNING}


def test_every_state_can_be_reached_from_a_new_job():
    reached = {JobState.READY}
    while more := {to for (at, _), to in TRANSITIONS.items() if at in reached} - reached:
        reached |= more
    assert reached == set(JobState)


def test_the_file_knows_the_same_states():
    """The CHECK lists of the schema are the state machine's states, spelled out again."""
    schema = "\n".join(migrations())
    states = re.search(r"CHECK \(state IN \(([^)]*)\)\)", schema)
    ended = re.search(r"\(finished_us IS NOT NULL\)\s*=\s*\(state IN \(([^)]*)\)\)", schema)
    waiting = re.search(r"jobs_waiting ON jobs \(key\) WHERE state IN \(([^)]*)\)", schema)
    for found, expected in ((states, set(JobState)), (ended, TERMINAL), (waiting, WAITING)):
        assert found is not None
        assert set(re.findall(r"'(\w+)'", found[1])) == set(expected)


def request(args: bytes) -> JobRequest:
    return JobRequest(
        kind="pack", lane=Lane.PACK, key="pack:demo", lock="pack:/x", args=args, max_attempts=3
    )


def test_a_wish_with_nothing_waiting_is_a_new_job():
    assert admit(request(b"{}"), None, None) is Admission.INSERT


@pytest.mark.parametrize("state", sorted(WAITING))
def test_an_equal_wish_joins_and_another_replaces_what_waits(state, job):
    waiting = job(state=state, args=b'{"tags":["a"]}')
    assert admit(request(b'{"tags":["a"]}'), waiting, None) is Admission.JOIN
    assert admit(request(b'{"tags":["b"]}'), waiting, None) is Admission.REPLACE


@pytest.mark.parametrize(
    ("args", "asked_by", "admission"),
    [
        (b"{}", None, Admission.REFUSE),
        (b"other", None, Admission.INSERT),
        (b"{}", 1000, Admission.INSERT),
    ],
)
def test_only_a_person_gets_what_was_set_aside_tried_again(job, args, asked_by, admission):
    set_aside = job(state=JobState.FAILED, args=b"{}")
    wish = replace(request(args), asked_by=asked_by)
    assert admit(wish, None, set_aside) is admission


def test_what_waits_goes_before_what_was_set_aside(job):
    waiting, set_aside = job(), job(state=JobState.FAILED)
    assert admit(request(b"{}"), waiting, set_aside) is Admission.JOIN
