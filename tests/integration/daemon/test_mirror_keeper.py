"""Mirrors start when they are due, and follow what events tell of, with a real ledger."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime

import msgspec
import pytest

from kitd.config.model import (
    Config,
    MirrorConfig,
    MirrorTargetConfig,
    RpcConfig,
    TagFilterConfig,
)
from kitd.daemon.mirror_keeper import MANY_JOBS, MirrorKeeper
from kitd.errors import KitdError
from kitd.ledger import mirror_ledger
from kitd.ledger.database import Database
from kitd.ledger.mirror_ledger import MAX_GIVEN_UP, MirrorLedger
from kitd.mirror.edge import Agreed, Edge, Failed, Gone
from kitd.mirror.order import Deletes, MirrorOrder
from kitd.mirror.schedule import Interval, parse_cron
from kitd.oci.digest import Digest
from kitd.oci.reference import Repository
from kitd.rpc.methods.services import StartTimes
from kitd.webhooks.delivery import Action, Change

A, B = (Digest(f"sha256:{letter * 64}") for letter in "ab")
HOUR = Interval(3600.0)
HOUR_US = 3_600_000_000
SPREAD_US = 60_000_000
"""The most that a start is later than its schedule has it."""


class ManualClock:
    """A clock with hands."""

    def __init__(self):
        self.at_us = int(datetime(2024, 5, 6, 12, 0, 30).timestamp()) * 1_000_000  # noqa: DTZ001

    def now_us(self):
        return self.at_us

    def monotonic_s(self):
        return self.at_us / 1_000_000


class TellingLedger(MirrorLedger):
    """The real one, which tells of each start that it has noted."""

    def __init__(self, database, clock):
        super().__init__(database, clock)
        self.noted = asyncio.Queue()

    async def note_start(self, rule, at_us):
        await super().note_start(rule, at_us)
        self.noted.put_nowait((rule, at_us))


def mirror(source, *targets, schedule=None, **fields):
    ends = tuple(MirrorTargetConfig(repository=target) for target in targets)
    return MirrorConfig(source=source, targets=ends, schedule=schedule, **fields)


class World:
    """A keeper, its configuration, and what it asked for."""

    def __init__(self, tmp_path, database):
        self.clock = ManualClock()
        self.ledger = TellingLedger(database, self.clock)
        self.config = Config(state_dir=tmp_path, rpc=RpcConfig(socket=tmp_path / "socket"))
        self.asked = asyncio.Queue()
        self.jobs = Counter()
        self.keeper = self.restart()

    def restart(self):
        self.keeper = MirrorKeeper(
            lambda: self.config, self.ledger, self.clock, self.ask, self.under_way
        )
        return self.keeper

    async def under_way(self, lock, limit):
        return min(self.jobs[lock], limit)

    async def ask(self, request):
        self.asked.put_nowait(request)

    def mirrors(self, **mirrors):
        self.config = replace(self.config, mirrors=mirrors)

    @asynccontextmanager
    async def running(self):
        async with asyncio.timeout(20):
            task = asyncio.create_task(self.keeper.run())
            yield
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

    async def starts(self, count=1):
        """Let the keeper run until it has noted so many starts; return mirrors and kinds."""
        async with self.running():
            for _ in range(count):
                await self.ledger.noted.get()
        found = []
        while not self.asked.empty():
            request = self.asked.get_nowait()
            found.append((request.mirror, request.kind))
        return found

    async def follow(self, *changes, registry="a.io"):
        requests = await self.keeper.follow_changes(registry, changes)
        orders = [msgspec.json.decode(request.args, type=MirrorOrder) for request in requests]
        return [(order.rule, order.tags, order.manifests) for order in orders]

    async def looked_after(self):
        """Let the keeper look after things once; return the tags that each job is for."""
        await self.keeper.look_after()
        found = []
        while not self.asked.empty():
            order = msgspec.json.decode(self.asked.get_nowait().args, type=MirrorOrder)
            found.append((order.rule, order.tags))
        return found

    async def agree(self, source, target, tag="v1", digest=A):
        ends = [Repository(*text.split("/", 1)) for text in (source, target)]
        edge = Edge(ends[0], tag, ends[1], tag)
        note = Agreed(edge=edge, digest=digest, with_referrers=False, copied=True)
        await self.ledger.note("prod", [note])
        return edge


@pytest.fixture
async def world(tmp_path):
    async with Database(tmp_path / "ledger.sqlite3") as database:
        yield World(tmp_path, database)


# Schedules.


async def test_what_is_due_starts_once_and_is_noted(world):
    world.mirrors(
        first=mirror("a.io/x", "b.io/x", schedule=HOUR),
        wild=mirror("a.io/t", "b.io/t", schedule=HOUR, repositories=("*",)),
    )
    assert await world.starts(2) == [("first", "mirror"), ("wild", "survey")]
    at_us = world.clock.at_us
    assert await world.ledger.starts() == {"first": at_us, "wild": at_us}

    # Of those that are not due, none is asked for by the time the one after them is.
    world.mirrors(**world.config.mirrors, last=mirror("a.io/z", "b.io/z", schedule=HOUR))
    assert await world.starts() == [("last", "mirror")]
    world.clock.at_us += HOUR_US - 1
    world.mirrors(**world.config.mirrors, later=mirror("a.io/y", "b.io/y", schedule=HOUR))
    world.restart()
    assert await world.starts() == [("later", "mirror")]
    world.clock.at_us += SPREAD_US + 1
    assert await world.starts(3) == [
        ("first", "mirror"),
        ("wild", "survey"),
        ("last", "mirror"),
    ]


@pytest.mark.parametrize("schedule", [HOUR, parse_cron("0 * * * *")], ids=str)
async def test_what_was_missed_is_made_up_once(world, schedule):
    """A machine that slept for days."""
    world.mirrors(prod=mirror("a.io/x", "b.io/x", schedule=schedule))
    assert await world.starts() == [("prod", "mirror")]
    world.clock.at_us += 50 * HOUR_US + 2 * SPREAD_US
    world.restart()
    assert await world.starts() == [("prod", "mirror")]
    world.mirrors(**world.config.mirrors, last=mirror("a.io/z", "b.io/z", schedule=HOUR))
    assert await world.starts() == [("last", "mirror")]


async def test_a_mirror_without_a_schedule_never_starts_by_itself(world):
    world.mirrors(
        quiet=mirror("a.io/x", "b.io/x"),
        prod=mirror("a.io/y", "b.io/y", schedule=HOUR),
    )
    for _ in range(3):
        assert await world.starts() == [("prod", "mirror")]
        world.clock.at_us += 100 * HOUR_US
    assert "quiet" not in await world.ledger.starts()


async def test_a_start_that_was_not_kept_is_not_noted(world):
    """It is due still, and the next look asks for it again."""
    world.mirrors(prod=mirror("a.io/x", "b.io/x", schedule=HOUR))
    refused = asyncio.Event()

    async def refuse(_request):
        refused.set()
        raise KitdError("the disk is full")

    world.keeper = MirrorKeeper(
        lambda: world.config, world.ledger, world.clock, refuse, world.under_way
    )
    async with world.running():
        await refused.wait()
    assert await world.ledger.starts() == {}
    world.restart()
    assert await world.starts() == [("prod", "mirror")]


async def test_it_is_told_when_mirrors_start(world):
    world.mirrors(
        quiet=mirror("a.io/x", "b.io/x"),
        new=mirror("a.io/y", "b.io/y", schedule=HOUR),
        prod=mirror("a.io/z", "b.io/z", schedule=HOUR),
    )
    now_us = world.clock.at_us
    await world.ledger.note_start("prod", now_us - 1_000_000)
    await world.ledger.note_start("gone", now_us)
    times = await world.keeper.start_times()
    assert times.keys() == {"quiet", "new", "prod"}
    assert times["quiet"] == StartTimes(None, None)
    assert times["new"] == StartTimes(None, now_us)
    last_us, next_us = times["prod"].last_us, times["prod"].next_us
    assert last_us == now_us - 1_000_000
    assert last_us + HOUR_US <= next_us < last_us + HOUR_US + SPREAD_US


async def test_a_mirror_that_lost_its_schedule_has_its_last_start_and_no_next(world):
    await world.ledger.note_start("prod", 5)
    world.mirrors(prod=mirror("a.io/x", "b.io/x"))
    assert await world.keeper.start_times() == {"prod": StartTimes(5, None)}


async def test_a_reload_changes_the_rules(world):
    world.mirrors(prod=mirror("a.io/x", "b.io/x"))
    rules = world.keeper.rules
    assert [rule.name for rule in rules] == ["prod"]
    assert world.keeper.rules is rules
    assert await world.follow(Change("y", "v1")) == []

    world.mirrors(other=mirror("a.io/y", "b.io/y"))
    assert [rule.name for rule in world.keeper.rules] == ["other"]
    assert await world.follow(Change("y", "v1")) == [("other", ("v1",), ())]
    assert await world.follow(Change("x", "v1")) == []


# Changes.


@pytest.fixture
def prod(world):
    """A mirror of one repository."""
    world.mirrors(prod=mirror("a.io/team/x", "b.io/x"))
    return world


async def test_a_tag_that_moved_asks_for_one_job(prod):
    change = Change("team/x", "v1", A)
    assert await prod.follow(change) == [("prod", ("v1",), ())]
    assert await prod.follow(change, change, Change("team/x", "v1", B)) == [("prod", ("v1",), ())]
    assert await prod.follow(change, Change("team/x", "v2", A)) == [
        ("prod", ("v1",), ()),
        ("prod", ("v2",), ()),
    ]


async def test_a_target_that_has_it_waits_for_nothing(world):
    world.mirrors(prod=mirror("a.io/team/x", "b.io/x", "c.io/x"))
    await world.agree("a.io/team/x", "b.io/x")
    (request,) = await world.keeper.follow_changes("a.io", [Change("team/x", "v1", A)])
    order = msgspec.json.decode(request.args, type=MirrorOrder)
    assert order.target.repository == "c.io/x"
    assert order.by_many


async def test_what_both_ends_have_asks_for_nothing(prod):
    await prod.agree("a.io/team/x", "b.io/x")
    assert await prod.follow(Change("team/x", "v1", A)) == []
    assert await prod.follow(Change("team/x", "v1", B)) == [("prod", ("v1",), ())]
    assert await prod.follow(Change("team/x", "v1")) == [("prod", ("v1",), ())]
    assert await prod.follow(Change("team/x", "v2", A)) == [("prod", ("v2",), ())]


async def test_what_kitd_pushed_does_not_come_back(world):
    """Both registries send events, and each copy is one of them."""
    world.mirrors(there=mirror("a.io/x", "b.io/x"), back=mirror("b.io/x", "a.io/x"))
    await world.agree("a.io/x", "b.io/x")
    change = Change("x", "v1", A)
    assert await world.follow(change, registry="b.io") == []
    assert await world.follow(change, registry="a.io") == []
    newer = Change("x", "v1", B)
    assert await world.follow(newer, registry="b.io") == [("back", ("v1",), ())]


async def test_what_went_wrong_last_is_looked_at_again(prod):
    edge = await prod.agree("a.io/team/x", "b.io/x")
    await prod.ledger.note("prod", [Failed(edge, "registry_failed", "it was down")])
    assert await prod.follow(Change("team/x", "v1", A)) == [("prod", ("v1",), ())]


async def test_a_tag_that_was_deleted_is_looked_at_whatever_is_known(prod):
    await prod.agree("a.io/team/x", "b.io/x")
    gone = Change("team/x", "v1", A, Action.DELETE)
    assert await prod.follow(gone) == [("prod", ("v1",), ())]


async def test_a_manifest_without_a_tag_may_refer_to_one(prod):
    assert await prod.follow(Change("team/x", None, A)) == [("prod", (), (A,))]


async def test_a_manifest_that_was_deleted_takes_its_tags_along(world):
    """Some registries delete nothing else. It is for rules that carry deletes, all tags of them."""
    world.mirrors(
        exact=mirror("a.io/team/x", "b.io/x", deletes=Deletes.PROPAGATE),
        archive=mirror("a.io/team/x", "c.io/x"),
    )
    gone = Change("team/x", None, A, Action.DELETE)
    assert await world.follow(gone) == [("exact", None, ())]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(Change("team/x", None, A, Action.DELETE), id="a manifest is gone"),
        pytest.param(Change("team/y", "v1", A), id="another repository"),
        pytest.param(Change("x", "v1", A), id="of the target's name"),
        pytest.param(Change("../x", "v1", A), id="no repository"),
        pytest.param(Change("", "v1", A), id="no name"),
    ],
)
async def test_what_concerns_no_mirror_asks_for_nothing(prod, change):
    assert await prod.follow(change) == []


async def test_the_registry_is_the_sources(prod):
    assert await prod.follow(Change("team/x", "v1", A), registry="z.io") == []
    assert await prod.follow(Change("x", "v1", A), registry="b.io") == []


async def test_a_target_with_a_name_too_long_is_left_to_the_job(world):
    """It fails there, where people see it, and takes no delivery with it."""
    name = "x" * 245
    world.mirrors(all=mirror("a.io", "b.example.com/prefix", repositories=("**",)))
    assert await world.follow(Change(name, "v1", A)) == [("all", ("v1",), ())]


SAME = Digest(f"sha256:{'5' * 64}")


async def test_what_a_job_is_at_is_not_agreed_yet(world):
    """The tag may have gone back to what was agreed while the job writes down something else."""
    world.mirrors(prod=mirror("a.io/team/model", "b.io/team/model"))
    await world.agree("a.io/team/model", "b.io/team/model", digest=SAME)
    change = Change("team/model", "v1", SAME)
    assert not await world.keeper.follow_changes("a.io", [change])
    (asked,) = await world.keeper.follow_changes("a.io", [Change("team/model", "v1")])
    world.jobs[asked.lock] += 1
    (again,) = await world.keeper.follow_changes("a.io", [change])
    assert again == asked


async def test_where_many_jobs_wait_one_for_all_tags_stands_for_the_rest(world):
    """A first copy in one direction of a pair is told of tag by tag, while its job runs."""
    world.mirrors(
        back=mirror("a.io/team/model", "b.io/team/model", "c.io/team/model"),
        other=mirror("a.io/team/model", "b.io/team/model"),
        there=mirror("b.io/team/model", "a.io/team/model"),
    )
    waiting = {}
    for number in range(100):
        change = Change("team/model", f"v{number}", A)
        for request in await world.keeper.follow_changes("a.io", [change]):
            if request.mirror == "back" and request.reference == "b.io/team/model":
                # What waits for all tags serves each of them, and is there once.
                waiting[request.key] = msgspec.json.decode(request.args, type=MirrorOrder).tags
                world.jobs[request.lock] = len(waiting)
    tags = [(f"v{number}",) for number in range(MANY_JOBS)]
    assert list(waiting.values()) == [*tags, None]
    # What a look at all tags passes over is asked for by its name.
    listing = Change("team/model", f"sha256-{'a' * 64}")
    for request in await world.keeper.follow_changes("a.io", [listing]):
        assert msgspec.json.decode(request.args, type=MirrorOrder).tags == (listing.tag,)


async def test_many_changes_at_once_and_one_that_names_no_tag_are_a_look_at_all(world):
    world.mirrors(prod=mirror("a.io/team/model", "b.io/team/model"))
    many = [Change("team/model", f"v{number}") for number in range(100)]
    for changes in (many, [Change("team/model")]):
        (asked,) = await world.keeper.follow_changes("a.io", changes)
        assert msgspec.json.decode(asked.args, type=MirrorOrder).tags is None
    few = await world.keeper.follow_changes("a.io", many[:5])
    assert len(few) == 5


async def test_what_was_given_up_is_asked_for_again_after_hours(world):
    world.mirrors(prod=mirror("a.io/team/model", "b.io/team/model"))
    edge = Edge(Repository("a.io", "team/model"), "v1", Repository("b.io", "team/model"), "v1")
    await world.ledger.note("prod", [Failed(edge, "registry_timeout", "it is down")])
    await world.keeper.look_after()
    assert world.asked.empty()
    world.clock.at_us += 3 * HOUR_US
    await world.keeper.look_after()
    assert msgspec.json.decode(world.asked.get_nowait().args, type=MirrorOrder).tags == ("v1",)
    await world.ledger.note("prod", [Failed(edge, "registry_timeout", "it is down")])
    await world.keeper.look_after()
    assert world.asked.empty()


async def test_what_an_event_told_is_gone_is_looked_at_once_its_grace_is_over(world):
    """Without a schedule nobody else would come back to it."""
    edge = Edge(Repository("a.io", "team/model"), "v1", Repository("b.io", "team/model"), "v1")
    deletes = {"deletes": Deletes.PROPAGATE, "grace_s": 3600.0}
    world.mirrors(prod=mirror("a.io/team/model", "b.io/team/model", **deletes))
    await world.ledger.note("prod", [Gone(edge)])
    await world.keeper.look_after()
    assert world.asked.empty()
    world.clock.at_us += 2 * HOUR_US
    await world.keeper.look_after()
    assert msgspec.json.decode(world.asked.get_nowait().args, type=MirrorOrder).tags is None
    await world.keeper.look_after()
    assert world.asked.empty()
    world.restart()
    world.mirrors(prod=mirror("a.io/team/model", "b.io/team/model"))
    await world.keeper.look_after()
    assert world.asked.empty()


def edge_of(tag, source="team/model", target="b.io"):
    return Edge(Repository("a.io", source), tag, Repository(target, "team/model"), tag)


def failed(edge):
    return Failed(edge, "registry_timeout", "it is down")


async def test_what_is_given_up_and_meant_by_nobody_is_asked_for_no_more(world):
    """A rule without the target, the tag or the repository any more, and no rule at all."""
    no_rule = [failed(edge_of(f"v{number}", "old")) for number in range(2 * MAX_GIVEN_UP)]
    await world.ledger.note("old", no_rule)
    world.clock.at_us += 1
    await world.ledger.note(
        "prod",
        [
            failed(edge_of("v1", target="old.io")),
            failed(edge_of("nightly-1")),
            failed(replace(edge_of("v2"), target_tag="eu-v2")),
            failed(edge_of("")),
        ],
    )
    agreed = await world.agree("a.io/old", "b.io/team/model", "kept")
    await world.ledger.note("old", [failed(agreed)])
    world.clock.at_us += 1
    await world.ledger.note("prod", [failed(edge_of("v3"))])
    select = TagFilterConfig(include=("v*",))
    world.mirrors(prod=mirror("a.io/team/model", "b.io/team/model", tags=select))
    world.clock.at_us += 3 * HOUR_US
    assert await world.looked_after() == [("prod", None), ("prod", ("v3",))]
    # What both ends agreed on stays known, whoever copies it next.
    assert await world.ledger.edges(agreed.source, agreed.target, ["kept"])
    assert "old" not in await world.ledger.counts()
    world.clock.at_us += 3 * HOUR_US
    assert await world.looked_after() == [("prod", None), ("prod", ("v3",))]


async def test_what_is_given_up_is_asked_for_in_turn(world, monkeypatch):
    """However few are asked for at once, and whatever became of those that were."""
    monkeypatch.setattr(mirror_ledger, "MAX_GIVEN_UP", 2)
    world.mirrors(prod=mirror("a.io/team/model", "b.io/team/model"))
    for number in range(5):
        await world.ledger.note("prod", [failed(edge_of(f"v{number}"))])
        world.clock.at_us += 1
    world.clock.at_us += 3 * HOUR_US
    asked = []
    for _ in range(4):
        asked += [tags for _, tags in await world.looked_after()]
    assert asked == [(f"v{number}",) for number in range(5)]


async def test_a_removal_that_was_given_up_takes_a_look_at_all(world):
    deletes = {"deletes": Deletes.PROPAGATE, "grace_s": 100 * 3600.0}
    world.mirrors(
        prod=mirror(
            "a.io/team/model", "b.io/team/model", tags=TagFilterConfig(include=("v*",)), **deletes
        )
    )
    # Its tag may have been copied when the rule meant others.
    for tag in ("v1", "old"):
        await world.ledger.note("prod", [Gone(edge_of(tag)), failed(edge_of(tag))])
    world.clock.at_us += 3 * HOUR_US
    assert await world.looked_after() == [("prod", None)]


async def test_a_tag_that_stays_gone_hides_none_that_goes_later(world):
    deletes = {"deletes": Deletes.PROPAGATE, "grace_s": 3600.0}
    world.mirrors(prod=mirror("a.io/team/model", "b.io/team/model", **deletes))
    await world.ledger.note("prod", [Gone(edge_of("v1"))])
    world.clock.at_us += 2 * HOUR_US
    assert await world.looked_after() == [("prod", None)]
    await world.ledger.note("prod", [Gone(edge_of("v2"))])
    assert await world.looked_after() == []
    world.clock.at_us += 2 * HOUR_US
    assert await world.looked_after() == [("prod", None)]
    assert await world.looked_after() == []


async def test_what_stays_gone_is_looked_at_once_a_day(world):
    """What was too much at once is less by then, and what was moving is at rest."""
    deletes = {"deletes": Deletes.PROPAGATE, "grace_s": 3600.0}
    world.mirrors(prod=mirror("a.io/team/model", "b.io/team/model", **deletes))
    await world.ledger.note("prod", [Gone(edge_of("v1"))])
    asked = 0
    for _ in range(3 * 24):
        world.clock.at_us += HOUR_US + 1
        asked += len(await world.looked_after())
    assert asked == 3


async def test_only_repositories_with_something_gone_are_looked_at(world):
    """And only by rules that remove it."""
    deletes = {"deletes": Deletes.PROPAGATE, "grace_s": 3600.0}
    world.mirrors(
        all=mirror("a.io", "b.io", repositories=("**",), **deletes),
        archive=mirror("a.io/team/model", "c.io/team/model"),
    )
    await world.ledger.note("all", [Gone(edge_of("v1")), Gone(edge_of("v1", target="x.io"))])
    world.clock.at_us += 2 * HOUR_US
    await world.keeper.look_after()
    (order,) = [
        msgspec.json.decode(world.asked.get_nowait().args, type=MirrorOrder)
        for _ in range(world.asked.qsize())
    ]
    assert (order.rule, order.source, order.tags) == ("all", "a.io/team/model", None)
