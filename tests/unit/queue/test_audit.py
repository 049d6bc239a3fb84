"""The replay of a job's events: silent on what can have happened, and on nothing else."""

import random

import pytest

from kitd.queue.audit import Finding, Found, Told, audit_followers, audit_job
from kitd.queue.job import JobState

S = JobState


def told(*types: str, first: int = 1) -> list[Told]:
    return [
        Told(seq, kind if "." in kind else f"job.{kind}") for seq, kind in enumerate(types, first)
    ]


def findings(types: str, row: Found | None, *, complete: bool = True) -> list[str]:
    found = list(audit_job(7, told(*types.split()), row, complete=complete))
    assert all(finding.job == 7 for finding in found)
    return [finding.text for finding in found]


@pytest.mark.parametrize(
    ("types", "state", "claim"),
    [
        ("created", S.READY, 0),
        ("created started", S.RUNNING, 1),
        ("created started succeeded", S.SUCCEEDED, 1),
        ("created started retrying due started failed", S.FAILED, 2),
        ("created started retrying joined started succeeded", S.SUCCEEDED, 2),
        ("created joined joined", S.READY, 0),
        ("created started interrupted started cancelling cancelled", S.CANCELLED, 2),
        ("created started cancelling succeeded", S.SUCCEEDED, 1),
        ("created cancelled retried started failed retried", S.READY, 1),
        ("created superseded", S.SUPERSEDED, 0),
        ("created started superseded", S.SUPERSEDED, 1),
        ("created started effect.of.it kit.packed succeeded", S.SUCCEEDED, 1),
    ],
)
def test_what_can_have_happened_is_fine(types, state, claim):
    assert findings(types, Found(state, claim)) == []


@pytest.mark.parametrize(
    ("types", "row", "text"),
    [
        ("created succeeded", Found(S.SUCCEEDED, 0), "job.succeeded, event 2, cannot follow"),
        ("created started started", Found(S.RUNNING, 2), "job.started, event 3, cannot follow"),
        (
            "created started succeeded failed",
            Found(S.FAILED, 1),
            "job.failed, event 4, cannot follow: it was succeeded",
        ),
        (
            "created started succeeded retried",
            Found(S.READY, 1),
            "job.retried, event 4, cannot follow",
        ),
        ("created due", Found(S.READY, 0), "job.due, event 2, cannot follow"),
        ("created started joined", Found(S.READY, 1), "job.joined, event 3, cannot follow"),
        ("created started", Found(S.SUCCEEDED, 1), "it is succeeded, and by its events running"),
        ("created started succeeded", Found(S.SUCCEEDED, 2), "it was started 2 times, and 1"),
        ("created created", Found(S.READY, 0), "it was created again by event 2"),
        ("started succeeded", Found(S.SUCCEEDED, 1), "it begins with job.started, event 1"),
        ("", Found(S.READY, 0), "it is ready, and no event tells of it"),
        ("created exploded", Found(S.READY, 0), "event 2 is a job.exploded, which nothing writes"),
        ("created started", None, "it is gone, and was running"),
    ],
)
def test_one_mistake_is_one_finding(types, row, text):
    (found,) = findings(types, row)
    assert text in found


@pytest.mark.parametrize(
    ("types", "state"),
    [
        ("", S.FAILED),
        ("due", S.READY),
        ("succeeded", S.SUCCEEDED),
        ("retrying due started", S.RUNNING),
        ("cancelling", S.RUNNING),
    ],
)
def test_a_job_whose_first_events_are_forgotten_is_judged_by_the_rest(types, state):
    assert findings(types, Found(state, 3), complete=False) == []


@pytest.mark.parametrize(
    ("types", "row"),
    [
        ("due succeeded", Found(S.SUCCEEDED, 1)),
        ("succeeded started", Found(S.RUNNING, 1)),
        ("succeeded", Found(S.FAILED, 1)),
        ("retrying", None),
    ],
)
def test_what_cannot_follow_from_anything_is_found(types, row):
    assert len(findings(types, row, complete=False)) == 1


def test_a_job_that_was_forgotten_after_its_end_is_fine():
    assert findings("created started succeeded", None) == []
    assert findings("succeeded", None, complete=False) == []


def test_events_out_of_order_are_found():
    events = [Told(5, "job.created"), Told(4, "job.started")]
    (finding,) = audit_job(1, events, Found(S.RUNNING, 1), complete=True)
    assert finding == Finding(1, "event 4 follows event 5")


def test_an_event_that_is_lost_is_found_wherever_it_was():
    """Each event of a long history matters to the replay, or to the number of starts."""
    history = ["created", "started", "retrying", "due", "started", "interrupted", "started"]
    history += ["cancelling", "cancelled"]
    row = Found(S.CANCELLED, 3)
    for lost in range(len(history)):
        if history[lost] == "cancelling":
            continue
        kept = [kind for at, kind in enumerate(history) if at != lost]
        assert findings(" ".join(kept), row), history[lost]


def test_noise_is_found():
    """Random histories agree with the table: legal ones are silent, all others are not."""
    chance = random.Random(4)
    kinds = ["due", "started", "succeeded", "failed", "retrying", "interrupted", "cancelled"]
    loud = 0
    for _ in range(500):
        types = " ".join(["created", *chance.choices(kinds, k=chance.randint(1, 5))])
        claim = types.count("started")
        loud += all(findings(types, Found(state, claim)) for state in JobState)
    assert 300 < loud < 500


@pytest.mark.parametrize(("followers", "count"), [((), 0), ((3, 9), 0), ((10,), 1), ((0, -1), 2)])
def test_followers_that_never_were_are_found(followers, count):
    row = Found(S.SUCCEEDED, 1, followers)
    assert len(list(audit_followers(1, row, newest=9))) == count
