"""One file of a hub, into a directory where it is called by its hash.

What has arrived stays in `<hash>.part` and is gone on with, in this attempt or a later one; it gets
its name once all of it was hashed.
"""

import os
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path

from kitd.blocking import run_blocking
from kitd.errors import UnavailableError
from kitd.hub.error import HubContentError, HubError, HubUnavailableError
from kitd.hub.tree import HubFile
from kitd.importing.web import Answer
from kitd.store.blob_store import os_errors

CHUNK_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")


async def fetch(
    file: HubFile,
    directory: Path,
    receive: Callable[["Part"], Awaitable[int]],
    advanced: Callable[[int], None],
) -> int:
    """Make a file complete in a directory; return how many bytes `receive` says came for it.

    `advanced` is told how many bytes of the file are there. Raises `KitdError`.
    """
    complete = directory / file.identity
    if await run_blocking(_has_size, complete, file.size):
        advanced(file.size)
        return 0
    part = Part(directory / f"{file.identity}.part", file)
    try:
        await run_blocking(part.open)
        advanced(part.size)
        received = await receive(part)
        await run_blocking(part.finish, complete)
    finally:
        await run_blocking(part.close)
    return received


async def download(
    part: "Part",
    open_at: Callable[[int], AbstractAsyncContextManager[Answer]],
    wait_after: Callable[[UnavailableError, int], Awaitable[None]],
    advanced: Callable[[int], None],
) -> int:
    """Receive what a part lacks, from the byte on that it has got to; return how many bytes came.

    It is gone on with for as long as something comes. Raises `KitdError`.
    """
    received = failures = 0
    while part.size < part.file.size:
        before = part.size
        try:
            async with open_at(part.size) as answer:
                await _begin(answer, part)
                async for chunk in answer.chunks():
                    received += len(chunk)
                    await run_blocking(part.write, chunk)
                    advanced(part.size)
            if part.size < part.file.size:
                raise HubUnavailableError(f"{part.file.path} ended before its end")
        except UnavailableError as error:
            failures = 1 if part.size > before else failures + 1
            await wait_after(error, failures)
    return received


async def _begin(answer: Answer, part: "Part") -> None:
    """Check that an answer is about the file, and let the part begin where it does."""
    file, response = part.file, answer.response
    linked_size = answer.linked.get("x-linked-size", "")
    linked_hash = answer.linked.get("x-linked-etag", "").removeprefix("W/").strip('"')
    if linked_size not in ("", str(file.size)):
        raise HubContentError(f"{file.path} has {linked_size[:20]} bytes by now, not {file.size}")
    if file.sha256 and _SHA256.fullmatch(linked_hash) and linked_hash != file.sha256:
        raise HubContentError(f"{file.path} is not what was listed: its hash is {linked_hash}")
    if response.status == 206:
        found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != part.size or found[3] not in ("*", str(file.size)):
            raise HubError(f"the server sent another part of {file.path} than it was asked for")
        return
    await run_blocking(part.restart)
    if response.status == 416:
        raise HubUnavailableError(f"the server has no rest of {file.path}: it is begun anew")
    length = response.headers.get("Content-Length", str(file.size))
    if length != str(file.size):
        raise HubContentError(f"{file.path} would have {length[:20]} bytes, not {file.size}")


class Part:
    """What has arrived of a file, hashed. For one thread at a time."""

    def __init__(self, path: Path, file: HubFile) -> None:
        self._path = path
        self.file = file
        self.size = 0
        self._hash = file.hasher()
        self._handle: int | None = None

    @property
    def _open(self) -> int:
        assert self._handle is not None
        return self._handle

    def open(self) -> None:
        """Open what there is, and hash it. Raises `StoreError`, `NoSpaceError`."""
        with self._errors():
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._handle = os.open(self._path, flags, 0o600)
            if os.fstat(self._handle).st_size > self.file.size:
                os.ftruncate(self._handle, 0)
            while chunk := os.read(self._handle, CHUNK_BYTES):
                self._hash.update(chunk)
                self.size += len(chunk)

    def restart(self) -> None:
        """Forget what has arrived."""
        with self._errors():
            os.ftruncate(self._open, 0)
            os.lseek(self._open, 0, os.SEEK_SET)
        self.size, self._hash = 0, self.file.hasher()

    def write(self, chunk: bytes) -> None:
        """Append. Raises `HubContentError` for more than there should be."""
        if self.size + len(chunk) > self.file.size:
            raise HubContentError(f"{self.file.path} has more than {self.file.size} bytes")
        with self._errors():
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(self._open, rest) :]
        self._hash.update(chunk)
        self.size += len(chunk)

    def finish(self, complete: Path) -> None:
        """Give a whole file its name. Raises `HubContentError` if its hash is another."""
        with self._errors():
            if self._hash.hexdigest() != self.file.identity:
                # It would be gone on with, and never become right.
                self._path.unlink()
                # Which one it has would tell what is where only kitd can look.
                raise HubContentError(
                    f"{self.file.path} is not what was listed: its hash is not {self.file.identity}"
                )
            os.fchmod(self._open, 0o644)
            # A name stands for the content, also after a crash of the machine.
            os.fdatasync(self._open)
            self._path.rename(complete)

    def close(self) -> None:
        """Close the file."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with os_errors("write", self._path):
            yield


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False
