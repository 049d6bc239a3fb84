"""Where imports keep what they have fetched, and who takes it away when they are over.

Each job has a directory of its own beside the blobs of the cache, so that an attempt goes on where
the last one, or the last life of kitd, stopped. It goes once the job has ended, however it did.
"""

import asyncio
import contextlib
import os
import shutil
import threading
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn, Protocol

import structlog

from kitd.blocking import run_blocking
from kitd.errors import Disposition, KitdError, NotFoundError
from kitd.hub.git_source import Source
from kitd.hub.tree import Choice, HubFile, HubSource, Snapshot
from kitd.importing.git import GitClient, GitOrigin
from kitd.importing.hub import HubClient
from kitd.importing.ignored import find_ignored
from kitd.jobs.import_kit import NoRoomToImportError
from kitd.jobs.port import Origin
from kitd.modelkit.kitfile import KITFILE_NAMES
from kitd.queue.job import TERMINAL, Job
from kitd.store.blob_store import BlobStore, os_errors

DIRECTORY = "imports"
"""Below the cache's directory."""
LOOK_S = 600.0
"""Jobs that are cancelled while they wait end without anybody's noticing it here."""
_BLOBS, _TREE, _REPOSITORY, _GONE = "blobs", "tree", "git", ".gone"

log = structlog.get_logger(__name__)


class Jobs(Protocol):
    """The ledger of jobs: see `kitd.ledger.job_ledger.JobLedger`."""

    async def job(self, job_id: int) -> Job:
        """Return a job. Raises `NotFoundError`."""
        ...


class Importer:
    """Implements `kitd.jobs.port.Importer`. Belongs to one event loop."""

    def __init__(self, hub: HubClient, git: GitClient, store: BlobStore, jobs: Jobs) -> None:
        self._hub = hub
        self._git = git
        self._store = store
        self._jobs = jobs
        self._root = store.root / DIRECTORY
        self._ended = asyncio.Event()
        self._in_use: set[int] = set()
        """Jobs whose attempts have a directory. A sweep and a beginning exclude each other."""
        self._use = threading.Lock()

    @asynccontextmanager
    async def open(
        self, source: Source, place: Path, choice: Choice, advanced: Callable[[int], None]
    ) -> AsyncIterator[Origin]:
        """Open what is chosen of a revision, to fetch its files into a job's directory.

        Raises `KitdError`.
        """
        if isinstance(source, HubSource):
            snapshot = await self._hub.snapshot(source, choice)
            fetch = partial(self._fetch_of_hub, source, snapshot.commit, place)
            yield _Origin(snapshot, 0, fetch)
            return

        async def received(size: int) -> None:
            advanced(size)
            if not await run_blocking(self._store.has_room_for, size):
                raise NoRoomToImportError(
                    f"the disk of the cache has no room for the files of {source}",
                    hint="free space, or point cache.dir at a larger disk",
                )

        async with self._git.open(source, place / _REPOSITORY, received, choice) as origin:
            fetch = partial(_fetch_of_git, origin, place)
            yield _Origin(origin.snapshot, origin.received, fetch)

    async def _fetch_of_hub(
        self,
        source: HubSource,
        commit: str,
        place: Path,
        file: HubFile,
        advanced: Callable[[int], None],
    ) -> int:
        return await self._hub.fetch(source, commit, file, place / _BLOBS, advanced)

    def place(self, job: int) -> Path:
        """Return a job's directory, made if it is not there. Blocks. Raises `StoreError`."""
        path = self._root / str(job)
        with self._use, os_errors("create", path):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            (path / _BLOBS).mkdir(exist_ok=True)
            self._in_use.add(job)
        return path

    def read(self, place: Path, file: HubFile) -> bytes:
        """Return the content of a small file that was fetched. Blocks. Raises `StoreError`."""
        path = place / _BLOBS / file.identity
        with os_errors("read", path):
            return path.read_bytes()

    async def ignored(self, rules: bytes, paths: Sequence[str]) -> frozenset[str]:
        """Return which files a .kitignore leaves out. Raises `KitdError`."""
        return await find_ignored(rules, paths)

    def has_room_for(self, place: Path, files: Collection[HubFile]) -> bool:
        """Whether the disk takes what is missing of files, and the layers made of all of them.

        Blocks. Raises `StoreError`.
        """
        blobs = place / _BLOBS
        missing = total = 0
        with os_errors("look at", blobs):
            for identity, size in {file.identity: file.size for file in files}.items():
                total += size
                missing += 0 if (blobs / identity).exists() else size
        return self._store.has_room_for(total + missing)

    def lay_out(self, place: Path, files: Collection[HubFile], kitfile: str) -> Path:
        """Return a directory with files under their names, and the Kitfile.

        Blocks. Raises `StoreError`, `NoSpaceError`.
        """
        tree = place / _TREE
        with os_errors("write", tree):
            if tree.exists():
                shutil.rmtree(tree)
            tree.mkdir(mode=0o755)
            for file in files:
                path = tree / file.path
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                if file.is_executable:
                    # Of its own: an equal one may not be.
                    shutil.copyfile(place / _BLOBS / file.identity, path)
                    path.chmod(0o755)
                else:
                    os.link(place / _BLOBS / file.identity, path)
            for name in KITFILE_NAMES:
                (tree / name).unlink(missing_ok=True)
            (tree / KITFILE_NAMES[0]).write_text(kitfile, encoding="utf-8")
        return tree

    def job_ended(self, job: Job) -> None:
        """Take note that an attempt is over. Does not wait."""
        self._in_use.discard(job.id)
        self._ended.set()

    async def run(self) -> NoReturn:
        """Take away what belongs to no job any more, until cancelled."""
        while True:
            self._ended.clear()
            with self._noted():
                await self.sweep()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._ended.wait()

    async def sweep(self) -> None:
        """Take away the directories of jobs that have ended. Raises `KitdError`.

        One that cannot be removed is noted, and keeps no other here.
        """
        for path in await run_blocking(self._places):
            with self._noted():
                if not path.name.isdecimal() or await self._is_over(int(path.name)):
                    await run_blocking(self._remove, path)

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        """Let no error through but one that ends kitd."""
        try:
            yield
        except KitdError as error:
            if error.disposition is Disposition.FATAL:
                raise
            log.warning("imports.not_swept", code=error.code, error=error.message)

    def _places(self) -> list[Path]:
        with os_errors("list", self._root):
            found = list(self._root.iterdir()) if self._root.exists() else []
        # What was left half removed first: its name may be needed.
        return sorted(found, key=lambda path: path.name.isdecimal())

    def _remove(self, path: Path) -> None:
        gone = path.with_suffix(_GONE)
        with os_errors("remove", path):
            if path != gone:
                with self._use:
                    # Since it was looked for, somebody may have retried the job.
                    if int(path.name) in self._in_use:
                        return
                    # At once: who does that from now on begins with a directory of his own.
                    path.rename(gone)
            shutil.rmtree(gone)

    async def _is_over(self, job: int) -> bool:
        try:
            return (await self._jobs.job(job)).state in TERMINAL
        except NotFoundError:
            return True


@dataclass(frozen=True, slots=True)
class _Origin:
    """Implements `kitd.jobs.port.Origin`."""

    snapshot: Snapshot
    received: int
    _fetch: Callable[[HubFile, Callable[[int], None]], Awaitable[int]]

    async def fetch(self, file: HubFile, advanced: Callable[[int], None]) -> int:
        """Make a file complete in the job's directory. Raises `KitdError`."""
        return await self._fetch(file, advanced)


async def _fetch_of_git(
    origin: GitOrigin, place: Path, file: HubFile, advanced: Callable[[int], None]
) -> int:
    return await origin.fetch(file, place / _BLOBS, advanced)
