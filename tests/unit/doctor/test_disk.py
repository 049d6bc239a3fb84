import asyncio
import threading

import pytest

from kitd.doctor.disk import HANG_S, Looks


class Disk:
    """Answers when told to."""

    def __init__(self):
        self.answers = threading.Event()
        self.looks = 0

    def look(self):
        self.looks += 1
        assert self.answers.wait(30)
        if self.looks > 1:
            raise OSError("gone")
        return "room"


@pytest.fixture
def disk():
    disk = Disk()
    yield disk
    disk.answers.set()


async def test_a_disk_that_does_not_answer_has_one_thread_however_often_it_is_looked_at(disk):
    looks = Looks()
    asked = [asyncio.create_task(looks.take("disk", disk.look)) for _ in range(5)]
    for task in asked:
        with pytest.raises(TimeoutError):
            await task
    with pytest.raises(TimeoutError):
        await looks.take("disk", disk.look)
    assert disk.looks == 1
    # The loop ends once all of its threads have.
    disk.answers.set()


async def test_once_it_answers_the_next_look_is_a_new_one(disk):
    looks = Looks()
    first = asyncio.create_task(looks.take("disk", disk.look))
    await asyncio.sleep(HANG_S / 10)
    disk.answers.set()
    assert await first == "room"
    with pytest.raises(OSError, match="gone"):
        await looks.take("disk", disk.look)


async def test_what_is_looked_at_elsewhere_does_not_wait(disk):
    looks = Looks()
    hanging = asyncio.create_task(looks.take("disk", disk.look))
    assert await looks.take("other", lambda: 1) == 1
    assert not hanging.done()
    disk.answers.set()
    assert await hanging == "room"
