"""What is remembered of packs: by key, for good, and not without end."""

import pytest

from kitd.ledger.database import Database
from kitd.ledger.pack_memory import MAX_ENTRIES, STALE_US, TRIM_EVERY, PackMemory


@pytest.fixture
def memory(database, clock) -> PackMemory:
    return PackMemory(database, clock)


@pytest.fixture
def remember_each(memory, clock):
    """Remember some keys, each a moment after the other."""

    async def remember_each(*keys):
        for key in keys:
            clock.advance(1)
            await memory.remember(key, key.encode())

    return remember_each


@pytest.fixture
def remembered(sql):
    """Return all keys, as a person with `sqlite3` sees them."""
    return lambda: {key for (key,) in sql("SELECT key FROM packed")}


async def test_nothing_is_known_of_what_was_never_remembered(memory):
    assert await memory.recall(["a"]) == {}
    assert await memory.recall([]) == {}


async def test_what_is_asked_for_and_remembered_is_recalled(memory, remember_each):
    await remember_each("a", "b", "c")
    assert await memory.recall(["a", "c", "d"]) == {"a": b"a", "c": b"c"}
    assert await memory.recall([]) == {}


async def test_the_last_value_of_a_key_is_the_one_that_counts(memory):
    await memory.remember("a", b"old")
    await memory.remember("a", b"new")
    assert await memory.recall(["a"]) == {"a": b"new"}


@pytest.mark.parametrize("key", ["", "'; DROP TABLE packed; --", '["a"]', "é\u2028", "%", "_"])
async def test_a_key_is_a_word_and_nothing_else(memory, key):
    await memory.remember("a", b"other")
    assert await memory.recall([key]) == {}
    await memory.remember(key, b"value")
    assert await memory.recall([key]) == {key: b"value"}


@pytest.mark.parametrize("value", [b"", b"\0\xff", bytes(1 << 20)], ids=["no", "any", "many"])
async def test_values_are_bytes(memory, value):
    await memory.remember("a", value)
    assert await memory.recall(["a"]) == {"a": value}


async def test_all_layers_of_the_largest_kit_are_asked_for_at_once(memory, remember_each):
    await remember_each("19999")
    assert await memory.recall([str(number) for number in range(20_000)]) == {"19999": b"19999"}


async def test_the_memory_outlives_the_process(tmp_path, clock):
    for _ in range(2):
        async with Database(tmp_path / "ledger.sqlite3") as database:
            memory = PackMemory(database, clock)
            recalled = await memory.recall(["a"])
            await memory.remember("a", b"value")
    assert recalled == {"a": b"value"}


@pytest.mark.parametrize(
    ("max_entries", "left"),
    [(9, {"a", "b", "c", "d"}), (4, {"a", "b", "c", "d"}), (3, {"b", "c", "d"}), (0, set())],
)
async def test_of_what_is_too_much_the_oldest_is_forgotten(
    memory, remember_each, remembered, max_entries, left
):
    await remember_each("d", "a", "b", "c")
    await remember_each("d")
    await memory.trim(max_entries)
    assert remembered() == left


async def test_trimming_keeps_what_was_remembered_at_the_same_time_within_bounds(
    memory, remembered
):
    for number in range(5):
        await memory.remember(str(number), b"")
    await memory.trim(2)
    assert len(remembered()) == 2


async def test_what_is_recalled_is_as_young_as_what_is_remembered(
    memory, remember_each, remembered, clock
):
    """A layer that no pack has to build is recalled by all of them."""
    await remember_each("base", "once")
    clock.advance(STALE_US / 1_000_000 + 2)
    assert await memory.recall(["base", "unknown"]) == {"base": b"base"}
    await remember_each("new")
    await memory.trim(2)
    assert remembered() == {"base", "new"}


async def test_a_recall_of_what_is_young_writes_nothing(memory, remember_each, sql, clock):
    await remember_each("a")
    before = sql("SELECT * FROM packed")
    clock.advance(STALE_US / 1_000_000)
    assert await memory.recall(["a"]) == {"a": b"a"}
    assert sql("SELECT * FROM packed") == before


async def test_trimming_forgets_nothing_of_a_usual_life(memory, remember_each, remembered):
    await remember_each("a", "b")
    await memory.trim()
    assert remembered() == {"a", "b"}


async def test_a_long_life_stays_within_bounds(memory, remember_each, sql):
    """Without a restart, from which on the memory is small again."""
    sql(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        " INSERT INTO packed (key, value, noted_us) SELECT i, x'00', i FROM n",
        MAX_ENTRIES,
    )
    await remember_each(*(f"new{number}" for number in range(TRIM_EVERY)))
    assert sql("SELECT count(*) FROM packed") == [(MAX_ENTRIES,)]
    assert sql("SELECT count(*) FROM packed WHERE key LIKE 'new%'") == [(TRIM_EVERY,)]
