"""A job in any state, for the pure parts of the queue."""

import pytest

from kitd.queue.job import TERMINAL, Job, JobState, Lane


@pytest.fixture(scope="session")
def job():
    """Make a job; what is not named is plain."""

    def job(**fields) -> Job:
        state = fields.get("state", JobState.READY)
        plain = {
            "id": 1,
            "kind": "pack",
            "lane": Lane.PACK,
            "key": "pack:demo",
            "lock": "pack:/srv/demo",
            "state": state,
            "args": b"{}",
            "project": "demo",
            "reference": None,
            "priority": 0,
            "attempt": 1,
            "max_attempts": 3,
            "run_at_us": 0,
            "created_us": 0,
            "finished_us": 1 if state in TERMINAL else None,
        }
        return Job(**{**plain, **fields})

    return job
