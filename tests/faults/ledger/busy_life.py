"""A life of a daemon that does nothing but queue work: says what is acknowledged, until killed.

`busy_life.py LEDGER` prints `started`, then `enqueued ID` and `succeeded ID` after each such write
was answered.
"""

import asyncio
import os
import sys
from pathlib import Path

from kitd.clock import SystemClock
from kitd.ledger import life
from kitd.ledger.database import Database
from kitd.ledger.job_ledger import JobLedger
from kitd.queue.effect import Emit
from kitd.queue.job import JobRequest, Lane

WRITERS = 8


def say(text: str) -> None:
    os.write(sys.stdout.fileno(), f"{text}\n".encode())


async def submit(jobs: JobLedger, writer: int) -> None:
    number = 0
    while True:
        number += 1
        key = f"{os.getpid()}-{writer}-{number}"
        job = await jobs.enqueue(
            JobRequest(kind="pack", lane=Lane.PACK, key=key, lock=key, args=b"{}", max_attempts=3)
        )
        say(f"enqueued {job.id}")


async def work(jobs: JobLedger) -> None:
    while True:
        for attempt in await jobs.claim({Lane.PACK: 2}):
            done = Emit("effect", f"job:{attempt.id}")
            await jobs.succeed(attempt, b"{}", (done,), ())
            say(f"succeeded {attempt.id}")


async def main(path: Path) -> None:
    clock = SystemClock()
    async with Database(path) as database:
        begun = await life.begin(database, clock, pid=os.getpid(), version="test")
        jobs = JobLedger(database, clock, begun.epoch)
        await jobs.recover()
        say("started")
        async with asyncio.TaskGroup() as group:
            for writer in range(WRITERS):
                group.create_task(submit(jobs, writer))
            group.create_task(work(jobs))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
