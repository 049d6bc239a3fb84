"""What hinders kitd: each trouble is told with its code, in words, and with what mends it."""

import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from kitd.config.address import TcpAddress
from kitd.config.model import WebhookFormat, WebhooksConfig, WebhookSourceConfig
from kitd.doctor.examination import Doctor
from kitd.doctor.symptom import LARGE_WAL_BYTES, OVERDUE_S
from kitd.ledger.failure import LedgerError
from kitd.oci.descriptor import Descriptor
from kitd.oci.manifest import parse_manifest
from kitd.oci.reference import parse_repository
from kitd.queue.job import Failure, Lane
from kitd.registry.governor import Closed, Closure


@pytest.fixture
def told():
    """What a patient is told, as `code` and all of it."""

    async def told(patient, projects=()):
        reasons = await Doctor(patient).reasons(projects)
        assert all(reason.text and reason.fix for reason in reasons)
        return {reason.code: reason for reason in reasons}

    return told


async def test_who_is_well_is_told_nothing(told, patient):
    assert await told(patient) == {}


async def test_a_full_disk_that_pauses_the_queue(told, but):
    full = Failure("no_space", "the disk is full", "free disk space")
    reasons = await told(but(paused=lambda: full))
    assert reasons["queue_paused"].text == "no job begins: the disk is full"
    assert reasons["queue_paused"].fix == "free disk space"


async def test_a_ledger_that_another_program_has_locked(told, patient, database):
    """Until it was written again."""

    def impatient(connection):
        connection.execute("PRAGMA busy_timeout = 50")

    await database.write(impatient)
    with capture_logs() as logged, closing(sqlite3.connect(database.path)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            with pytest.raises(LedgerError):
                await database.write(lambda _connection: None)
        reason = (await told(patient))["ledger_not_writable"]
        other.rollback()
        await database.prove()
    assert "locked" in reason.text
    assert reason.fix.endswith(f"fuser -v {database.path} shows which")
    assert await told(patient) == {}
    assert [line["event"] for line in logged] == ["ledger.not_written", "ledger.written_again"]
    assert (logged[0]["code"], logged[0]["hint"]) == ("ledger_io", reason.fix)


async def test_a_cache_that_cannot_keep_to_its_limits(told, but):
    reasons = await told(but(shortfall=lambda: "7 bytes too many; push kits that are only here"))
    assert "too many" in reasons["cache_over_limit"].text


@pytest.mark.parametrize(
    ("closure", "words"),
    [
        (Closure.FORBIDDEN, "r.example:5000 wants no requests for 90s"),
        (Closure.FAILING, "r.example:5000 failed again and again, and is left alone for 90s"),
    ],
)
async def test_a_registry_that_is_asked_for_nothing(told, but, closure, words):
    reasons = await told(but(closed=lambda: {"r.example:5000": Closed(closure, 89.5)}))
    assert reasons["registry_closed"].text == words


@pytest.fixture
def receiving(patient, but, tmp_path):
    """A patient that listens to a webhook source with a secret."""

    def receiving(*, listens=True):
        source = WebhookSourceConfig(
            format=WebhookFormat.HARBOR, registry="r.example", secret_file=tmp_path / "secret"
        )
        place = TcpAddress("127.0.0.1", 0) if listens else None
        webhooks = WebhooksConfig(listen=place, sources={"harbor-eu": source})
        config = replace(patient.config(), webhooks=webhooks)
        return but(config=lambda: config)

    return receiving


@pytest.mark.parametrize("content", [None, b"", b"\n", b"fifteen letters\n"])
async def test_a_webhook_source_whose_secret_cannot_be_read(told, receiving, tmp_path, content):
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    reasons = await told(receiving())
    assert "harbor-eu" in reasons["webhook_secret"].text
    assert "fifteen" not in reasons["webhook_secret"].text
    (tmp_path / "secret").write_bytes(b"sixteen letters.")
    assert await told(receiving()) == {}


async def test_a_webhook_source_that_nobody_listens_for_needs_no_secret(told, receiving):
    assert await told(receiving(listens=False)) == {}


async def test_a_part_that_does_not_answer(told, but):
    reasons = await told(but(silent=lambda: ("ledger",)))
    assert "ledger" in reasons["part_silent"].text


async def test_a_job_that_could_run_and_does_not(told, but, patient, jobs, wish, clock):
    job = await jobs.enqueue(wish())
    assert await told(patient) == {}
    clock.ahead_s = OVERDUE_S + 60
    assert f"job {job.id} " in (await told(patient))["queue_stuck"].text
    # Where all slots are taken, or nothing begins anyway, it is not the job that is stuck.
    assert await told(but(slots=lambda: {Lane.PACK: 0})) == {}
    paused = await told(but(paused=lambda: Failure("no_space", "full")))
    assert set(paused) == {"queue_paused"}


async def test_poison_says_how_to_try_again(told, patient, jobs, wish):
    job = await jobs.enqueue(wish())
    (attempt,) = await jobs.claim({Lane.PACK: 1})
    await jobs.fail(attempt, Failure("poison", "kitd died of it", "look"))
    assert (await told(patient))["job_poison"].fix == f"kitctl jobs retry {job.id}"


async def test_transfers_that_fail_alike_at_one_registry_are_one(told, patient, jobs, wish):
    for host, key in (("r.example", "a"), ("r.example", "b"), ("s.example", "c")):
        reference = f"{host}/{key}:v1"
        await jobs.enqueue(wish(key, kind="push", lane=Lane.PUSH, reference=reference))
        (attempt,) = await jobs.claim({Lane.PUSH: 1})
        away = Failure("unavailable", f"cannot push {reference}: {host} is away")
        await jobs.back_off(attempt, away, 60, burned=True, crashed=False)
    reasons = [r for r in await Doctor(patient).reasons(()) if r.code == "transfer_failing"]
    assert [reason.text for reason in reasons] == [
        "job 1 and 1 more will be tried again: cannot push r.example/a:v1: r.example is away",
        "job 3 will be tried again: cannot push s.example/c:v1: s.example is away",
    ]


async def test_a_pack_that_is_tried_again_is_no_registry_s_fault(told, patient, jobs, wish):
    await jobs.enqueue(wish())
    (attempt,) = await jobs.claim({Lane.PACK: 1})
    await jobs.back_off(attempt, Failure("x", "y"), 60, burned=True, crashed=False)
    assert await told(patient) == {}


async def test_a_disk_that_is_nearly_full(told, but, patient, mount_disk):
    disk = mount_disk("4m")
    (disk / "cache").mkdir()
    config = replace(patient.config(), state_dir=disk)
    crowded = but(config=lambda: config)
    assert await told(crowded) == {}
    (disk / "ballast").write_bytes(bytes((4 << 20) - (100 << 10)))
    assert str(disk) in (await told(crowded))["disk_nearly_full"].text
    os.truncate(disk / "ballast", 0)
    assert await told(crowded) == {}


async def test_a_directory_that_is_gone(told, but, patient, tmp_path):
    config = replace(patient.config(), state_dir=tmp_path / "gone")
    assert "gone" in (await told(but(config=lambda: config)))["directory_gone"].text


async def test_a_cache_that_is_gone(told, patient):
    shutil.rmtree(patient.store.root)
    reasons = await told(patient)
    assert str(patient.store.root) in reasons["directory_gone"].text
    assert "quarantine" in reasons["cache_unreadable"].text


async def test_a_log_that_does_not_become_shorter(told, but, tmp_path):
    ledger = tmp_path / "other.sqlite3"
    os.truncate(os.open(f"{ledger}-wal", os.O_CREAT | os.O_WRONLY), LARGE_WAL_BYTES + 1)
    assert str(ledger) in (await told(but(ledger=ledger)))["ledger_log_large"].fix


async def test_a_kit_whose_blob_was_damaged(told, patient):
    blob = patient.store.put(b"weights")
    manifest = (
        b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",'
        b'"config":{"mediaType":"application/json","size":7,"digest":"%s"},"layers":[]}'
    ) % blob.digest.encode()
    stored = patient.store.put(manifest)
    target = Descriptor("application/vnd.oci.image.manifest.v1+json", stored.digest, stored.size)
    repository = parse_repository("r.example/team/demo")
    await patient.catalog.commit(repository, target, ("v1",), parse_manifest(manifest))
    stranger = patient.store.put(b"nobody's")
    assert patient.store.quarantine(blob.digest)
    assert patient.store.quarantine(stranger.digest)
    (reason,) = (await told(patient)).values()
    assert reason.code == "kit_damaged"
    assert reason.text.startswith("r.example/team/demo:v1 is damaged")
    patient.store.put(b"weights")
    assert await told(patient) == {}


async def test_an_endpoint_that_takes_no_events(told, patient):
    """A hiccup is nothing to tell."""
    refused = Failure("notification_refused", "https://ci.example answered HTTP 500", "its log")
    await patient.outbox.keep(["ci", "well"])
    for _ in range(2):
        await patient.outbox.note_failure("ci", refused)
    assert await told(patient) == {}
    await patient.outbox.note_failure("ci", refused)
    reason = (await told(patient))["notification_failing"]
    assert reason.text.startswith("notification endpoint ci fails since 20")
    assert reason.text.endswith("Z: https://ci.example answered HTTP 500")
    assert reason.fix == "its log"
    await patient.outbox.advance("ci", 1, told=True)
    assert await told(patient) == {}
