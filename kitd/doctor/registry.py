"""The registries that are configured or that projects push to, and what their clocks say."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from kitd.doctor.check import sound, wrong
from kitd.doctor.patient import Patient
from kitd.errors import KitdError
from kitd.oci.reference import parse_repository
from kitd.rpc.methods.wire import WireCheck

PING_S = 5.0
MAX_REGISTRIES = 32
MAX_SKEW_S = 60.0
"""A clock that is further off than this gets tokens refused that are good."""
BUILT_US = 1_735_689_600_000_000
"""The first of January 2025: a clock that is before it was never set."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a registry said, or why it did not; `ahead_s` is how far kitd's clock is ahead of it."""

    error: KitdError | None
    ahead_s: float | None = None


async def registries(patient: Patient) -> AsyncIterator[WireCheck]:
    """Ask every registry whether it is there and takes the credentials; compare the clocks."""
    hosts = await _hosts(patient)
    asked = hosts[:MAX_REGISTRIES]
    async with asyncio.TaskGroup() as group:
        tasks = {host: group.create_task(_ask(patient, host)) for host in asked}
    answers = {host: task.result() for host, task in tasks.items()}
    for host, answer in answers.items():
        if answer.error is None:
            yield sound(f"registry {host}", "is there and takes the credentials")
        else:
            fix = answer.error.hint or f"look whether {host} can be reached from here"
            yield wrong(f"registry {host}", answer.error.message, fix)
    if len(hosts) > MAX_REGISTRIES:
        yield sound("registries", f"{len(hosts) - MAX_REGISTRIES} more were not asked")
    yield await _clock(patient, answers)


async def _hosts(patient: Patient) -> list[str]:
    hosts = dict.fromkeys(patient.config().registries)
    for project in await patient.projects():
        repository = parse_repository(project.reference)
        if project.push and not repository.is_local:
            hosts.setdefault(repository.registry)
    return list(hosts)


async def _ask(patient: Patient, host: str) -> _Answer:
    try:
        async with asyncio.timeout(PING_S):
            date = await patient.ping(host)
    except TimeoutError:
        return _Answer(KitdError(f"{host} did not answer within {PING_S:g} s"))
    except KitdError as error:
        return _Answer(error)
    return _Answer(None, _ahead_s(patient, date))


def _ahead_s(patient: Patient, date: str | None) -> float | None:
    try:
        theirs_s = parsedate_to_datetime(date or "").timestamp()
    except (ValueError, OverflowError):
        return None
    return patient.clock.now_us() / 1_000_000 - theirs_s


async def _clock(patient: Patient, answers: Mapping[str, _Answer]) -> WireCheck:
    """Say whether the time can be right, by the registries and by what the ledger has seen."""
    fix = "timedatectl set-ntp true"
    now_us = patient.clock.now_us()
    if now_us < BUILT_US:
        return wrong("clock", "the clock was never set", fix)
    newest_us = await patient.trouble.newest_event_us()
    if newest_us is not None and newest_us > now_us + MAX_SKEW_S * 1_000_000:
        behind_s = (newest_us - now_us) // 1_000_000
        return wrong("clock", f"the ledger has events from {behind_s} s in the future", fix)
    for host, answer in answers.items():
        if answer.ahead_s is not None and abs(answer.ahead_s) > MAX_SKEW_S:
            side = "ahead of" if answer.ahead_s > 0 else "behind"
            return wrong("clock", f"it is {abs(answer.ahead_s):.0f} s {side} {host}'s", fix)
    return sound("clock", "agrees with the ledger and with the registries that told theirs")
