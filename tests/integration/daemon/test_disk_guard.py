"""The disk guard on real small disks: what is kept back, given up, and asked for again."""

import os

import pytest

from kitd.daemon.disk_guard import NEEDED_BYTES, DiskGuard

RESERVE_BYTES = 2 << 20


@pytest.fixture
def disk(mount_disk):
    return mount_disk("16m")


@pytest.fixture
def guard(disk):
    return DiskGuard(disk, reserve_bytes=RESERVE_BYTES, ample_bytes=8 << 20)


def free_bytes(path):
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


def fill(path, leave_bytes=0):
    """Take all but so much of the disk."""
    path.touch()
    with path.open("ab") as file:
        os.posix_fallocate(file.fileno(), 0, free_bytes(path) - leave_bytes)


async def test_a_reserve_is_kept_where_there_is_plenty(guard, disk):
    await guard.prepare()
    await guard.prepare()
    assert (disk / "reserve").stat().st_size == RESERVE_BYTES
    assert free_bytes(disk) <= (16 << 20) - RESERVE_BYTES


async def test_nothing_is_kept_back_of_little(guard, disk):
    fill(disk / "data", leave_bytes=4 << 20)
    await guard.prepare()
    assert not (disk / "reserve").exists()
    await guard.make_way()


async def test_a_full_disk_gets_the_reserve_and_that_is_no_room(guard, disk):
    await guard.prepare()
    assert await guard.is_back()
    fill(disk / "data")
    assert not await guard.is_back()
    await guard.make_way()
    assert free_bytes(disk) >= RESERVE_BYTES
    assert not await guard.is_back()
    (disk / "data").unlink()
    assert await guard.is_back()
    assert (disk / "reserve").stat().st_size == RESERVE_BYTES
    assert {path.name for path in disk.iterdir()} == {"reserve"}


async def test_what_a_former_life_kept_back_is_given_up_where_nothing_else_is_left(guard, disk):
    await guard.prepare()
    fill(disk / "data")
    next_life = DiskGuard(disk, reserve_bytes=RESERVE_BYTES, ample_bytes=8 << 20)
    await next_life.prepare()
    assert free_bytes(disk) >= RESERVE_BYTES
    assert not await next_life.is_back()
    (disk / "data").unlink()
    assert await next_life.is_back()
    assert (disk / "reserve").stat().st_size == RESERVE_BYTES


async def test_a_reserve_that_there_was_no_room_for_at_the_start_is_kept_once_there_is(guard, disk):
    fill(disk / "data")
    await guard.prepare()
    await guard.make_way()
    (disk / "data").unlink()
    assert await guard.is_back()
    assert (disk / "reserve").stat().st_size == RESERVE_BYTES


async def test_room_that_is_the_reserves_own_is_not_enough(guard, disk):
    await guard.prepare()
    await guard.make_way()
    fill(disk / "data", leave_bytes=NEEDED_BYTES + RESERVE_BYTES // 2)
    assert not await guard.is_back()


async def test_every_disk_must_have_room(disk, mount_disk):
    other = mount_disk("8m")
    guard = DiskGuard(disk, [other])
    assert await guard.is_back()
    fill(other / "data")
    assert not await guard.is_back()


async def test_a_disk_that_is_gone_is_no_room(disk, tmp_path):
    assert not await DiskGuard(disk, [tmp_path / "gone"]).is_back()


async def test_no_reserve_is_no_reason_not_to_start(tmp_path):
    guard = DiskGuard(tmp_path / "gone")
    await guard.prepare()
    await guard.make_way()
