"""Looks that are taken beside scrapes."""

import pytest
from structlog.testing import capture_logs

from kitd.errors import KitdError
from kitd.metrics.sampler import Look


class Hands:
    at_us = 1_000

    def now_us(self):
        return self.at_us

    def monotonic_s(self):
        return self.at_us / 1_000_000


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (KitdError("gone"), "metrics.look_failed"),
        (OSError("gone"), "metrics.look_failed"),
        (TimeoutError(), "metrics.look_failed"),
        (ZeroDivisionError("a defect"), "metrics.look_defect"),
    ],
)
async def test_what_was_seen_stays_where_nothing_can_be_seen(error, event):
    answers, clock = [1, error, error, 2, error], Hands()

    async def take():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    look = Look("disks", 1.0, take, clock)
    seen = []
    with capture_logs() as logged:
        while answers:
            await look.once()
            seen.append((look.seen, look.at_us))
            clock.at_us += 1
    assert seen == [(1, 1_000), (1, 1_000), (1, 1_000), (2, 1_003), (2, 1_003)]
    assert [line["event"] for line in logged] == [event] * 2
