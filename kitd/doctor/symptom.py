"""What hinders kitd now: looked at for every `status`, so each look takes a millisecond or so."""

import math
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from kitd.clock import rfc3339
from kitd.config.quantity import format_duration
from kitd.doctor.patient import Patient
from kitd.jobs.pull import PULL
from kitd.jobs.push import PUSH
from kitd.ledger.schema import wal_bytes
from kitd.ledger.trouble import Ailing
from kitd.oci.digest import Digest
from kitd.registry.governor import Closure
from kitd.rpc.methods.wire import WireReason
from kitd.store.blob_store import BlobStore, StoreError
from kitd.webhooks.secret_file import WebhookSecretError, read_webhook_secret

OVERDUE_S = 600.0
"""A job that could have run for so long, in a lane that has room, is stuck."""
NEARLY_FULL_BYTES = 512 << 20
NEARLY_FULL_SHARE = 20
"""A disk is nearly full with less than the former and less than one part in so many free."""
LARGE_WAL_BYTES = 128 << 20
"""SQLite shortens it to half of that whenever nobody reads an old state of the ledger."""
MAX_DAMAGED = 20
FAILURES = 3
"""In a row: a notification that fails less often is a hiccup."""
_TRANSFERS = frozenset({PUSH.name, PULL.name})

Look = Callable[[Patient], AsyncIterator[WireReason]]


@dataclass(frozen=True, slots=True)
class Symptom:
    """A look for one kind of trouble; `name` is what `kitctl doctor` calls it."""

    name: str
    look: Look


async def blocked_projects(patient: Patient) -> AsyncIterator[WireReason]:
    """Look for projects that cannot be packed, or whose changes are noticed late."""
    for project in await patient.projects():
        if project.state in {"blocked", "degraded"}:
            yield WireReason(
                f"project_{project.state}",
                f"project {project.name}: {project.reason}",
                f"kitctl why {project.name}",
            )


async def paused_queue(patient: Patient) -> AsyncIterator[WireReason]:
    """Look whether jobs begin, or a disk is full."""
    if (reason := patient.paused()) is not None:
        text = f"no job begins: {reason.message}"
        yield WireReason("queue_paused", text, reason.hint or "free disk space; it goes on then")


async def unwritable_ledger(patient: Patient) -> AsyncIterator[WireReason]:
    """Look whether the disk took what was last written into the ledger."""
    if (reason := patient.not_written()) is not None:
        fix = reason.hint or "look for what is wrong with its disk: dmesg, and whether it is full"
        yield WireReason("ledger_not_writable", f"nothing can be kept: {reason.message}", fix)


async def stuck_jobs(patient: Patient) -> AsyncIterator[WireReason]:
    """Look for jobs that wait although nothing keeps them."""
    if patient.paused() is not None:
        return
    slots, now_us = patient.slots(), patient.clock.now_us()
    for job in await patient.trouble.overdue():
        waits_s = (now_us - job.since_us) // 1_000_000
        if waits_s > OVERDUE_S and job.running < slots.get(job.lane, 0):
            text = f"job {job.id} could have run since {format_duration(waits_s // 60 * 60)}"
            yield WireReason("queue_stuck", text, "restart kitd, and report it with its log")


async def poisoned_jobs(patient: Patient) -> AsyncIterator[WireReason]:
    """Look for jobs that were set aside because kitd or a worker died of them."""
    jobs = await patient.trouble.poisoned()
    for job in islice(jobs, 10):
        yield WireReason("job_poison", job.error.message, f"kitctl jobs retry {job.id}")
    if len(jobs) > 10:
        text = f"{len(jobs)} jobs or more were set aside as poison"
        yield WireReason("job_poison", text, "kitctl jobs list --state failed")


async def failing_registries(patient: Patient) -> AsyncIterator[WireReason]:
    """Look for transfers that fail and will be tried again."""
    # Jobs that fail in the same way at the same registry are one trouble.
    failing: dict[tuple[str, str], list[Ailing]] = {}
    for job in await patient.trouble.retrying():
        if job.kind in _TRANSFERS:
            host = (job.reference or "").partition("/")[0]
            failing.setdefault((host, job.error.code), []).append(job)
    for first, *others in islice(failing.values(), 10):
        many = f" and {len(others)} more" if others else ""
        text = f"job {first.id}{many} will be tried again: {first.error.message}"
        yield WireReason("transfer_failing", text, f"kitctl why {first.id}")


async def closed_registries(patient: Patient) -> AsyncIterator[WireReason]:
    """Look for hosts that are asked for nothing: they said so, or failed again and again."""
    for host, closed in islice(patient.closed().items(), 10):
        wait = format_duration(math.ceil(closed.for_s))
        if closed.closure is Closure.FORBIDDEN:
            text, fix = f"{host} wants no requests for {wait}", "wait; kitd goes on after that"
        else:
            text = f"{host} failed again and again, and is left alone for {wait}"
            fix = "check that it is up and can be reached from here: kitctl doctor"
        yield WireReason("registry_closed", text, fix)


async def failing_notifications(patient: Patient) -> AsyncIterator[WireReason]:
    """Look for endpoints that do not take the events that they are to be told of."""
    for endpoint in islice(await patient.outbox.failing(FAILURES), 10):
        since = rfc3339(endpoint.since_us)
        text = f"notification endpoint {endpoint.name} fails since {since}:"
        fix = endpoint.error.hint or "look at the log of the endpoint"
        yield WireReason("notification_failing", f"{text} {endpoint.error.message}", fix)


async def full_cache(patient: Patient) -> AsyncIterator[WireReason]:
    """Look whether the cache is over its limits, and nothing more may go."""
    if (shortfall := patient.shortfall()) is not None:
        yield WireReason("cache_over_limit", shortfall, "kitctl cache gc --dry-run")


async def damaged_kits(patient: Patient) -> AsyncIterator[WireReason]:
    """Look for kits that need blobs which were found damaged."""
    try:
        missing = await patient.looks.take("quarantine", lambda: _missing(patient.store))
    except TimeoutError:
        # Its disk was told of, with all others that do not answer.
        return
    except (OSError, StoreError) as error:
        text = f"the quarantine of the cache cannot be looked at: {error}"
        yield WireReason("cache_unreadable", text, "look for what is wrong with the disk: dmesg")
        return
    for digest in islice(missing, MAX_DAMAGED):
        if names := await patient.catalog.names_of(digest):
            text = f"{names[0]} is damaged: its blob {digest} is not what it was"
            yield WireReason("kit_damaged", text, "kitctl cache verify --repair")


def _missing(store: BlobStore) -> list[Digest]:
    return [digest for digest in sorted(store.in_quarantine()) if store.size_of(digest) is None]


async def silent_parts(patient: Patient) -> AsyncIterator[WireReason]:
    """Look for parts of kitd that do not answer."""
    for part in patient.silent():
        text = f"kitd's part {part} does not answer"
        yield WireReason("part_silent", text, "restart kitd, and report it with its log")


async def full_disks(patient: Patient) -> AsyncIterator[WireReason]:
    """Look for disks that are nearly full, and a ledger that cannot shorten its log."""
    config = patient.config()
    for place in dict.fromkeys((config.state_dir, config.cache_dir)):
        try:
            free_bytes = await patient.looks.take(f"disk of {place}", partial(_nearly_full, place))
        except TimeoutError:
            text = f"the disk of {place} does not answer"
            yield WireReason("disk_silent", text, "look for what is wrong with it: dmesg")
            continue
        except OSError as error:
            text = f"{place} cannot be looked at: {error.strerror}"
            yield WireReason("directory_gone", text, "put it back, and restart kitd")
            continue
        if free_bytes is not None:
            text = f"the disk of {place} is nearly full: {free_bytes >> 20} MiB are free"
            yield WireReason("disk_nearly_full", text, "free disk space, or kitctl cache gc")
    try:
        large = await patient.looks.take("ledger's log", lambda: wal_bytes(patient.ledger))
    except TimeoutError:
        # Its disk was told of.
        return
    if large > LARGE_WAL_BYTES:
        text = f"the ledger's log has {large >> 20} MiB: something reads an old state of it"
        fix = f"close what has it open: fuser {patient.ledger}-wal"
        yield WireReason("ledger_log_large", text, fix)


async def webhook_sources(patient: Patient) -> AsyncIterator[WireReason]:
    """Look for webhook sources whose secret cannot be read."""
    webhooks = patient.config().webhooks
    if webhooks.listen is None:
        return
    for name, source in webhooks.sources.items():
        look = partial(read_webhook_secret, source.secret_file)
        try:
            await patient.looks.take(f"secret of {name}", look)
        except TimeoutError:
            text = f"webhook source {name}: the disk of {source.secret_file} does not answer"
            yield WireReason("webhook_secret", text, "look for what is wrong with it: dmesg")
            # Others that are on it would each be waited for.
            return
        except WebhookSecretError as error:
            text = f"webhook source {name}: {error.message}"
            yield WireReason("webhook_secret", text, error.hint or "mend the file")


def _nearly_full(place: Path) -> int | None:
    """Return how many bytes are free where that is too few."""
    disk = os.statvfs(place)
    free_bytes = disk.f_bavail * disk.f_frsize
    share_bytes = disk.f_blocks * disk.f_frsize // NEARLY_FULL_SHARE
    # File systems that cannot tell say that they have no blocks at all.
    return free_bytes if free_bytes < min(NEARLY_FULL_BYTES, share_bytes) else None


SYMPTOMS: tuple[Symptom, ...] = (
    Symptom("ledger writes", unwritable_ledger),
    Symptom("queue", paused_queue),
    Symptom("disks", full_disks),
    Symptom("parts", silent_parts),
    Symptom("stuck jobs", stuck_jobs),
    Symptom("poison", poisoned_jobs),
    Symptom("projects", blocked_projects),
    Symptom("transfers", failing_registries),
    Symptom("closed registries", closed_registries),
    Symptom("notifications", failing_notifications),
    Symptom("cache limits", full_cache),
    Symptom("webhooks", webhook_sources),
    Symptom("damaged kits", damaged_kits),
)
