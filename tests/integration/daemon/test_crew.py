"""The daemon's parts as tasks: how they end, and who waits for whom."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from kitd.daemon.crew import Crew


class DiedError(Exception):
    """What a part died of."""


async def die():
    raise DiedError


async def ignore_cancellation(until):
    while not until.is_set():
        try:
            await until.wait()
        except asyncio.CancelledError:
            continue


@pytest.fixture
async def released():
    """An event that is set after the test, for what would otherwise never end."""
    event = asyncio.Event()
    yield event
    event.set()
    await asyncio.sleep(0)


async def test_what_a_part_dies_of_ends_the_wait():
    crew = Crew()
    crew.start("well", asyncio.sleep(60))
    crew.start("ill", die())
    with pytest.raises(DiedError):
        await crew.until(asyncio.sleep(60))
    assert await crew.stop(["well", "ill"], within_s=1) == ()


async def test_the_log_names_the_part_that_died_and_not_those_that_end_with_it():
    @asynccontextmanager
    async def context():
        yield

    @asynccontextmanager
    async def group():
        async with asyncio.TaskGroup(), asyncio.TaskGroup():
            yield

    async def daemon():
        crew = Crew()
        async with (
            crew.host("outer", context(), close_s=1),
            crew.host("group", group(), close_s=1),
            crew.host("inner", context(), close_s=1),
        ):
            crew.start("ill", die())
            await crew.until(asyncio.sleep(60))

    with capture_logs() as said, pytest.raises(DiedError):
        await daemon()
    assert [line["part"] for line in said] == ["ill"]


async def test_a_part_that_returns_ends_the_wait():
    """It was to run until it is stopped: that it does not is a defect."""
    crew = Crew()
    crew.start("quick", asyncio.sleep(0))
    with pytest.raises(RuntimeError, match="quick"):
        await crew.until(asyncio.sleep(60))


async def test_a_wait_ends_with_what_it_waits_for():
    crew = Crew()
    crew.start("part", asyncio.sleep(60))
    await crew.until(asyncio.sleep(0))
    assert await crew.stop(["part"], within_s=1) == ()


async def test_a_part_that_will_not_end_is_left_behind(released):
    crew = Crew()
    crew.start("stuck", ignore_cancellation(released))
    crew.start("well", asyncio.sleep(60))
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        assert await crew.stop(["stuck", "well"], within_s=0.1) == ("stuck",)


async def test_a_hosted_context_is_opened_and_closed_in_one_task():
    """Task groups and timeouts may not be left by another task than entered them."""
    tasks = []

    @asynccontextmanager
    async def context():
        tasks.append(asyncio.current_task())
        async with asyncio.TaskGroup():
            yield "thing"
        tasks.append(asyncio.current_task())

    crew = Crew()
    async with crew.host("part", context(), close_s=1) as thing:
        assert thing == "thing"
        await crew.until(asyncio.sleep(0))
    assert tasks[0] is tasks[1]
    assert tasks[0] is not asyncio.current_task()


async def test_a_hosted_context_sees_what_the_block_died_of():
    seen = []

    @asynccontextmanager
    async def context():
        try:
            yield
        except DiedError as error:
            seen.append(error)
            raise

    crew = Crew()
    with pytest.raises(DiedError):
        async with crew.host("part", context(), close_s=1):
            raise DiedError
    assert len(seen) == 1


@pytest.mark.parametrize("where", ["opening", "closing"])
async def test_what_a_hosted_context_raises_is_raised(where):
    @asynccontextmanager
    async def context():
        if where == "opening":
            raise DiedError
        yield
        raise DiedError

    crew = Crew()
    with pytest.raises(DiedError):
        async with crew.host("part", context(), close_s=1):
            assert where == "closing"


async def test_a_hosted_context_that_does_not_close_is_left_behind(released):
    @asynccontextmanager
    async def context():
        yield
        await released.wait()

    crew = Crew()
    async with asyncio.timeout(10), crew.host("part", context(), close_s=0.1):
        pass


async def test_a_hosted_context_that_dies_while_it_is_open_ends_the_wait():
    die_now = asyncio.Event()

    @asynccontextmanager
    async def context():
        async with asyncio.TaskGroup() as group:

            async def later():
                await die_now.wait()
                raise DiedError

            group.create_task(later())
            yield

    crew = Crew()

    async def live():
        async with crew.host("part", context(), close_s=1):
            die_now.set()
            await crew.until(asyncio.sleep(60))

    with pytest.raises(ExceptionGroup) as caught:
        await live()
    assert caught.group_contains(DiedError)


async def test_an_opening_can_be_cancelled():
    closed = []

    @asynccontextmanager
    async def context():
        try:
            await asyncio.sleep(60)
            yield
        finally:
            closed.append(True)

    async def open_it():
        async with Crew().host("part", context(), close_s=1):
            pass

    opening = asyncio.create_task(open_it())
    await asyncio.sleep(0.05)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert closed == [True]
