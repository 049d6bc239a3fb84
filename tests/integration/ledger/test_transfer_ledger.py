"""What transfers leave behind: uploads, lessons, who holds which blob; how much, for how long."""

import json
from dataclasses import replace

import pytest

from kitd.ledger.catalog import Catalog
from kitd.ledger.database import Database
from kitd.ledger.transfer_ledger import (
    GIVEN_UP_US,
    LESSON_US,
    MAX_LENDERS,
    MAX_LESSONS,
    MAX_UPLOADS,
    Lesson,
    OpenUpload,
    TransferLedger,
)
from kitd.oci.descriptor import describe
from kitd.oci.digest import digest_of
from kitd.oci.manifest import parse_manifest
from kitd.oci.media_type import OCI_MANIFEST
from kitd.oci.reference import Repository
from kitd.queue.effect import RecordLocation, RecordManifest

THERE = Repository("registry.example.com", "team/model")
BLOB = digest_of(b"weights")
UPLOAD = OpenUpload("https://r.example/v2/u/1?_state=a%2Fb%3D", "https://r.example", 67_108_864, 1)
LESSON = Lesson(takes_chunks=True, chunk_bytes=4 << 20, refused_bytes=50 << 20)
S = 1_000_000


@pytest.fixture
def ledger(database, clock):
    return TransferLedger(database, clock)


async def test_an_upload_is_recalled_as_it_was(ledger):
    assert await ledger.upload(THERE, BLOB) is None
    await ledger.record_upload(THERE, BLOB, UPLOAD)
    assert await ledger.upload(THERE, BLOB) == UPLOAD
    assert await ledger.upload(replace(THERE, name="team/other"), BLOB) is None
    assert await ledger.upload(THERE, "layer:abc") is None


def test_where_an_upload_goes_on_is_not_shown():
    """Whoever has a signed Location may send to it."""
    assert "_state" not in repr(UPLOAD)


async def test_an_upload_outlives_the_process(tmp_path, clock):
    path = tmp_path / "another.sqlite3"
    async with Database(path) as database:
        await TransferLedger(database, clock).record_upload(THERE, BLOB, UPLOAD)
    async with Database(path) as database:
        assert await TransferLedger(database, clock).upload(THERE, BLOB) == UPLOAD


async def test_only_the_last_answer_counts(ledger, sql):
    await ledger.record_upload(THERE, BLOB, UPLOAD)
    later = replace(UPLOAD, location="https://r.example/v2/u/2", received=UPLOAD.received * 2)
    await ledger.record_upload(THERE, BLOB, later)
    assert await ledger.upload(THERE, BLOB) == later
    assert sql("SELECT count(*) FROM uploads") == [(1,)]


async def test_an_upload_that_ended_is_forgotten(ledger, sql):
    await ledger.record_upload(THERE, BLOB, UPLOAD)
    await ledger.record_upload(THERE, "layer:abc", UPLOAD)
    await ledger.forget_upload(THERE, BLOB)
    await ledger.forget_upload(THERE, "never begun")
    assert sql("SELECT content FROM uploads") == [("layer:abc",)]


async def test_an_upload_that_another_one_replaced_is_not_forgotten_for_it(ledger):
    later = replace(UPLOAD, location="https://r.example/v2/u/2")
    await ledger.record_upload(THERE, BLOB, later)
    await ledger.forget_upload(THERE, BLOB, location=UPLOAD.location)
    assert await ledger.upload(THERE, BLOB) == later
    await ledger.forget_upload(THERE, BLOB, location=later.location)
    assert await ledger.upload(THERE, BLOB) is None


async def test_an_upload_is_believed_until_it_is_given_up(ledger, clock):
    await ledger.record_upload(THERE, BLOB, UPLOAD)
    clock.advance(GIVEN_UP_US / S - 1)
    assert await ledger.upload(THERE, BLOB) == UPLOAD
    await ledger.record_upload(THERE, BLOB, UPLOAD)
    clock.advance(GIVEN_UP_US / S - 1)
    assert await ledger.upload(THERE, BLOB) == UPLOAD
    clock.advance(1)
    assert await ledger.upload(THERE, BLOB) is None


async def test_what_nobody_goes_on_with_is_stale(ledger, clock):
    await ledger.record_upload(THERE, "old", UPLOAD)
    clock.advance(GIVEN_UP_US / S)
    await ledger.record_upload(THERE, "new", UPLOAD)
    assert await ledger.stale_uploads(10) == [(THERE, "old", UPLOAD)]
    assert await ledger.stale_uploads(0) == []


async def test_what_is_too_many_is_stale(ledger, clock, sql):
    sql(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        " INSERT INTO uploads SELECT 'r', 'n', i, 'l', 'o', 0, 1, ?2 + i FROM n",
        MAX_UPLOADS + 2,
        clock.at_us,
    )
    stale = await ledger.stale_uploads(10)
    assert [content for _, content, _ in stale] == ["1", "2"]


async def test_a_lesson_holds_until_it_is_old(ledger, clock):
    assert await ledger.lesson(THERE.registry) is None
    await ledger.record_lesson(THERE.registry, LESSON)
    clock.advance(LESSON_US / S - 1)
    assert await ledger.lesson(THERE.registry) == LESSON
    other = Lesson(takes_chunks=False, chunk_bytes=1, refused_bytes=None)
    await ledger.record_lesson(THERE.registry, other)
    clock.advance(LESSON_US / S - 1)
    assert await ledger.lesson(THERE.registry) == other
    clock.advance(1)
    assert await ledger.lesson(THERE.registry) is None


async def test_lessons_are_kept_within_bounds(ledger, clock, sql):
    sql(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        " INSERT INTO registry_lessons SELECT i, 1, 1, NULL, ?2 + i FROM n",
        MAX_LESSONS,
        clock.at_us,
    )
    clock.advance(1)
    await ledger.record_lesson("new", LESSON)
    assert sql("SELECT count(*) FROM registry_lessons") == [(MAX_LESSONS,)]
    assert sql("SELECT registry FROM registry_lessons WHERE registry IN ('1', 'new')") == [("new",)]
    clock.advance(LESSON_US / S)
    await ledger.record_lesson("newer", LESSON)
    assert sql("SELECT registry FROM registry_lessons") == [("newer",)]


@pytest.fixture
def located(database, clock):
    """Record a kit with these layers as one that repositories got, each a moment later."""
    catalog = Catalog(database, clock, no_kit)

    async def located(*layers, names, registry=THERE.registry):
        described = [
            {"mediaType": "l", "digest": each.digest, "size": each.size} for each in layers
        ]
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described[0]}
        content = json.dumps({**document, "layers": described}).encode()
        target = describe(OCI_MANIFEST, content)
        await catalog.apply([RecordManifest(THERE, target, parse_manifest(content))])
        for name in names:
            clock.advance(1)
            await catalog.apply([RecordLocation(target.digest, Repository(registry, name))])

    return located


async def no_kit(_manifest):
    return None


async def test_the_holders_of_a_blob_are_those_who_got_a_manifest_with_it(ledger, located):
    base, tune = describe("l", b"base"), describe("l", b"tune")
    await located(base, names=["team/old", "team/base"])
    await located(base, tune, names=["team/tune", "team/old"])
    await located(base, names=["team/far"], registry="elsewhere.example.com")
    assert await ledger.holders(THERE.registry, base.digest) == [
        "team/old",
        "team/tune",
        "team/base",
    ]
    assert await ledger.holders(THERE.registry, tune.digest) == ["team/old", "team/tune"]
    assert await ledger.holders("elsewhere.example.com", base.digest) == ["team/far"]
    assert await ledger.holders(THERE.registry, digest_of(b"unknown")) == []


async def test_only_so_many_holders_are_named(ledger, located):
    base = describe("l", b"base")
    await located(base, names=[f"team/{number}" for number in range(20)])
    assert len(await ledger.holders(THERE.registry, base.digest)) == MAX_LENDERS


async def test_holders_are_found_by_indexes(ledger, sql):
    plan = sql(
        "EXPLAIN QUERY PLAN SELECT l.name FROM manifest_children c"
        " JOIN locations l ON l.digest = c.manifest WHERE c.digest = 'd' AND l.registry = 'r'"
        " GROUP BY l.name ORDER BY max(l.confirmed_us) DESC, l.name LIMIT 8"
    )
    assert [step for *_, step in plan if step.startswith("SCAN")] == []
