"""A blob store on a real disk, and small ones."""

import os
import subprocess

import pytest

from kitd.store.blob_store import BlobStore


@pytest.fixture
def store(tmp_path):
    store = BlobStore(tmp_path / "cache")
    store.create()
    return store


@pytest.fixture
def small_store(tmp_path):
    """Return a store on a disk of one megabyte."""
    root = tmp_path / "disk"
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1M", "small", str(root)]
    try:
        subprocess.run(mount, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        if os.environ.get("CI") and os.getuid() == 0:
            raise
        pytest.skip("mounting a small disk needs root")
    store = BlobStore(root / "cache")
    store.create()
    yield store
    subprocess.run(["umount", "-l", str(root)], check=True)
