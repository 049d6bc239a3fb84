"""Kinds turn arguments into wishes and back: equal arguments are equal bytes."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitd.jobs import KINDS
from kitd.queue.job import Lane
from kitd.queue.kind import Done, JobKind
from kitd.queue.retry import RetryPolicy


class Args(msgspec.Struct, frozen=True, kw_only=True):
    zebra: str
    apple: tuple[str, ...] = ()
    middle: int | None = None


class Result(msgspec.Struct, frozen=True):
    args: Args


async def run(args, context, ports):
    assert ports == "ports"
    context.report("seen")
    return Done(Result(args))


KIND = JobKind(
    name="try",
    lane=Lane.PULL,
    args=Args,
    retry=RetryPolicy(max_attempts=7),
    key=lambda args: args.zebra,
    lock=lambda args: args.zebra[:1],
    run=run,
)


class Context:
    """A context that remembers what was reported."""

    def __init__(self, job):
        self.job = job
        self.reported = []

    def report(self, progress):
        self.reported.append(progress)

    def when_over(self, release):
        """Nothing is held."""


ARGS = st.builds(
    Args,
    zebra=st.text(),
    apple=st.lists(st.text(), max_size=3).map(tuple),
    middle=st.none() | st.integers(-(2**63), 2**63 - 1),
)


def test_a_wish_carries_what_its_kind_says():
    request = KIND.request(Args(zebra="stripes"), project="p", reference="r/x", priority=4)
    assert (request.kind, request.lane, request.max_attempts) == ("try", Lane.PULL, 7)
    assert (request.key, request.lock) == ("try:stripes", "try:s")
    assert (request.project, request.reference, request.priority) == ("p", "r/x", 4)


@given(ARGS)
def test_arguments_are_json_with_sorted_keys(args):
    document = json.loads(KIND.request(args).args)
    assert list(document) == ["apple", "middle", "zebra"]
    assert msgspec.convert(document, Args) == args


@given(ARGS, ARGS)
def test_wishes_are_equal_where_their_arguments_are(one, other):
    assert (KIND.request(one).args == KIND.request(other).args) == (one == other)


async def test_an_attempt_gets_its_arguments_back(job):
    args = Args(zebra="Grévy", apple=("a", "b"), middle=3)
    context = Context(job(args=KIND.request(args).args))
    assert await KIND.attempt(context, "ports") == Done(Result(args))
    assert context.reported == ["seen"]


def test_kinds_are_listed_by_their_names_and_each_has_its_lane():
    assert {name: kind.name for name, kind in KINDS.items()} == {n: n for n in KINDS}
    assert {kind.lane for kind in KINDS.values()} == set(Lane)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_kinds_try_more_than_once(kind):
    assert kind.retry.max_attempts > 1
