"""Facts about mirrors and the jobs that follow from them."""

from dataclasses import replace

import msgspec
import pytest

from kitd.jobs.survey import SurveyArgs
from kitd.mirror.order import (
    AS_USUAL,
    Conflicts,
    Deletes,
    MirrorOrder,
    MirrorWish,
    Selection,
    TargetOrder,
)
from kitd.mirror.route import Route
from kitd.mirror.rule import Rule
from kitd.oci.digest import Digest
from kitd.oci.reference import parse_repository
from kitd.queue.fact import MirrorAsked, MirrorDue, RepositoriesFound, RepositoryChanged
from kitd.queue.job import Lane
from kitd.queue.kind import HUMAN
from kitd.triggers import requests_for

A, B = (Digest(f"sha256:{letter * 64}") for letter in "ab")
MODEL = parse_repository("a.io/team/model")
THOROUGH = MirrorWish(thorough=True)


def rule(name, source, target, *repositories, **given):
    ends = tuple(TargetOrder(repository=end) for end in target.split())
    return Rule(
        name=name,
        route=Route(source, repositories, ends),
        **{
            "select": Selection(),
            "referrers": True,
            "digest_tags": True,
            "deletes": Deletes.IGNORE,
            "grace_s": 60.0,
            "conflicts": Conflicts.OVERWRITE,
            "schedule": None,
            **given,
        },
    )


PROD = rule("prod", "a.io/team/model", "b.io/model c.io/model")
TEAM = rule("team", "a.io/team", "d.io/team", "m*")
NAMED = rule("named", "a.io/team", "d.io/team", "model", "other")
OTHER = rule("other", "z.io/x", "b.io/x")


def args_of(request, kind=MirrorOrder):
    return msgspec.json.decode(request.args, type=kind)


def changed(*tags, manifests=(), repository=MODEL):
    return RepositoryChanged(repository=repository, tags=tags, manifests=manifests)


def orders(fact, *rules):
    """Return rule, tags and manifests of each order that follows."""
    found = map(args_of, requests_for(fact, rules))
    return [(order.rule, order.tags, order.manifests) for order in found]


def test_a_change_asks_for_one_job_for_each_tag_and_target():
    assert orders(changed("v1", "latest"), OTHER, PROD, TEAM) == [
        *[("prod", ("v1",), ())] * 2,
        *[("prod", ("latest",), ())] * 2,
        ("team", ("v1",), ()),
        ("team", ("latest",), ()),
    ]


def test_what_a_change_asks_for_is_what_its_rule_says():
    (request,) = requests_for(changed("v1"), [TEAM, OTHER])
    assert (request.kind, request.lane, request.priority) == ("mirror", Lane.MIRROR, 0)
    assert (request.project, request.reference) == (None, "d.io/team/model")
    order = args_of(request)
    assert order.source == "a.io/team/model"
    assert order.target == TargetOrder(repository="d.io/team/model")
    assert not order.by_many
    assert order.wish == AS_USUAL


def test_manifests_without_a_tag_are_looked_at_in_one_job_where_referrers_are_wanted():
    fact = changed(manifests=(A, B))
    bare = rule("bare", "a.io/team/model", "e.io/model", referrers=False)
    assert orders(fact, TEAM, bare) == [("team", (), (A, B))]


def test_tags_and_manifests_do_not_wait_for_each_other():
    assert orders(changed("v1", manifests=(A,)), TEAM) == [
        ("team", ("v1",), ()),
        ("team", (), (A,)),
    ]


def test_each_target_has_a_job_of_its_own_that_waits_for_no_other():
    requests = requests_for(changed("v1"), [PROD])
    assert [args_of(each).target.repository for each in requests] == ["b.io/model", "c.io/model"]
    assert all(args_of(each).by_many for each in requests)
    assert len({each.key for each in requests}) == len({each.lock for each in requests}) == 2


@pytest.mark.parametrize(
    "fact",
    [
        changed(),
        changed("v1", repository=parse_repository("a.io/team/other")),
        changed("v1", repository=parse_repository("b.io/model")),
        changed("v1", manifests=(A,), repository=parse_repository("a.io/model")),
    ],
)
def test_what_no_rule_carries_asks_for_nothing(fact):
    assert requests_for(fact, [PROD, OTHER]) == ()


def test_without_mirrors_nothing_is_mirrored():
    assert requests_for(changed("v1")) == ()


@pytest.mark.parametrize(
    ("by_person", "priority", "why"),
    [(False, 0, "its time has come"), (True, HUMAN, "somebody asked for it")],
)
def test_a_mirror_that_is_due_looks_at_each_of_its_repositories(by_person, priority, why):
    fact = MirrorDue(rule="named", wish=THOROUGH, by_person=by_person)
    requests = requests_for(fact, [PROD, NAMED])
    found = [(args_of(each).source, args_of(each).tags, args_of(each).wish) for each in requests]
    assert found == [("a.io/team/model", None, THOROUGH), ("a.io/team/other", None, THOROUGH)]
    assert {(each.kind, each.priority, each.why) for each in requests} == {
        ("mirror", priority, why)
    }


@pytest.mark.parametrize(("by_person", "priority"), [(False, 0), (True, HUMAN)])
def test_globs_lead_to_a_survey(by_person, priority):
    wild = rule("wild", "a.io/team", "d.io", "model", "m*", "x/**")
    fact = MirrorDue(rule="wild", wish=THOROUGH, by_person=by_person)
    (request,) = requests_for(fact, [PROD, wild])
    assert (request.kind, request.lane, request.priority) == ("survey", Lane.MIRROR, priority)
    assert request.key.startswith("survey:wild {")
    assert request.lock == "survey:wild"
    assert request.reference == "a.io/team"
    assert args_of(request, SurveyArgs) == SurveyArgs(
        rule="wild",
        repositories=("a.io/team/model", "a.io/team/m*", "a.io/team/x/**"),
        wish=THOROUGH,
        priority=priority,
    )


def test_each_repository_that_a_survey_found_is_mirrored():
    repositories = tuple(map(parse_repository, ["a.io/team/m1", "a.io/team/m2"]))
    fact = RepositoriesFound(rule="team", repositories=repositories, wish=THOROUGH, priority=7)
    requests = requests_for(fact, [PROD, TEAM])
    assert [(args_of(each).source, each.priority) for each in requests] == [
        ("a.io/team/m1", 7),
        ("a.io/team/m2", 7),
    ]
    for request in requests:
        order = args_of(request)
        assert (order.rule, order.tags, order.wish) == ("team", None, THOROUGH)


@pytest.mark.parametrize(
    "fact",
    [
        MirrorDue(rule="gone"),
        MirrorDue(rule="gone", by_person=True),
        RepositoriesFound(rule="gone", repositories=(MODEL,), wish=AS_USUAL, priority=0),
    ],
)
def test_a_rule_that_is_gone_by_now_asks_for_nothing(fact):
    assert requests_for(fact, [PROD, TEAM]) == ()


def test_what_a_person_names_is_mirrored_as_it_was_asked_for():
    order = MirrorOrder(
        rule=None,
        source="x.io/any",
        target=TargetOrder(repository="y.io/any"),
        tags=("v1", "v2"),
        wish=MirrorWish(dry_run=True),
    )
    (request,) = requests_for(MirrorAsked(order), [PROD])
    assert args_of(request) == order
    assert (request.priority, request.reference) == (HUMAN, "y.io/any")


def test_an_order_says_whether_another_rule_brings_back_what_it_copies():
    back = rule("back", "b.io/model", "a.io/team/model")
    for fact in (changed("v1"), MirrorDue(rule="prod")):
        assert not any(args_of(each).returns for each in requests_for(fact, [PROD]))
        returned, other = requests_for(fact, [PROD, back])
        assert args_of(returned).returns
        assert not args_of(other).returns


# Behind whose other jobs they wait.


@pytest.mark.parametrize(
    ("fact", "owner"),
    [
        (changed("v1"), "mirror:team"),
        (MirrorDue(rule="team"), "mirror:team"),
        (
            RepositoriesFound(rule="team", repositories=(MODEL,), wish=AS_USUAL, priority=0),
            "mirror:team",
        ),
        (
            MirrorAsked(
                MirrorOrder(rule=None, source="x.io/x", target=TargetOrder(repository="y.io/y"))
            ),
            "kitd",
        ),
    ],
)
def test_what_a_mirror_asks_for_waits_behind_the_rest_of_it(fact, owner):
    (request,) = requests_for(fact, [TEAM])
    assert request.owner == owner
    assert replace(request, asked_by=1000).owner == "user:1000"


# Which of them are one, and which wait for each other.

BACK = rule("back", "d.io/team", "a.io/team", "m*")
PLAN = MirrorWish(dry_run=True)


def due(name, wish=AS_USUAL, repositories=(MODEL,)):
    return RepositoriesFound(rule=name, repositories=repositories, wish=wish, priority=0)


def by_hand(wish=AS_USUAL, **given):
    order = {"rule": None, "source": "x.io/x", "target": TargetOrder(repository="y.io/y")}
    return MirrorAsked(MirrorOrder(**{**order, **given}, wish=wish))


def one(fact):
    (request,) = requests_for(fact, [TEAM, BACK])
    return request


@pytest.mark.parametrize(
    ("fact", "other"),
    [
        pytest.param(changed("v1"), changed("v1"), id="one tag"),
        pytest.param(due("team"), due("team"), id="all tags"),
        pytest.param(changed(manifests=(A,)), changed(manifests=(A,)), id="one manifest"),
        pytest.param(due("team", PLAN), due("team", PLAN), id="a plan"),
        pytest.param(by_hand(), by_hand(), id="by hand"),
    ],
)
def test_equal_wishes_are_one(fact, other):
    assert one(fact) == one(other)


def test_a_more_thorough_look_is_not_served_by_another():
    usual, thorough = one(due("team")), one(due("team", THOROUGH))
    assert usual.key != thorough.key
    assert usual.lock == thorough.lock


@pytest.mark.parametrize(
    ("fact", "other"),
    [
        pytest.param(changed("v1"), changed("v2"), id="two tags"),
        pytest.param(changed("v1"), due("team"), id="one tag, and all"),
        pytest.param(changed(manifests=(A,)), changed(manifests=(B,)), id="two manifests"),
        pytest.param(changed(manifests=(A,)), due("team"), id="a manifest, and all tags"),
        pytest.param(
            due("team"),
            due("team", repositories=(parse_repository("a.io/team/m2"),)),
            id="two repositories",
        ),
        pytest.param(due("team"), due("team", PLAN), id="a copy and a plan"),
        pytest.param(by_hand(), by_hand(tags=("v1",)), id="by hand, and one tag of it"),
        pytest.param(
            by_hand(), by_hand(target=TargetOrder(repository="z.io/z")), id="to two targets"
        ),
        pytest.param(by_hand(), by_hand(PLAN), id="by hand, and a plan of it"),
    ],
)
def test_other_wishes_are_jobs_of_their_own(fact, other):
    assert one(fact).key != one(other).key


def test_the_same_tag_of_two_rules_is_two_jobs():
    first, second = requests_for(changed("v1"), [NAMED, TEAM])
    assert first.key != second.key


def test_the_two_directions_of_a_pair_take_turns():
    there = one(changed("v1"))
    back = one(changed("v2", repository=parse_repository("d.io/team/model")))
    assert args_of(back).target == TargetOrder(repository=args_of(there).source)
    assert there.lock == back.lock
    assert there.key != back.key


def test_mirrors_of_two_repositories_run_at_once():
    repositories = tuple(map(parse_repository, ["a.io/team/m1", "a.io/team/m2"]))
    first, second = requests_for(due("team", repositories=repositories), [TEAM])
    assert first.lock != second.lock


def test_a_plan_waits_for_no_copy():
    assert one(due("team")).lock != one(due("team", PLAN)).lock
    assert one(by_hand()).lock != one(by_hand(PLAN)).lock
