"""Bounds of uploads ahead, and defects under them: remotes in memory that do as they are told."""

import asyncio

import pytest

from kitd.jobs.ahead import MAX_FLIGHTS, MAX_LANDED, uploads_ahead
from kitd.oci.descriptor import describe
from kitd.oci.media_type import OCTET_STREAM
from kitd.oci.reference import Repository

REPOSITORY = Repository("registry.example.com", "team/model")


class PackFailedError(Exception):
    """Ends a head start as a pack does that fails."""


class Remote:
    """Takes everything at once, or once `gate` is set; `error` is raised instead.

    An upload that is cancelled ends once `parting` is set, if there is one.
    """

    def __init__(self):
        self.gate = None
        self.parting = None
        self.error = None
        self.held = set()
        self.pushed = []
        self.inside = self.most_inside = 0
        self.mounted_bytes = 0

    async def __call__(self, repository):
        return self

    async def push(self, target, source):
        self.pushed.append(target)
        self.inside += 1
        self.most_inside = max(self.inside, self.most_inside)
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self.error is not None:
                raise self.error
        except asyncio.CancelledError:
            if self.parting is not None:
                await self.parting.wait()
            raise
        finally:
            self.inside -= 1
        moved_bytes = 0 if target in self.held else target.size
        self.held.add(target)
        return moved_bytes

    async def exists(self, target):
        return target in self.held

    async def resolve(self, identifier):
        raise NotImplementedError

    async def referrers(self, subject):
        """Nothing is referred to."""
        return ()

    async def tag(self, target, tag):
        raise NotImplementedError

    fetch = None


def blobs(count):
    return [describe(OCTET_STREAM, b"%d" % number) for number in range(count)]


@pytest.fixture
def remote():
    return Remote()


async def until(condition):
    """Poll for a condition in memory, with a deadline."""
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0)


async def failing_pack(ahead, blob, *, after):
    """Begin a blob and raise once a condition holds."""
    with ahead.head_start(REPOSITORY) as begin:
        begin(blob)
        await until(after)
        raise PackFailedError


async def landed(remote, count):
    """Wait until so many uploads have ended well."""
    await until(lambda: len(remote.held) == count and not remote.inside)


async def test_no_more_uploads_run_at_once_than_there_are_turns(remote):
    remote.gate = asyncio.Event()
    async with uploads_ahead(remote, remote, transfers=3) as ahead:
        with ahead.head_start(REPOSITORY) as begin:
            for blob in blobs(20):
                begin(blob)
            await until(lambda: remote.inside == 3)
            remote.gate.set()
            await landed(remote, 20)
    assert remote.most_inside == 3


async def test_what_is_begun_beyond_the_bound_is_left_to_the_push(remote):
    remote.gate = asyncio.Event()
    *first, last = blobs(MAX_FLIGHTS + 1)
    async with uploads_ahead(remote, remote, transfers=MAX_FLIGHTS) as ahead:
        with ahead.head_start(REPOSITORY) as begin:
            for blob in (*first, last):
                begin(blob)
            remote.gate.set()
            await landed(remote, MAX_FLIGHTS)
        assert set(remote.pushed) == set(first)
        assert await (await ahead.repository(REPOSITORY)).push(last, remote) == last.size


async def test_only_so_many_uploads_are_remembered_for_their_push(remote):
    oldest, *others = blobs(MAX_LANDED + 1)
    async with uploads_ahead(remote, remote) as ahead:
        with ahead.head_start(REPOSITORY) as begin:
            for count, blob in enumerate((oldest, *others), start=1):
                begin(blob)
                await landed(remote, count)
        joined = await ahead.repository(REPOSITORY)
        moved = [await joined.push(blob, remote) for blob in (oldest, others[0], others[-1])]
    assert moved == [0, others[0].size, others[-1].size]


async def test_a_blob_that_was_there_already_counts_as_not_moved(remote):
    (blob,) = blobs(1)
    remote.held.add(blob)
    async with uploads_ahead(remote, remote) as ahead:
        with ahead.head_start(REPOSITORY) as begin:
            begin(blob)
        assert await (await ahead.repository(REPOSITORY)).push(blob, remote) == 0


async def test_a_pack_that_begins_anew_what_has_landed_does_not_take_it_from_the_push(remote):
    (blob,) = blobs(1)
    async with uploads_ahead(remote, remote) as ahead:
        for count in (1, 2):
            with ahead.head_start(REPOSITORY) as begin:
                begin(blob)
                await until(lambda count=count: len(remote.pushed) == count and not remote.inside)
        assert await (await ahead.repository(REPOSITORY)).push(blob, remote) == blob.size


async def test_an_upload_is_begun_anew_while_one_that_was_stopped_still_ends(remote):
    (blob,) = blobs(1)
    remote.gate, remote.parting = asyncio.Event(), asyncio.Event()
    async with uploads_ahead(remote, remote) as ahead:
        with pytest.raises(PackFailedError):
            await failing_pack(ahead, blob, after=lambda: remote.inside == 1)
        with ahead.head_start(REPOSITORY) as begin:
            begin(blob)
            await until(lambda: remote.inside == 2)
        remote.parting.set()
        await until(lambda: remote.inside == 1)
        joined = await ahead.repository(REPOSITORY)
        push = asyncio.create_task(joined.push(blob, remote))
        await asyncio.sleep(0)
        remote.gate.set()
        assert await push == blob.size
    assert len(remote.pushed) == 3


async def test_repositories_have_head_starts_of_their_own(remote):
    (blob,) = blobs(1)
    async with uploads_ahead(remote, remote) as ahead:
        with ahead.head_start(REPOSITORY) as begin:
            begin(blob)
            await landed(remote, 1)
        elsewhere = await ahead.repository(Repository(REPOSITORY.registry, "team/other"))
        here = await ahead.repository(REPOSITORY)
        assert [await each.push(blob, remote) for each in (elsewhere, here)] == [0, blob.size]


async def test_a_defect_under_an_upload_stays_with_it(remote):
    first, second = blobs(2)
    remote.error = RuntimeError("nobody thought of this")
    async with uploads_ahead(remote, remote) as ahead:
        with ahead.head_start(REPOSITORY) as begin:
            begin(first)
            joined = await ahead.repository(REPOSITORY)
            with pytest.raises(RuntimeError):
                await joined.push(first, remote)
            begin(second)
        remote.error = None
        assert await joined.push(first, remote) == first.size
    assert second not in remote.pushed
