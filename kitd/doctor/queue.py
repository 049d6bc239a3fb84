"""What became of the jobs of the last day."""

from collections import Counter
from collections.abc import AsyncIterator

from kitd.doctor.check import sound, wrong
from kitd.doctor.patient import Patient
from kitd.rpc.methods.wire import WireCheck

DAY_US = 86_400_000_000


async def failed_jobs(patient: Patient) -> AsyncIterator[WireCheck]:
    """Look for jobs that failed in the last day and did not succeed since, by another job."""
    since_us = patient.clock.now_us() - DAY_US
    failed = await patient.trouble.failed_since(since_us)
    for code, count in Counter(job.error.code for job in failed).most_common(10):
        newest = next(job for job in failed if job.error.code == code)
        many = f"{count} jobs failed, " if count > 1 else ""
        text = f"{many}{code}: job {newest.id} ({newest.kind}): {newest.error.message}"
        yield wrong("jobs", text, newest.error.hint or f"kitctl why {newest.id}")
    if not failed:
        yield sound("jobs", "none that failed in the last day is left")
