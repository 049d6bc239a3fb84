"""Threads that hash a layer: there while it is read, and gone then."""

import hashlib
import os
import threading
from pathlib import Path

import pytest

from kitd.client.layer_stream import LayerError, LayerStream
from kitd.client.record import Layer

LARGE = bytes(range(256)) * (5 << 12)
SMALL = LARGE[: 1 << 20]


def layer_of(content: bytes) -> Layer:
    return Layer(
        digest="sha256:" + hashlib.sha256(content).hexdigest(),
        size=len(content),
        media_type="application/vnd.kitops.modelkit.model.v1.raw",
        diff_id=None,
        path="f",
        prefix=".",
        mode=None,
        directory="",
        kit=None,
        elsewhere=False,
    )


def most_threads(path: Path, layer: Layer) -> int:
    """Read a layer of a file to its end; return how many threads hashed it at most."""
    most = 0

    def look(_: int) -> None:
        nonlocal most
        most = max(most, len(hashing()))

    handle = os.open(path, os.O_RDONLY)
    try:
        with LayerStream(handle, layer, look) as stream:
            while stream.read(1 << 20):
                pass
            stream.finish()
    finally:
        os.close(handle)
    return most


def hashing() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("hash")]


@pytest.mark.parametrize(("content", "threads"), [(LARGE, 1), (SMALL, 0)], ids=["large", "small"])
def test_a_thread_is_there_for_a_large_layer_and_ends_with_it(tmp_path, content, threads):
    (tmp_path / "blob").write_bytes(content)
    assert most_threads(tmp_path / "blob", layer_of(content)) == threads
    assert hashing() == []


def test_it_ends_with_a_layer_that_is_damaged(tmp_path):
    (tmp_path / "blob").write_bytes(LARGE[::-1])
    with pytest.raises(LayerError, match="has the digest"):
        most_threads(tmp_path / "blob", layer_of(LARGE))
    assert hashing() == []


def test_where_no_thread_can_be_had_none_is_needed(tmp_path, monkeypatch):
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    (tmp_path / "blob").write_bytes(LARGE)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert most_threads(tmp_path / "blob", layer_of(LARGE)) == 0
    (tmp_path / "blob").write_bytes(LARGE[::-1])
    with pytest.raises(LayerError, match="has the digest"):
        most_threads(tmp_path / "blob", layer_of(LARGE))
