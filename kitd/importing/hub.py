"""Requests to a hub: what a revision is, what is in it, and the bytes of a file.

The token goes to the hub itself and to nobody else.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

import aiohttp
from yarl import URL

from kitd.blocking import run_blocking
from kitd.hub.error import HubError, InvalidHubTreeError
from kitd.hub.tree import (
    CHOOSE_HINT,
    EVERYTHING,
    MAX_ENTRIES,
    MAX_FILES,
    Choice,
    HubFile,
    HubSource,
    RepositoryType,
    Snapshot,
    check_tree,
    parse_page,
    parse_revision,
)
from kitd.importing.fetch import Part, download, fetch
from kitd.importing.settings import HubSettings
from kitd.importing.web import Advice, Answer, Web
from kitd.secret import Secrets

MAX_REVISION_BYTES = 1 << 20
MAX_PAGE_BYTES = 4 << 20
"""A page is read at once: while that goes on, nothing else does."""
MAX_PAGES = 1000
MAX_LIST_BYTES = 64 << 20
"""Of all pages together."""

_ADVICE = Advice(
    denied="accept the terms at the hub, or give kitd a token: hub.token_file or HF_TOKEN",
    missing="check the name and --ref; of private repositories a hub says that too",
)


class HubClient:
    """Speaks to the hub of the configuration in force."""

    def __init__(self, settings: Callable[[], HubSettings], secrets: Secrets, web: Web) -> None:
        self._settings = settings
        self._secrets = secrets
        self._web = web

    async def snapshot(self, source: HubSource, choice: Choice = EVERYTHING) -> Snapshot:
        """Return what is chosen of a revision. Raises `KitdError` of `kitd.hub.error`."""
        settings = await self._current()
        api = f"api/{_plural(source.type)}/{source.repository}"
        revision = quote(source.revision, safe="")
        about = _below(settings.endpoint, f"{api}/revision/{revision}")
        content, _ = await self._web.patiently(
            partial(self._json, settings, about, MAX_REVISION_BYTES)
        )
        commit, licence = await run_blocking(parse_revision, content)
        files: list[HubFile] = []
        entries = read_bytes = 0
        page = _below(settings.endpoint, f"{api}/tree/{commit}?recursive=true")
        for _ in range(MAX_PAGES):
            content, following = await self._web.patiently(
                partial(self._json, settings, page, MAX_PAGE_BYTES)
            )
            found = await run_blocking(parse_page, content)
            files += await run_blocking(choice.of, found.files)
            entries += found.entries
            read_bytes += len(content)
            if len(files) > MAX_FILES:
                raise InvalidHubTreeError(
                    f"{source} has more than {MAX_FILES} files", hint=CHOOSE_HINT
                )
            if entries > MAX_ENTRIES or read_bytes > MAX_LIST_BYTES:
                raise InvalidHubTreeError(
                    f"the list of files of {source} has more than {MAX_ENTRIES} entries,"
                    f" or {MAX_LIST_BYTES >> 20} MiB"
                )
            if following is None:
                await run_blocking(check_tree, files)
                return Snapshot(commit=commit, files=tuple(files), licence=licence)
            page = following
        raise InvalidHubTreeError(f"the list of files of {source} has more than {MAX_PAGES} pages")

    async def fetch(
        self,
        source: HubSource,
        commit: str,
        file: HubFile,
        directory: Path,
        advanced: Callable[[int], None],
    ) -> int:
        """Make a file complete in a directory; return how many bytes came for it.

        `advanced` is told how many bytes of the file are there. Raises `KitdError`.
        """

        async def receive(part: Part) -> int:
            open_at = partial(self._open, source, commit, file)
            return await download(part, open_at, self._web.wait_after, advanced)

        return await fetch(file, directory, receive, advanced)

    @asynccontextmanager
    async def _open(
        self, source: HubSource, commit: str, file: HubFile, offset: int
    ) -> AsyncIterator[Answer]:
        """Ask for a file from a byte on; whether it begins there the answer tells."""
        settings = await self._current()
        prefix = "" if source.type is RepositoryType.MODEL else "datasets/"
        path = quote(file.path, safe="/")
        url = _below(settings.endpoint, f"{prefix}{source.repository}/resolve/{commit}/{path}")
        with self._secrets.redacted():
            headers_for = partial(
                _headers, settings, {"Range": f"bytes={offset}-"} if offset else {}
            )
            async with self._web.get(url, headers_for, _ADVICE) as answer:
                yield answer

    async def _current(self) -> HubSettings:
        settings = await run_blocking(self._settings)
        if settings.token is not None:
            self._secrets.learn(settings.token)
        return settings

    async def _json(
        self, settings: HubSettings, url: URL, max_bytes: int
    ) -> tuple[bytes, URL | None]:
        """Return a document, and where the next page is."""
        with self._secrets.redacted():
            async with self._web.get(url, partial(_headers, settings, {}), _ADVICE) as answer:
                content = await answer.document(max_bytes)
                return content, _next_page(settings, url, answer.response)


def _headers(settings: HubSettings, given: dict[str, str], url: URL) -> dict[str, str]:
    if settings.token is None or url.origin() != settings.endpoint.origin():
        return given
    return {**given, "Authorization": f"Bearer {settings.token}"}


def _plural(kind: RepositoryType) -> str:
    return f"{kind}s"


def _below(endpoint: URL, path: str) -> URL:
    return URL(f"{str(endpoint).rstrip('/')}/{path}", encoded=True)


def _next_page(settings: HubSettings, url: URL, response: aiohttp.ClientResponse) -> URL | None:
    """Return the address of the next page. Raises `HubError` if it is not the hub's."""
    try:
        link = response.links.get("next")
        found = None if link is None else link.get("url")
    except ValueError as error:
        raise HubError("the hub names no next page that can be read") from error
    if found is None:
        return None
    target = url.join(URL(str(found), encoded=True))
    if target.origin() != settings.endpoint.origin() or target == url:
        raise HubError(f"the next page of a list of the hub is said to be at {target.host}")
    return target
