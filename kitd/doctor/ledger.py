"""The ledger's file, and with `audit` the history in it."""

import asyncio
from collections.abc import AsyncIterator

from kitd.doctor.check import sound, wrong
from kitd.doctor.patient import Patient
from kitd.ledger.audit import audit_ledger
from kitd.ledger.failure import RESTORE
from kitd.ledger.schema import inspect_ledger, wal_bytes
from kitd.rpc.methods.wire import WireCheck

INSPECT_S = 20.0
"""What looking for damage may take; a ledger of a gigabyte takes a few seconds."""


async def ledger(patient: Patient) -> AsyncIterator[WireCheck]:
    """Look for damage in the ledger."""
    # Nobody waits for the threads: they end by themselves, and leave nothing behind.
    found = await asyncio.to_thread(inspect_ledger, patient.ledger, within_s=INSPECT_S)
    log_bytes = await asyncio.to_thread(wal_bytes, patient.ledger)
    text = f"schema {found.version}, {found.size_bytes >> 20} MiB and {log_bytes >> 20} MiB of log"
    if found.damage:
        yield wrong("ledger", f"{patient.ledger} is damaged: {found.damage}", RESTORE)
    elif found.damage is None:
        yield sound("ledger", f"{text}; no damage within {INSPECT_S:g} s, not all was looked at")
    else:
        yield sound("ledger", text)


async def audit(patient: Patient) -> AsyncIterator[WireCheck]:
    """Replay the history of every job."""
    findings = await asyncio.to_thread(audit_ledger, patient.ledger)
    for finding in findings:
        what = "the events" if finding.job is None else f"job {finding.job}"
        yield wrong("audit", f"{what}: {finding.text}", "report it, with a copy of the ledger")
    if not findings:
        yield sound("audit", "what happened to every job can have happened")
