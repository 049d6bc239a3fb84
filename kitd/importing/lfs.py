"""Files that git has only a pointer to: asked for at the LFS server, received from where it says.

Each file is asked for right before it is received, and again before it is gone on with: links to
storage are signed for minutes.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
from yarl import URL

from kitd.blocking import run_blocking
from kitd.hub.error import HubContentError, HubNotFoundError
from kitd.hub.git_source import GitPlace, GitSource
from kitd.hub.lfs import (
    MEDIA_TYPE,
    LfsAction,
    batch_request,
    lfs_endpoint,
    parse_authenticated,
    parse_batch,
)
from kitd.hub.tree import HubFile
from kitd.importing.fetch import CHUNK_BYTES, Part, download, fetch
from kitd.importing.git_program import GitProgram
from kitd.importing.netrc_login import netrc_login
from kitd.importing.web import Advice, Answer, Confines, Web
from kitd.secret import Secrets
from kitd.store.blob_store import os_errors

MAX_BATCH_BYTES = 1 << 20
"""Of an answer about one file."""
AUTHENTICATED_S = 240.0
"""For how long at most the answer to an authentication by ssh is used."""
MIN_UNNAMED_CHARS = 16
"""Of a header that may be a secret without being called so."""

_ADVICE = Advice(
    denied="kitd asks with ~/.netrc of its user, by ssh with what the server gives it for that",
    missing="see whether the repository's files are in the LFS server that belongs to it",
)


class LfsClient:
    """The LFS server of one repository, for one attempt of an import."""

    def __init__(
        self,
        source: GitSource,
        web: Web,
        git: GitProgram,
        secrets: Secrets,
        environ: Mapping[str, str],
    ) -> None:
        self._source = source
        self._web = web
        self._git = git
        self._secrets = secrets
        self._environ = environ
        self._asking = asyncio.Lock()
        self._found: Confines | None = None
        self._server: LfsAction | None = None
        self._until_s = 0.0

    async def fetch(self, file: HubFile, directory: Path, advanced: Callable[[int], None]) -> int:
        """Make a file complete in a directory; return how many bytes came. Raises `KitdError`."""
        place = self._source.place

        async def receive(part: Part) -> int:
            if place.scheme == "file":
                return await run_blocking(_copy, _kept(place, file), part, advanced)
            open_at = partial(self._open, file)
            return await download(part, open_at, self._web.wait_after, advanced)

        return await fetch(file, directory, receive, advanced)

    @asynccontextmanager
    async def _open(self, file: HubFile, offset: int) -> AsyncIterator[Answer]:
        with self._secrets.redacted():
            server = await self._current()
            action = await self._locate(server, file)
            first, own = URL(action.url, encoded=True), URL(server.url, encoded=True).origin()
            has_own = any(name.lower() == "authorization" for name in action.headers)

            def headers_for(url: URL) -> Mapping[str, str]:
                given = {"Range": f"bytes={offset}-"} if offset else {}
                if url.origin() != first.origin():
                    return given
                # A server that gives no other leave to its own files goes by who asks.
                shown = server.headers if first.origin() == own and not has_own else {}
                return {**shown, **action.headers, **given}

            async with self._web.get(first, headers_for, _ADVICE, await self._confines()) as answer:
                yield answer

    async def _locate(self, server: LfsAction, file: HubFile) -> LfsAction:
        url = URL(f"{server.url.rstrip('/')}/objects/batch", encoded=True)
        headers = {**server.headers, "Accept": MEDIA_TYPE, "Content-Type": MEDIA_TYPE}
        body, confines = batch_request(file), await self._confines()
        async with self._web.post(url, headers, body, _ADVICE, confines) as answer:
            content = await answer.document(MAX_BATCH_BYTES)
        action = await run_blocking(parse_batch, content, file)
        self._learn(action)
        return action

    async def _current(self) -> LfsAction:
        """Return the server, and what it is shown."""
        async with self._asking:
            now_s = asyncio.get_running_loop().time()
            if self._server is None or now_s >= self._until_s:
                self._server, valid_s = await self._find()
                self._until_s = now_s + valid_s
            return self._server

    async def _find(self) -> tuple[LfsAction, float]:
        place = self._source.place
        if place.scheme == "ssh":
            server, expires_s = parse_authenticated(await self._git.authenticate(place))
            self._learn(server)
            return server, min(expires_s / 2 if expires_s > 0 else AUTHENTICATED_S, AUTHENTICATED_S)
        login = await run_blocking(netrc_login, self._environ, place.host)
        headers = {}
        if login is not None:
            user, password = login
            self._secrets.learn(password, username=user)
            headers["Authorization"] = aiohttp.BasicAuth(user, password, "utf-8").encode()
        return LfsAction(lfs_endpoint(self._source.url), headers), AUTHENTICATED_S

    async def _confines(self) -> Confines:
        """Return how far the server may lead: who is public does not lead into the house."""
        if self._found is None:
            host = self._source.place.host
            self._found = Confines(host, await self._web.regions_open_to(host))
        return self._found

    def _learn(self, action: LfsAction) -> None:
        for name, value in action.headers.items():
            # Whatever it is called: a shorter one would be guessed, or is a word of every message.
            if (
                len(value) >= MIN_UNNAMED_CHARS
                or name.lower() in ("authorization", "cookie")
                or "token" in name.lower()
            ):
                self._secrets.learn(value)
                if name.lower() == "authorization":
                    self._secrets.learn(value.rpartition(" ")[2])


def _kept(place: GitPlace, file: HubFile) -> Path:
    """Return where a repository of this machine keeps a file of LFS. Blocks."""
    repository = Path(place.path)
    kept = Path("lfs", "objects", file.sha256[:2], file.sha256[2:4], file.sha256)
    inside = repository / ".git"
    return (inside if inside.is_dir() else repository) / kept


def _copy(source: Path, part: Part, advanced: Callable[[int], None]) -> int:
    part.restart()
    try:
        handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise HubNotFoundError(
            f"{part.file.path} is kept by LFS, and is not in {source.parent}: {error.strerror}",
            hint="git lfs fetch --all brings it there",
        ) from error
    try:
        with os_errors("read", source):
            while chunk := os.read(handle, CHUNK_BYTES):
                part.write(chunk)
                advanced(part.size)
    finally:
        os.close(handle)
    if part.size < part.file.size:
        raise HubContentError(f"{part.file.path} has {part.size} bytes, not {part.file.size}")
    return part.size
