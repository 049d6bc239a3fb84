"""Deliveries of webhooks that were refused: a sender with another secret, or somebody without any.

Nobody else is told of them by name: that something was refused mends nothing by itself.
"""

from collections.abc import AsyncIterator

from kitd.doctor.check import sound
from kitd.doctor.patient import Patient
from kitd.rpc.methods.wire import WireCheck

NAME = "refused deliveries"


async def refused_deliveries(patient: Patient) -> AsyncIterator[WireCheck]:
    """Count what senders were refused since the start."""
    found = patient.refusals()
    counts = [f"{source}: {count}" for source, count in sorted(found.by_source.items())]
    if found.unknown:
        counts.append(f"for sources that there are not: {found.unknown}")
    yield sound(NAME, ", ".join(counts) or "none since the start")
