"""A blob store on a real disk, and small ones."""

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
