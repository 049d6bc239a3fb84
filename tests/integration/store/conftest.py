"""A blob store on a real disk, and others on disks that cannot do all of it."""

import subprocess

import pytest

from kitd.store.blob_store import BlobStore


@pytest.fixture
def store(tmp_path):
    store = BlobStore(tmp_path / "cache")
    store.create()
    return store


@pytest.fixture
def small_store(mount_disk):
    """Return a store on a disk of one megabyte."""
    store = BlobStore(mount_disk("1m") / "cache")
    store.create()
    return store


@pytest.fixture
def cached_only_store(tmp_path):
    """Return a store on a disk that knows no direct writes: only root can mount one."""
    disk = tmp_path / "cached-only"
    disk.mkdir()
    try:
        subprocess.run(["mount", "-t", "ramfs", "none", disk], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a disk needs root")
    store = BlobStore(disk / "cache")
    store.create()
    yield store
    subprocess.run(["umount", "-l", disk], check=True)
