"""A commit of a git repository as a source of files: what is in it, and each of them."""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from kitd.blocking import run_blocking
from kitd.hub.error import GitError
from kitd.hub.git_source import GitSource
from kitd.hub.git_tree import (
    may_be_pointers,
    notes_of,
    parse_pointer,
    parse_tree,
    with_pointers,
)
from kitd.hub.tree import EVERYTHING, Choice, HubFile, Snapshot, check_tree
from kitd.importing.fetch import Part, fetch
from kitd.importing.git_program import GitObjects, GitProgram
from kitd.importing.lfs import LfsClient
from kitd.importing.netrc_login import netrc_login
from kitd.importing.web import Web
from kitd.secret import Secrets
from kitd.store.blob_store import os_errors


class GitClient:
    """Fetches commits, and what LFS keeps of them."""

    def __init__(self, web: Web, secrets: Secrets, environ: Mapping[str, str]) -> None:
        self._web = web
        self._secrets = secrets
        self._environ = environ
        self._program = GitProgram(environ, secrets.redact)

    @asynccontextmanager
    async def open(
        self,
        source: GitSource,
        directory: Path,
        received: Callable[[int], Awaitable[None]],
        choice: Choice = EVERYTHING,
    ) -> AsyncIterator["GitOrigin"]:
        """Fetch a commit into a directory, which is begun anew, and is gone in the end.

        `received` is told how many bytes of it there are, and may raise to end it. Raises
        `KitdError` of `kitd.hub.error`.
        """
        await run_blocking(_remove, directory)
        try:

            async def looked() -> int:
                size = await run_blocking(_size_of, directory)
                await received(size)
                return size

            with self._secrets.redacted():
                await self._learn_login(source)
                commit = await self._program.fetch(source, directory, looked)
            async with self._program.objects(directory) as objects:
                snapshot = await self._snapshot(directory, commit, objects, choice)
                size = await run_blocking(_size_of, directory)
                lfs = LfsClient(source, self._web, self._program, self._secrets, self._environ)
                yield GitOrigin(snapshot, size, objects, lfs)
        finally:
            await run_blocking(_remove, directory)

    async def _learn_login(self, source: GitSource) -> None:
        """Take note of what curl in git is going to show, which a server may repeat."""
        place = source.place
        if place.scheme not in ("http", "https"):
            return
        login = await run_blocking(netrc_login, self._environ, place.host)
        if login is not None:
            user, password = login
            self._secrets.learn(password, username=user)

    async def _snapshot(
        self, directory: Path, commit: str, objects: GitObjects, choice: Choice
    ) -> Snapshot:
        content = await self._program.tree(directory, commit)
        tree = await run_blocking(parse_tree, content, choice)
        pointers = {}
        for file in may_be_pointers(tree.files):
            if file.blob not in pointers:
                async with aclosing(objects.read(file.blob, file.size)) as chunks:
                    text = b"".join([chunk async for chunk in chunks])
                pointers[file.blob] = parse_pointer(text)
        known = {blob: pointer for blob, pointer in pointers.items() if pointer is not None}
        files = with_pointers(tree.files, known)
        await run_blocking(check_tree, files)
        return Snapshot(commit=commit, files=files, licence="", notes=notes_of(tree))


class GitOrigin:
    """A commit that was fetched. `received` is how many bytes came for it."""

    def __init__(
        self, snapshot: Snapshot, received: int, objects: GitObjects, lfs: LfsClient
    ) -> None:
        self.snapshot = snapshot
        self.received = received
        self._objects = objects
        self._lfs = lfs

    async def fetch(self, file: HubFile, directory: Path, advanced: Callable[[int], None]) -> int:
        """Make a file complete in a directory; return how many bytes came. Raises `KitdError`."""
        if file.sha256:
            return await self._lfs.fetch(file, directory, advanced)

        async def receive(part: Part) -> int:
            await run_blocking(part.restart)
            async with aclosing(self._objects.read(file.blob, file.size)) as chunks:
                async for chunk in chunks:
                    await run_blocking(part.write, chunk)
                    advanced(part.size)
            if part.size != file.size:
                raise GitError(f"git ended in the middle of {file.path}")
            return 0

        return await fetch(file, directory, receive, advanced)


def _remove(directory: Path) -> None:
    with os_errors("remove", directory):
        if directory.exists():
            shutil.rmtree(directory)


def _size_of(directory: Path) -> int:
    """Return how many bytes the files below a directory have, which come and go meanwhile."""
    size = 0
    for path, _, names in os.walk(directory):
        for name in names:
            try:
                size += os.lstat(os.path.join(path, name)).st_size
            except FileNotFoundError:
                continue
    return size
