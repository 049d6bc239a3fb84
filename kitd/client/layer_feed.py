"""A layer that kitd does not have and sends on while it comes from a registry: read once, in order.

Frames of four bytes of length, most significant first, and so many bytes; after a length of zero a
JSON object that is empty, or says what went wrong.
"""

import json
import os
import select

from kitd.errors import KitdError

SILENCE_S = 600.0
"""How long kitd may send nothing: it gives up a registry that is silent much earlier."""
MAX_ERROR_BYTES = 1 << 20

_LENGTH_BYTES = 4
_AT_ONCE_BYTES = 1 << 20


class FeedError(KitdError):
    """A layer that is not in kitd's cache did not come to its end."""

    code = "feed_broken"


class LayerFeed:
    """Reads a feed from the descriptor `handle`, which stays the caller's."""

    def __init__(self, handle: int, digest: str) -> None:
        self._handle = handle
        self._digest = digest
        self._left = 0
        self._poll = select.poll()
        self._poll.register(handle, select.POLLIN)

    def read(self) -> bytes:
        """Return what comes next of the layer, and nothing at its end. Raises `FeedError`."""
        if self._left == 0:
            self._left = int.from_bytes(self._exactly(_LENGTH_BYTES))
            if self._left == 0:
                self._end()
                return b""
        data = self._some(min(self._left, _AT_ONCE_BYTES))
        self._left -= len(data)
        return data

    def _end(self) -> None:
        """Raise `FeedError` if it is not the layer that has ended but the feed."""
        said = b""
        while data := self._receive(_AT_ONCE_BYTES):
            said += data
            if len(said) > MAX_ERROR_BYTES:
                raise self._broken("kitd says too much about what went wrong")
        try:
            document = json.loads(said)
        except ValueError as error:
            raise self._broken("kitd ended in the middle of it") from error
        if not isinstance(document, dict):
            raise self._broken("kitd does not say how it ended")
        if document:
            hint = document.get("hint")
            raise FeedError(
                f"the layer {self._digest} cannot be had: {document.get('message')}",
                hint=None if hint is None else str(hint),
            )

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += self._some(count - len(data))
        return data

    def _some(self, most: int) -> bytes:
        data = self._receive(most)
        if not data:
            raise self._broken("kitd ended in the middle of it")
        return data

    def _receive(self, most: int) -> bytes:
        if not self._poll.poll(SILENCE_S * 1000):
            raise self._broken(f"kitd sent nothing for {SILENCE_S:g} s")
        try:
            return os.read(self._handle, most)
        except OSError as error:
            raise self._broken(error.strerror or "it cannot be read") from error

    def _broken(self, reason: str) -> FeedError:
        return FeedError(
            f"the layer {self._digest} did not come to its end: {reason}", hint="unpack again"
        )
