"""The whole examination, as a list, and the doctor who goes through it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from kitd.doctor import credential, ledger, limit, place, program, queue, registry, webhook
from kitd.doctor.check import Check, sound, wrong
from kitd.doctor.patient import Patient
from kitd.doctor.symptom import SYMPTOMS, Symptom
from kitd.errors import KitdError
from kitd.rpc.methods.wire import WireCheck, WireProject, WireReason

CHECK_S = 30.0
"""What one check may take; a disk that hangs would hold it for ever."""
AUDIT_S = 300.0


def _of(symptom: Symptom) -> Check:
    """Return a check that is sound where a symptom is absent."""

    async def look(patient: Patient) -> AsyncIterator[WireCheck]:
        count = 0
        async for reason in symptom.look(patient):
            count += 1
            yield wrong(symptom.name, reason.text, reason.fix)
        if not count:
            yield sound(symptom.name, "nothing is wrong")

    return look


@dataclass(frozen=True, slots=True)
class _Step:
    """A check, what to call it where it fails itself, and what it may take."""

    name: str
    check: Check
    within_s: float = CHECK_S


STEPS: tuple[_Step, ...] = (
    _Step("versions", program.versions),
    _Step("service", program.service),
    _Step("configuration", program.configuration),
    _Step("state directory", place.state_directory),
    _Step("cache directory", place.cache_directory),
    _Step("ledger", ledger.ledger),
    _Step("watches", limit.watches),
    _Step("open files", limit.open_files),
    _Step("credentials", credential.credentials),
    _Step("registries", registry.registries),
    *(_Step(symptom.name, _of(symptom)) for symptom in SYMPTOMS),
    _Step("jobs", queue.failed_jobs),
    _Step(webhook.NAME, webhook.refused_deliveries),
)
AUDIT = _Step("audit", ledger.audit, AUDIT_S)


class Doctor:
    """Says what is wrong with one daemon. Implements `kitd.rpc.methods.services.Doctor`."""

    def __init__(self, patient: Patient) -> None:
        self._patient = patient

    async def reasons(self, projects: Sequence[WireProject]) -> Sequence[WireReason]:
        """Return what hinders kitd now, given how its projects are. Raises `KitdError`."""

        async def listed() -> Sequence[WireProject]:
            return projects

        patient = replace(self._patient, projects=listed)
        return [reason for symptom in SYMPTOMS async for reason in symptom.look(patient)]

    async def examine(self, *, audit: bool) -> Sequence[WireCheck]:
        """Look at everything, and with `audit` at the history of every job."""
        steps = (*STEPS, AUDIT) if audit else STEPS
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._take(step)) for step in steps]
        return [check for task in tasks for check in task.result()]

    async def _take(self, step: _Step) -> Sequence[WireCheck]:
        """Return what a check found; one that cannot be made is one that is not passed."""
        try:
            async with asyncio.timeout(step.within_s):
                return [check async for check in step.check(self._patient)]
        except TimeoutError:
            text = f"there was no answer within {step.within_s:g} s"
            return [wrong(step.name, text, "look for a disk that hangs: dmesg")]
        except KitdError as error:
            return [wrong(step.name, error.message, error.hint or "see the log of kitd")]
        except OSError as error:
            text = f"{error.filename or step.name}: {error.strerror or error}"
            return [wrong(step.name, text, "see the log of kitd")]
