"""The files of secrets that senders prove themselves with."""

import asyncio
import os
import stat
from pathlib import Path

from kitd.errors import Disposition, KitdError

MAX_BYTES = 64 << 10
READ_S = 2.0
"""How long a file is waited for: its file system may be gone."""


class WebhookSecretError(KitdError):
    """The secret of a webhook source cannot be read."""

    code = "webhook_secret"
    disposition = Disposition.RETRY


def read_secret(path: Path) -> bytes:
    """Return the content of a file without white space around it. Blocks.

    Raises `WebhookSecretError`, also where it is empty: everybody would know that secret.
    """
    try:
        # Whoever opens a pipe would wait for its other end.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise _unusable(path, "is not a file")
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror or error}") from error
    secret = content.strip()
    if not secret:
        raise _unusable(path, "is empty")
    if len(content) > MAX_BYTES:
        raise _unusable(path, f"has more than {MAX_BYTES} bytes")
    return secret


def _unusable(path: Path, why: str) -> WebhookSecretError:
    return WebhookSecretError(
        f"the secret {path} {why}", hint="write the secret that the sender has into it, mode 0400"
    )


class SecretFiles:
    """Reads secrets when they are needed: those who need one at a time share a reading.

    So a secret that is replaced counts from the next delivery on, and a file that hangs takes one
    thread, whatever comes in.
    """

    def __init__(self) -> None:
        self._under_way: dict[Path, asyncio.Future[bytes]] = {}

    async def read(self, path: Path) -> bytes:
        """Return a secret. Raises `WebhookSecretError`."""
        reading = self._under_way.get(path)
        if reading is None:
            reading = asyncio.get_running_loop().run_in_executor(None, read_secret, path)
            self._under_way[path] = reading
            reading.add_done_callback(lambda reading: self._came_back(path, reading))
        try:
            async with asyncio.timeout(READ_S):
                return await asyncio.shield(reading)
        except TimeoutError:
            raise _unusable(path, f"could not be read within {READ_S:g} s") from None

    def _came_back(self, path: Path, reading: asyncio.Future[bytes]) -> None:
        del self._under_way[path]
        if not reading.cancelled():
            # Taken, so that nobody is warned of an exception for which nobody waits any more.
            reading.exception()
