"""Where imports keep what they have fetched, and who takes it away when they are over.

Each job has a directory of its own beside the blobs of the cache, so that an attempt goes on where
the last one, or the last life of kitd, stopped. It goes once the job has ended, however it did.
"""

import asyncio
import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, Protocol

import structlog

from kitd.blocking import run_blocking
from kitd.errors import Disposition, KitdError, NotFoundError
from kitd.hub.tree import HubFile, HubSource, Snapshot
from kitd.importing.fetch import fetch
from kitd.importing.hub import HubClient
from kitd.queue.job import TERMINAL, Job
from kitd.store.blob_store import BlobStore, os_errors

DIRECTORY = "imports"
"""Below the cache's directory."""
LOOK_S = 600.0
"""Jobs that are cancelled while they wait end without anybody's noticing it here."""
_GONE = ".gone"

log = structlog.get_logger(__name__)


class Jobs(Protocol):
    """The ledger of jobs: see `kitd.ledger.job_ledger.JobLedger`."""

    async def job(self, job_id: int) -> Job:
        """Return a job. Raises `NotFoundError`."""
        ...


class Importer:
    """Implements `kitd.jobs.port.Importer`. Belongs to one event loop."""

    def __init__(self, hub: HubClient, store: BlobStore, jobs: Jobs) -> None:
        self._hub = hub
        self._store = store
        self._jobs = jobs
        self._root = store.root / DIRECTORY
        self._ended = asyncio.Event()

    async def snapshot(self, source: HubSource) -> Snapshot:
        """Return what a revision of a repository holds. Raises `KitdError`."""
        return await self._hub.snapshot(source)

    async def fetch(
        self,
        source: HubSource,
        commit: str,
        file: HubFile,
        directory: Path,
        advanced: Callable[[int], None],
    ) -> int:
        """Make a file complete, as its hash, in a directory. Raises `KitdError`."""
        return await fetch(self._hub, source, commit, file, directory, advanced)

    def place(self, job: int) -> Path:
        """Return a job's directory, made if it is not there. Blocks. Raises `StoreError`."""
        path = self._root / str(job)
        with os_errors("create", path):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def has_room_for(self, size: int) -> bool:
        """Whether the disk takes so many bytes. Blocks. Raises `StoreError`."""
        return self._store.has_room_for(size)

    def job_ended(self, job: Job) -> None:
        """Take note that an attempt is over. Does not wait."""
        del job
        self._ended.set()

    async def run(self) -> NoReturn:
        """Take away what belongs to no job any more, until cancelled."""
        while True:
            self._ended.clear()
            try:
                await self.sweep()
            except KitdError as error:
                if error.disposition is Disposition.FATAL:
                    raise
                log.warning("imports.not_swept", code=error.code, error=error.message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._ended.wait()

    async def sweep(self) -> None:
        """Take away the directories of jobs that have ended. Raises `KitdError`."""
        for path in await run_blocking(self._places):
            if path.name.isdecimal() and not await self._is_over(int(path.name)):
                continue
            await run_blocking(_remove, path)

    def _places(self) -> list[Path]:
        with os_errors("list", self._root):
            return sorted(self._root.iterdir()) if self._root.exists() else []

    async def _is_over(self, job: int) -> bool:
        try:
            return (await self._jobs.job(job)).state in TERMINAL
        except NotFoundError:
            return True


def _remove(path: Path) -> None:
    gone = path.with_suffix(_GONE)
    with os_errors("remove", path):
        if path != gone:
            # At once: who retries the job meanwhile begins with a directory of his own.
            path.rename(gone)
        shutil.rmtree(gone)
