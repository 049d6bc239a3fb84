"""The daemon's lives: every start counts, and the ledger keeps its name."""

from kitd.ledger import life
from kitd.ledger.database import Database


async def test_every_start_is_a_new_epoch_of_one_instance(tmp_path, clock):
    lives = []
    for pid in (11, 12):
        async with Database(tmp_path / "ledger.sqlite3") as database:
            lives.append(await life.begin(database, clock, pid=pid, version="1.0"))
    first, second = lives
    assert first.instance == second.instance
    assert len(first.instance) == 32
    assert (first.epoch, second.epoch) == (1, 2)


async def test_two_ledgers_are_two_instances(tmp_path, clock):
    instances = set()
    for name in "ab":
        async with Database(tmp_path / name) as database:
            instances.add((await life.begin(database, clock, pid=1, version="1.0")).instance)
    assert len(instances) == 2


async def test_a_life_tells_of_its_start_and_its_good_end(database, clock, sql):
    begun = await life.begin(database, clock, pid=7, version="1.0")
    started_us = clock.at_us
    clock.advance(5)
    await life.end(database, clock, begun)
    assert sql("SELECT pid, version, started_us, stopped_us FROM epochs") == [
        (7, "1.0", started_us, clock.at_us)
    ]
    assert sql("SELECT type, subject FROM events ORDER BY seq") == [
        ("daemon.started", "daemon"),
        ("daemon.stopped", "daemon"),
    ]


async def test_a_life_that_was_cut_short_has_no_end(database, clock, sql):
    await life.begin(database, clock, pid=7, version="1.0")
    assert sql("SELECT stopped_us FROM epochs") == [(None,)]
