"""The log of calls: a line for each while there are few, numbers when many come."""

import asyncio
from collections import Counter

from structlog.testing import capture_logs

from kitd.rpc.call_log import LINES_PER_S, CallLog


async def entries(logs, event, number):
    """Wait for so many entries of an event."""
    async with asyncio.timeout(10):
        while len(found := [entry for entry in logs if entry["event"] == event]) < number:
            await asyncio.sleep(0.01)
    return found


async def test_few_calls_have_a_line_each():
    with capture_logs() as logs:
        CallLog().note("kits.pull", 1000, 77, "ok")
    (entry,) = logs
    assert (entry["event"], entry["method"], entry["outcome"]) == ("rpc.call", "kits.pull", "ok")
    assert (entry["uid"], entry["pid"]) == (1000, 77)


async def test_many_calls_are_counted_and_none_is_left_out():
    calls = CallLog()
    with capture_logs() as logs:
        for _ in range(500):
            calls.note("kits.pull", 1000, 77, "ok")
            calls.note("kits.push", 1001, 78, "denied")
        assert len(logs) == LINES_PER_S
        counted = await entries(logs, "rpc.calls", 2)
    told = Counter(
        (entry["method"], entry["uid"], entry["outcome"]) for entry in logs[:LINES_PER_S]
    )
    for entry in counted:
        told[entry["method"], entry["uid"], entry["outcome"]] += entry["count"]
    assert told == {("kits.pull", 1000, "ok"): 500, ("kits.push", 1001, "denied"): 500}


async def test_a_quiet_second_later_each_has_its_line_again():
    calls = CallLog()
    with capture_logs() as logs:
        for _ in range(LINES_PER_S + 1):
            calls.note("kits.pull", 1000, 77, "ok")
        await entries(logs, "rpc.calls", 1)
        calls.note("kits.pull", 1000, 77, "ok")
    assert logs[-1]["event"] == "rpc.call"
