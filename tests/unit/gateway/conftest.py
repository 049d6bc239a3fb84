"""A blob store in a temporary directory."""

import pytest

from kitd.store.blob_store import BlobStore


@pytest.fixture
def store(tmp_path):
    store = BlobStore(tmp_path)
    store.create()
    return store
