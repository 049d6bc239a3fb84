"""The files of secrets that senders prove themselves with."""

import asyncio
from pathlib import Path

from kitd.errors import Disposition, KitdError
from kitd.secret_file import MIN_SHARED_BYTES, read_secret

READ_S = 2.0
"""How long a file is waited for: its file system may be gone."""


class WebhookSecretError(KitdError):
    """The secret of a webhook source cannot be read, or is too short to be one."""

    code = "webhook_secret"
    disposition = Disposition.RETRY


def read_webhook_secret(path: Path) -> bytes:
    """Return the content of a file without white space around it. Blocks.

    Raises `WebhookSecretError`, also where it is so short that others could find it.
    """
    try:
        return read_secret(path, at_least_bytes=MIN_SHARED_BYTES)
    except ValueError as error:
        raise _unusable(path, str(error)) from error


def _unusable(path: Path, why: str) -> WebhookSecretError:
    return WebhookSecretError(
        f"{path} {why}",
        hint=f"write the secret that the sender has into it, of at least {MIN_SHARED_BYTES} bytes"
        " (openssl rand -hex 32), mode 0400",
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
            reading = asyncio.get_running_loop().run_in_executor(None, read_webhook_secret, path)
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
