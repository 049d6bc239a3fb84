"""Samples of what came instead of a blob: the beginning may be a web page that says why.

They are in quarantine, under names that are no digests: no content to be relied on.
"""

import os
from pathlib import Path

from kitd.oci.digest import Digest
from kitd.store.blob_store import BlobStore, file_name, os_errors

SAMPLE_BYTES = 1 << 16
MAX_SAMPLES = 64
"""The oldest goes when there is one more."""
_PREFIX = "rejected-"


def sample_path(store: BlobStore, digest: Digest) -> Path:
    """Return where the sample is, or would be, of what came instead of a blob."""
    return store.quarantine_dir / f"{_PREFIX}{file_name(digest)}"


def keep_sample(store: BlobStore, digest: Digest, content: bytes) -> Path:
    """Keep the beginning of what came instead of a blob and return where. Raises `StoreError`."""
    path = sample_path(store, digest)
    with os_errors("write", path):
        others = [other for other in store.quarantine_dir.glob(f"{_PREFIX}*") if other != path]
        others.sort(key=_written_ns)
        for other in others[: max(0, len(others) - MAX_SAMPLES + 1)]:
            other.unlink(missing_ok=True)
        path.write_bytes(content[:SAMPLE_BYTES])
        os.chmod(path, 0o600)
    return path


def _written_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        # Somebody else made room at the same time.
        return 0
