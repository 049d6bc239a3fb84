"""A hub of models that listens on loopback and serves real files, as well or as badly as told.

It speaks what kitd uses of Hugging Face's API: revisions, trees in pages, and files, of which those
that LFS would have are redirected to another server, where no token has any business.
"""

import asyncio
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

LFS_FROM_BYTES = 1000
COMMIT = "c0ffee" + "0" * 34


@dataclass
class Quirks:
    """What the hub does badly; counts are of requests, and go down."""

    page: int = 1000
    """Files on a page of a tree."""
    busy: dict[str, int] = field(default_factory=dict)
    """By a part of the path: how often 503 is the answer."""
    cut: dict[str, int] = field(default_factory=dict)
    """By file: how often the connection breaks in the middle."""
    wrong: set[str] = field(default_factory=set)
    """Files whose bytes are others than was told."""
    stall: set[str] = field(default_factory=set)
    """Files of which half is sent, and then nothing until `proceed` is set."""
    listed: list[dict] | None = None
    """A tree that is not that of the files."""
    next_page: str | None = None
    token: str | None = None
    """Who does not show it gets nothing."""
    ignores_ranges: bool = False
    linked_size: int = 0
    """Added to the size that the redirect tells."""
    tags: tuple[str, ...] = ()


class HubServer:
    """Two servers: the hub itself and the one that has large files. Use as a context manager."""

    def __init__(self, root: Path, quirks: Quirks | None = None, kind: str = "models"):
        self.root = root
        self.repository = "Org/Name"
        self.kind = kind
        self.quirks = quirks or Quirks()
        self.asked: list[tuple[str, str, str | None, str | None]] = []
        """Server, path, Authorization and Range of each request."""
        self.stalled = asyncio.Event()
        self.proceed = asyncio.Event()

    async def __aenter__(self):
        self._runners = []
        self.storage = await self._listen("storage", self._serve_storage)
        self.endpoint = await self._listen("hub", self._serve_hub)
        return self

    async def __aexit__(self, *_):
        self.proceed.set()
        for runner in self._runners:
            await runner.cleanup()

    async def _listen(self, name, serve):
        async def handle(request):
            authorization = request.headers.get("Authorization")
            self.asked.append((name, request.path, authorization, request.headers.get("Range")))
            return await serve(request)

        application = web.Application()
        application.router.add_get("/{path:.*}", handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self._runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        return f"http://{host}:{port}"

    def counts(self) -> Counter:
        """Return how often each file was asked for, at whichever server it is."""
        paths = (path for _, path, _, _ in self.asked if f"{COMMIT}/" in path)
        return Counter(path.rpartition(f"{COMMIT}/")[2] for path in paths)

    def files(self):
        return sorted(path for path in self.root.rglob("*") if path.is_file())

    def tree(self):
        if self.quirks.listed is not None:
            return self.quirks.listed
        found = []
        for path in self.files():
            name, content = str(path.relative_to(self.root)), path.read_bytes()
            entry = {"type": "file", "path": name, "size": len(content)}
            if len(content) >= LFS_FROM_BYTES:
                digest = hashlib.sha256(content).hexdigest()
                entry |= {"oid": "0" * 40, "lfs": {"oid": digest, "size": len(content)}}
            else:
                blob = b"blob %d\0%s" % (len(content), content)
                entry["oid"] = hashlib.sha1(blob).hexdigest()
            found.append(entry)
        return [{"type": "directory", "path": "somewhere", "oid": "0" * 40, "size": 0}, *found]

    async def _serve_hub(self, request):
        quirks = self.quirks
        for part, times in quirks.busy.items():
            if part in request.path and times > 0:
                quirks.busy[part] -= 1
                return web.Response(status=503, headers={"Retry-After": "0"})
        if quirks.token and request.headers.get("Authorization") != f"Bearer {quirks.token}":
            return web.Response(status=401)
        api = f"/api/{self.kind}/{self.repository}"
        if request.path == f"{api}/revision/main":
            return web.json_response({"sha": COMMIT, "tags": list(quirks.tags), "more": {}})
        if request.path == f"{api}/tree/{COMMIT}":
            return self._page(request)
        place = self.repository if self.kind == "models" else f"{self.kind}/{self.repository}"
        prefix = f"/{place}/resolve/{COMMIT}/"
        path = self.root / request.path.removeprefix(prefix)
        if not request.path.startswith(prefix) or not path.is_file():
            return web.Response(status=404)
        size = path.stat().st_size
        if size < LFS_FROM_BYTES:
            return await self._send(request, path)
        headers = {
            "Location": f"{self.storage}/{COMMIT}/{request.path.removeprefix(prefix)}?signed=yes",
            "X-Linked-Size": str(size + quirks.linked_size),
            "X-Linked-Etag": f'"{hashlib.sha256(path.read_bytes()).hexdigest()}"',
        }
        return web.Response(status=302, headers=headers)

    def _page(self, request):
        begin = int(request.query.get("cursor", "0"))
        tree = self.tree()
        headers = {}
        if begin + self.quirks.page < len(tree):
            following = f"{self.endpoint}{request.path}?cursor={begin + self.quirks.page}"
            headers["Link"] = f'<{self.quirks.next_page or following}>; rel="next"'
        text = json.dumps(tree[begin : begin + self.quirks.page])
        return web.Response(text=text, content_type="application/json", headers=headers)

    async def _serve_storage(self, request):
        return await self._send(request, self.root / request.path.partition(f"{COMMIT}/")[2])

    async def _send(self, request, path):
        quirks, name = self.quirks, str(path.relative_to(self.root))
        content = path.read_bytes()
        if name in quirks.wrong:
            content = bytes(byte ^ 1 for byte in content)
        begin, headers, status = 0, {}, 200
        wanted = request.headers.get("Range")
        if wanted and not quirks.ignores_ranges:
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            status = 206
        rest = content[begin:]
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = len(rest)
        await response.prepare(request)
        half = len(rest) // 2
        if quirks.cut.get(name, 0) > 0:
            quirks.cut[name] -= 1
            await response.write(rest[:half])
            request.transport.close()
            return response
        if name in quirks.stall:
            await response.write(rest[:half])
            self.stalled.set()
            await self.proceed.wait()
            rest = rest[half:]
        await response.write(rest)
        return response
