"""The distribution API over a `Storage`, as far as the script of the moment lets it.

Source: OCI distribution specification, version 1.1.
"""

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from aiohttp import web

from fault_registry.access import Access, Actions, basic_user, challenge, form_user
from fault_registry.quirks import Quirks
from fault_registry.storage import Manifest, Storage, Upload, digest_of, is_digest
from fault_registry.tally import GRACE_S, Asked, Tally, kind_of

PIECE_BYTES = 256 << 10
MAX_MANIFEST_BYTES = 4 << 20
INDEX = "application/vnd.oci.image.index.v1+json"

_NAME = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")
_CHUNK = re.compile(r"([0-9]+)-([0-9]+)")
_UNLIMITED = frozenset({"token.get", "token.post", "storage.get", "other"})
"""Asked of other hosts where registries are in use."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RefusedError(Exception):
    """An answer that is an error body of the specification."""

    def __init__(
        self, status: int, code: str, message: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})

    def response(self) -> web.Response:
        body = {"errors": [{"code": self.code, "message": str(self), "detail": {}}]}
        return web.json_response(body, status=self.status, headers=self.headers)


class _TooLargeError(RefusedError):
    """The answer of a proxy before the registry."""

    def __init__(self) -> None:
        super().__init__(413, "")

    def response(self) -> web.Response:
        page = "<html><head><title>413 Request Entity Too Large</title></head></html>"
        return web.Response(status=413, text=page, content_type="text/html")


class Registry:
    """One registry: what it keeps, what it was asked, and its script, which may change."""

    def __init__(self, storage: Storage, quirks: Quirks) -> None:
        self.storage = storage
        self.pulled = 0
        self.tally = Tally()
        self.access = Access()
        self.storage_host = ""
        """The second port, where blobs are redirected to."""
        self.tell(quirks)

    def tell(self, quirks: Quirks) -> None:
        """Follow another script from now on."""
        self.quirks = quirks
        self._random = random.Random(quirks.seed)
        self._asked = 0
        self._cuts_left = quirks.cuts
        self._forgets_left = quirks.forget_uploads
        self._corruptions_left = quirks.corrupt_blobs
        self._silent_from_s = self._silent_until_s = 0.0

    def reset(self) -> None:
        """Count from zero."""
        self.tally = Tally()

    def empty(self) -> None:
        """Begin anew: with nothing kept, nothing counted and no quirks."""
        self.storage.empty()
        self.reset()
        self.tell(Quirks())

    def application(self) -> web.Application:
        """Return the whole of it as an aiohttp application."""
        application = web.Application(middlewares=[self._answer], client_max_size=1 << 40)
        repository = "/v2/{name:.+}"
        for path, methods in {
            "/-/quirks": {"GET": self._show_quirks, "POST": self._change_quirks},
            "/-/tally": {"GET": self._show_tally, "DELETE": self._reset_tally},
            "/-/all": {"DELETE": self._empty},
            "/-/token": {"GET": self._token, "POST": self._token},
            "/-/storage/{name:.+}/{digest}": {"GET": self._get_stored},
            "/v2/": {"GET": self._ping},
            "/v2/_catalog": {"GET": self._list_repositories},
            f"{repository}/tags/list": {"GET": self._list_tags},
            f"{repository}/referrers/{{digest}}": {"GET": self._list_referrers},
            f"{repository}/manifests/{{reference}}": {
                "GET": self._get_manifest,
                "HEAD": self._get_manifest,
                "PUT": self._put_manifest,
                "DELETE": self._delete_manifest,
            },
            f"{repository}/blobs/uploads/": {"POST": self._begin},
            f"{repository}/blobs/uploads/{{upload}}": {
                "GET": self._status,
                "PATCH": self._append,
                "PUT": self._end,
                "DELETE": self._cancel,
            },
            f"{repository}/blobs/{{digest}}": {
                "GET": self._get_blob,
                "HEAD": self._get_blob,
                "DELETE": self._delete_blob,
            },
        }.items():
            for method, handler in methods.items():
                # Nobody is asked to send a body before the handler wants it.
                application.router.add_route(method, path, handler, expect_handler=_no_haste)
        return application

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let a request pass through all trouble to its handler, and note how that went."""
        if request.path in ("/-/quirks", "/-/tally", "/-/all"):
            return await handler(request)
        at_s = time.monotonic()
        kind = kind_of(request.method, request.path)
        forbidden = (
            kind not in _UNLIMITED and self._silent_from_s + GRACE_S <= at_s < self._silent_until_s
        )
        status = 0
        try:
            response = await self._judge(request, handler, kind)
        except RefusedError as refused:
            status = refused.status
            return refused.response()
        except web.HTTPMethodNotAllowed:
            status = 405
            return RefusedError(405, "UNSUPPORTED", "no such method").response()
        except web.HTTPNotFound:
            status = 404
            return RefusedError(404, "NAME_UNKNOWN", "no such path").response()
        except (ConnectionError, web.RequestPayloadError):
            # The client's, or cut: nobody is there to hear the answer.
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        else:
            status = response.status
            if self.quirks.empty_type and response.content_length in (0, None):
                response.headers.setdefault("Content-Type", self.quirks.empty_type)
            return response
        finally:
            self.tally.requests.append(
                Asked(at_s, kind, request.method, request.path, status, forbidden)
            )

    async def _judge(self, request: web.Request, handler: Handler, kind: str) -> web.StreamResponse:
        quirks = self.quirks
        if quirks.delay_s:
            await asyncio.sleep(quirks.delay_s)
        if kind not in _UNLIMITED:
            self._ask_for_silence()
            self._asked += 1
            counts = not quirks.fail_kinds or kind in quirks.fail_kinds
            counts = counts and request.path.endswith(quirks.fail_path)
            if quirks.fail_every and counts and self._asked % quirks.fail_every == 0:
                raise RefusedError(quirks.fail_status, "UNKNOWN", "not this time")
        if request.path.startswith("/v2/"):
            self._require_access(request)
            name = request.match_info.get("name")
            if name is not None and _NAME.fullmatch(name) is None:
                raise RefusedError(400, "NAME_INVALID", f"{name} is no name")
        if request.method == "HEAD" and not quirks.head:
            raise RefusedError(405, "UNSUPPORTED", "there is no HEAD")
        return await handler(request)

    def _ask_for_silence(self) -> None:
        """Raise a 429 for some requests, and for all that come while one is in force."""
        quirks = self.quirks
        now_s = time.monotonic()
        if now_s >= self._silent_until_s:
            if self._random.random() >= quirks.busy_share:
                return
            self._silent_from_s = now_s
            self._silent_until_s = now_s + quirks.busy_s
            if quirks.retry_after == "date":
                # Dates have no fractions.
                now = datetime.now(UTC)
                ends = (now + timedelta(seconds=quirks.busy_s + 1)).replace(microsecond=0)
                self._silent_until_s = now_s + (ends - now).total_seconds()
            elif quirks.retry_after != "seconds":
                self._silent_until_s = now_s
        self.tally.busy += 1
        left_s = max(self._silent_until_s - now_s, 0)
        headers = {}
        match quirks.retry_after:
            case "seconds":
                # What is said must cover what is left.
                headers["Retry-After"] = str(-int(-left_s // 1))
            case "date":
                ends = datetime.now(UTC) + timedelta(seconds=left_s + 0.5)
                headers["Retry-After"] = format_datetime(ends.replace(microsecond=0), usegmt=True)
            case "nonsense":
                headers["Retry-After"] = "soon, or later"
        raise RefusedError(429, "TOOMANYREQUESTS", "too many requests", headers)

    def _require_access(self, request: web.Request) -> None:
        wanted = _wanted(request)
        quirks = self.quirks
        if self.access.allowed(request.headers.get("Authorization", ""), wanted, quirks):
            return
        self._refuse(request, wanted)

    def _refuse(self, request: web.Request, wanted: Actions) -> None:
        realm = f"{request.scheme}://{request.host}/-/token"
        asked = challenge(self.quirks, realm, wanted)
        raise RefusedError(401, "UNAUTHORIZED", "not without a login", {"WWW-Authenticate": asked})

    # Control.

    async def _show_quirks(self, _request: web.Request) -> web.Response:
        fields = {name: getattr(self.quirks, name) for name in Quirks.__slots__}
        return web.json_response(fields)

    async def _change_quirks(self, request: web.Request) -> web.Response:
        try:
            self.tell(self.quirks.changed(await request.json()))
        except (ValueError, AttributeError) as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        return web.json_response({})

    async def _show_tally(self, _request: web.Request) -> web.Response:
        return web.json_response(self.tally.as_json())

    async def _reset_tally(self, _request: web.Request) -> web.Response:
        self.reset()
        return web.json_response({})

    async def _empty(self, _request: web.Request) -> web.Response:
        self.empty()
        return web.json_response({})

    async def _token(self, request: web.Request) -> web.Response:
        quirks = self.quirks
        if quirks.auth != "bearer" or request.method not in quirks.token_methods:
            raise RefusedError(
                404 if request.method == "POST" else 405, "UNSUPPORTED", "no tokens here"
            )
        if request.method == "POST":
            form = await request.post()
            user, scopes = form_user(form), [str(form.get("scope", ""))]
            refused = user is None
        else:
            header = request.headers.get("Authorization", "")
            user, scopes = basic_user(header), request.query.getall("scope", [])
            refused = bool(header) and user is None
        if refused:
            raise RefusedError(401, "UNAUTHORIZED", "the credentials are wrong")
        return web.json_response(self.access.issue(scopes, user, quirks))

    # Listings.

    async def _ping(self, _request: web.Request) -> web.Response:
        return web.json_response({})

    async def _list_repositories(self, request: web.Request) -> web.Response:
        if not self.quirks.catalog:
            raise RefusedError(404, "UNSUPPORTED", "repositories are listed to nobody")
        last = request.query.get("last", "")
        names = [name for name in sorted(self.storage.repositories) if name > last]
        page, headers = self._page(request, names, names)
        return web.json_response({"repositories": page}, headers=headers)

    async def _list_tags(self, request: web.Request) -> web.StreamResponse:
        quirks = self.quirks
        name = request.match_info["name"]
        last = request.query.get("last", "")
        if quirks.endless == "tags":
            return self._endless_page(request, {"name": name, "tags": [f"tag-{last or 0}"]})
        if quirks.endless == "tag_page":
            return await _pour(request, b'{"tags":["', b'tag","')
        repository = self.storage.repositories.get(name)
        if repository is None:
            raise RefusedError(404, "NAME_UNKNOWN", f"there is no {name}")
        tags = [tag for tag in sorted(repository.tags) if tag > last]
        page, headers = self._page(request, tags, tags)
        listed = None if quirks.null_tags and not tags else page
        return web.json_response({"name": name, "tags": listed}, headers=headers)

    async def _list_referrers(self, request: web.Request) -> web.StreamResponse:
        name, digest = request.match_info["name"], request.match_info["digest"]
        if not self.quirks.referrers:
            raise RefusedError(404, "UNSUPPORTED", "there is no such list")
        if not is_digest(digest):
            raise RefusedError(400, "DIGEST_INVALID", f"{digest} is no digest")
        body: dict[str, Any] = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
        if self.quirks.endless == "referrers":
            response = self._endless_page(request, body)
            response.content_type = INDEX
            return response
        repository = self.storage.repositories.get(name)
        found = [] if repository is None else repository.referrers(digest)
        headers = {"Content-Type": INDEX}
        if wanted := request.query.get("artifactType"):
            found = [one for one in found if one.get("artifactType") == wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        last = request.query.get("last", "")
        found = sorted(
            (one for one in found if one["digest"] > last), key=lambda one: str(one["digest"])
        )
        body["manifests"], links = self._page(request, found, [one["digest"] for one in found])
        return web.Response(body=json.dumps(body).encode(), headers=headers | links)

    def _page(
        self, request: web.Request, entries: list[Any], keys: list[str]
    ) -> tuple[list[Any], dict[str, str]]:
        """Return the first page, and the header that says where the next one is."""
        asked = request.query.get("n", "")
        most = int(asked) if asked.isdecimal() else len(entries)
        if self.quirks.page_size:
            most = min(most, self.quirks.page_size)
        if len(entries) <= most:
            return entries, {}
        url = request.rel_url.update_query({"n": str(most), "last": keys[most - 1] if most else ""})
        return entries[:most], {"Link": f'<{url.raw_path_qs}>; rel="next"'}

    def _endless_page(self, request: web.Request, body: Mapping[str, Any]) -> web.Response:
        number = int(request.query.get("last") or 0) + 1
        url = request.rel_url.update_query({"last": str(number)})
        return web.json_response(body, headers={"Link": f'<{url.raw_path_qs}>; rel="next"'})

    # Manifests.

    async def _get_manifest(self, request: web.Request) -> web.StreamResponse:
        if self.quirks.endless == "manifest":
            return await _pour(request, b'{"schemaVersion":2,"layers":[', b'{"size":1},')
        name, reference = request.match_info["name"], request.match_info["reference"]
        repository = self.storage.repositories.get(name)
        found = None if repository is None else repository.manifest(reference)
        if found is None:
            raise RefusedError(404, "MANIFEST_UNKNOWN", f"there is no {name}:{reference}")
        digest, manifest = found
        headers = {"Content-Type": manifest.media_type, **self._digest_header(digest)}
        if self.quirks.pulls is not None:
            if request.method == "GET" and self.pulled == self.quirks.pulls:
                raise RefusedError(429, "TOOMANYREQUESTS", "You have reached your pull rate limit")
            self.pulled += request.method == "GET"
            headers["RateLimit-Limit"] = f"{self.quirks.pulls};w=21600"
            headers["RateLimit-Remaining"] = f"{self.quirks.pulls - self.pulled};w=21600"
        return web.Response(body=manifest.content, headers=headers)

    async def _put_manifest(self, request: web.Request) -> web.Response:
        name, reference = request.match_info["name"], request.match_info["reference"]
        content = bytearray()
        async for piece in self._body(request):
            content += piece
            if len(content) > MAX_MANIFEST_BYTES:
                raise RefusedError(413, "SIZE_INVALID", "too large for a manifest")
        digest = digest_of(content)
        if is_digest(reference):
            digest = digest_of(content, reference.partition(":")[0])
            if digest != reference:
                raise RefusedError(400, "DIGEST_INVALID", f"the content is {digest}")
        elif _TAG.fullmatch(reference) is None:
            raise RefusedError(400, "MANIFEST_INVALID", f"{reference} is no tag")
        media_type = request.headers.get("Content-Type", "")
        document = self._check_manifest(name, media_type, bytes(content))
        repository = self.storage.repository(name)
        repository.manifests[digest] = Manifest(media_type, bytes(content))
        if not is_digest(reference):
            repository.tags[reference] = digest
        headers = {"Location": f"/v2/{name}/manifests/{digest}", **self._digest_header(digest)}
        if self.quirks.referrers and (subject := document.get("subject")):
            headers["OCI-Subject"] = subject["digest"]
        return web.Response(status=201, headers=headers)

    def _check_manifest(self, name: str, media_type: str, content: bytes) -> dict[str, Any]:
        try:
            document = json.loads(content)
            own = document.get("mediaType", media_type)
            children = [document["config"]] if "config" in document else []
            children += document.get("layers") or []
            nodes = document.get("manifests") or []
            digests = [child["digest"] for child in (*children, *nodes)]
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise RefusedError(400, "MANIFEST_INVALID", f"not a manifest: {error!r}") from error
        if own != media_type or not media_type:
            raise RefusedError(
                400, "MANIFEST_INVALID", f"sent as {media_type}, it says it is {own}"
            )
        if not all(is_digest(digest) for digest in digests):
            raise RefusedError(400, "MANIFEST_INVALID", "it names what is no digest")
        repository = self.storage.repository(name)
        needed = {child["digest"] for child in children if "urls" not in child}
        missing = needed - repository.blobs
        missing |= {node["digest"] for node in nodes} - repository.manifests.keys()
        if missing and self.quirks.checks_manifests:
            raise RefusedError(
                404, "MANIFEST_BLOB_UNKNOWN", f"not here: {', '.join(sorted(missing))}"
            )
        return dict(document)

    async def _delete_manifest(self, request: web.Request) -> web.Response:
        name, reference = request.match_info["name"], request.match_info["reference"]
        repository = self.storage.repositories.get(name)
        found = None if repository is None else repository.manifest(reference)
        if repository is None or found is None:
            raise RefusedError(404, "MANIFEST_UNKNOWN", f"there is no {name}:{reference}")
        digest, _ = found
        if not is_digest(reference) and not self.quirks.removes_tags:
            raise RefusedError(405, "UNSUPPORTED", "manifests are deleted by digest")
        if is_digest(reference):
            del repository.manifests[digest]
            tags = {tag for tag, named in repository.tags.items() if named == digest}
        else:
            tags = {reference}
        for tag in tags:
            del repository.tags[tag]
        return web.Response(status=202)

    def _digest_header(self, digest: str) -> dict[str, str]:
        match self.quirks.digest_header:
            case "none":
                return {}
            case "wrong":
                return {"Docker-Content-Digest": digest_of(b"something else")}
            case _:
                return {"Docker-Content-Digest": digest}

    # Blobs on their way out.

    async def _get_blob(self, request: web.Request) -> web.StreamResponse:
        name, digest = self._require_blob(request)
        if request.method == "HEAD" or not self.quirks.redirect_blobs:
            return await self._send_blob(request, name, digest)
        if self.quirks.endless == "redirects":
            return web.Response(status=307, headers={"Location": str(request.url)})
        url = f"http://{self.storage_host}/-/storage/{name}/{digest}?signature=a%2Fb%3D"
        return web.Response(status=307, headers={"Location": url})

    async def _get_stored(self, request: web.Request) -> web.StreamResponse:
        if "Authorization" in request.headers:
            raise RefusedError(400, "DENIED", "only one way to authenticate is allowed")
        if "signature=a%2Fb%3D" not in request.rel_url.raw_query_string:
            raise RefusedError(403, "DENIED", "the signature does not match")
        return await self._send_blob(request, *self._require_blob(request))

    def _require_blob(self, request: web.Request) -> tuple[str, str]:
        name, digest = request.match_info["name"], request.match_info["digest"]
        if not is_digest(digest):
            raise RefusedError(400, "DIGEST_INVALID", f"{digest} is no digest")
        kind = kind_of(request.method, request.path)
        self.tally.blob(name, digest).requests[kind] += 1
        repository = self.storage.repositories.get(name)
        if repository is None or digest not in repository.blobs:
            raise RefusedError(404, "BLOB_UNKNOWN", f"there is no {digest} in {name}")
        return name, digest

    async def _send_blob(self, request: web.Request, name: str, digest: str) -> web.StreamResponse:
        quirks = self.quirks
        size = self.storage.path(digest).stat().st_size
        start, end, status = self._range(request, size)
        headers = {"Content-Type": "application/octet-stream", **self._digest_header(digest)}
        if quirks.ranges == "yes":
            headers["Accept-Ranges"] = "bytes"
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = max(end - start + quirks.length_lie, 0)
        await response.prepare(request)
        if request.method != "HEAD":
            await self._send_file(response, name, digest, start, end)
            if quirks.length_lie:
                raise ConnectionAbortedError("there is not as much as was promised")
        await response.write_eof()
        return response

    async def _send_file(
        self, response: web.StreamResponse, name: str, digest: str, start: int, end: int
    ) -> None:
        quirks = self.quirks
        corrupt = self._corruptions_left > 0 and end > start
        if corrupt:
            self._corruptions_left -= 1
        sent = 0
        with self.storage.path(digest).open("rb") as file:
            file.seek(start)
            while sent < end - start:
                piece = file.read(min(PIECE_BYTES, end - start - sent))
                if corrupt:
                    piece, corrupt = bytes([piece[0] ^ 1]) + piece[1:], False
                if 0 < quirks.cut_sent_bytes <= sent + len(piece) and self._cuts_left > 0:
                    piece = piece[: quirks.cut_sent_bytes - sent]
                await response.write(piece)
                sent += len(piece)
                self.tally.blob(name, digest).sent_bytes += len(piece)
                self._cut_if(sent, quirks.cut_sent_bytes)
                if quirks.sent_bytes_per_s:
                    await asyncio.sleep(len(piece) / quirks.sent_bytes_per_s)

    def _range(self, request: web.Request, size: int) -> tuple[int, int, int]:
        """Return the first byte, the one after the last, and the status."""
        match = _RANGE.fullmatch(request.headers.get("Range", ""))
        if match is None or match.group() == "bytes=-" or self.quirks.ranges == "ignored":
            return 0, size, 200
        first, last = match.groups()
        start = int(first) if first else max(size - int(last), 0)
        end = min(int(last) + 1, size) if first and last else size
        if start >= end or self.quirks.ranges == "refused":
            raise RefusedError(416, "RANGE_INVALID", "", {"Content-Range": f"bytes */{size}"})
        return start, end, 206

    async def _delete_blob(self, request: web.Request) -> web.Response:
        name, digest = self._require_blob(request)
        self.storage.repository(name).blobs.discard(digest)
        return web.Response(status=202)

    # Blobs on their way in.

    async def _begin(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if mount := request.query.get("mount"):
            self.tally.blob(name, mount).requests["upload.mount"] += 1
            if self.quirks.mount == "refused":
                raise RefusedError(405, "UNSUPPORTED", "blobs are not mounted here")
            if self.quirks.mount == "yes" and self._mount(request, name, mount):
                return self._stored(name, mount)
        upload = self.storage.begin(name)
        self.tally.blob(name, upload.name)
        if digest := request.query.get("digest"):
            async for piece in self._body(request, upload):
                if self.quirks.single_post:
                    upload.append(piece)
            if self.quirks.single_post:
                return await self._commit(upload, digest)
        headers = self._where(request, upload)
        if self.quirks.upload_ranges == "quay":
            headers["Range"] = "bytes=0--1"
        if self.quirks.least_chunk_bytes:
            headers["OCI-Chunk-Min-Length"] = str(self.quirks.least_chunk_bytes)
        return web.Response(status=202, headers=headers)

    def _mount(self, request: web.Request, name: str, digest: str) -> bool:
        lender = self.storage.lender(digest, request.query.get("from"))
        if lender is None:
            return False
        header = request.headers.get("Authorization", "")
        if not self.access.allowed(header, frozenset({(lender, "pull")}), self.quirks):
            return False
        self.storage.repository(name).blobs.add(digest)
        self.tally.blob(name, digest).mounts += 1
        return True

    async def _status(self, request: web.Request) -> web.Response:
        if not self.quirks.upload_status:
            raise RefusedError(405, "UNSUPPORTED", "uploads cannot be asked for")
        upload = self._upload(request)
        headers = self._where(request, upload)
        if self.quirks.upload_ranges == "quay":
            headers["Range"] = f"bytes=0-{upload.size}"
        return web.Response(status=204, headers=headers)

    async def _append(self, request: web.Request) -> web.Response:
        quirks = self.quirks
        if not quirks.chunked:
            raise RefusedError(405, "UNSUPPORTED", "blobs come in one piece")
        upload = self._upload(request)
        async with upload.busy:
            expected = self._chunk(request, upload)
            if 0 < quirks.max_chunk_bytes < (request.content_length or 0):
                raise RefusedError(416, "REQUESTED_RANGE_NOT_SATISFIABLE", "the body is too large")
            received = kept = 0
            async for piece in self._body(request, upload):
                received += len(piece)
                room = quirks.accepts_bytes - kept if quirks.accepts_bytes else len(piece)
                upload.append(piece[: max(room, 0)])
                kept += min(len(piece), max(room, 0))
            upload.end_part(kept)
            if expected is not None and received != expected:
                raise RefusedError(400, "SIZE_INVALID", f"{received} bytes came, not {expected}")
            if received and self._forgets_left > 0:
                self._forgets_left -= 1
                self.storage.forget(upload)
            headers = self._where(request, upload)
            if not quirks.patch_range:
                del headers["Range"]
            return web.Response(status=quirks.patch_status, headers=headers)

    async def _end(self, request: web.Request) -> web.Response:
        upload = self._upload(request)
        digest = request.query.get("digest", "")
        async with upload.busy:
            self._chunk(request, upload)
            received = 0
            async for piece in self._body(request, upload):
                upload.append(piece)
                received += len(piece)
            if received:
                upload.end_part(received)
            return await self._commit(upload, digest)

    async def _cancel(self, request: web.Request) -> web.Response:
        upload = self._upload(request)
        if not self.quirks.cancel:
            raise RefusedError(405, "UNSUPPORTED", "uploads are not cancelled here")
        self.storage.forget(upload)
        return web.Response(status=204)

    async def _commit(self, upload: Upload, digest: str) -> web.Response:
        """Let an upload become a blob, if it is the one that it should be."""
        quirks = self.quirks
        least = max(quirks.least_part_bytes, quirks.least_chunk_bytes)
        small = least and upload.least_part_bytes is not None and upload.least_part_bytes < least
        algorithm = digest.partition(":")[0]
        known = is_digest(digest) and (quirks.sha512 or algorithm == "sha256")
        found = await asyncio.to_thread(upload.digest, algorithm) if known else ""
        if quirks.commit_s:
            await asyncio.sleep(quirks.commit_s)
        if small or not known or found != digest:
            self.storage.forget(upload)
            if small:
                raise RefusedError(
                    400, "BLOB_UPLOAD_INVALID", f"a part is smaller than {least} bytes"
                )
            raise RefusedError(400, "DIGEST_INVALID", f"{digest} is not {found or 'a digest'}")
        self.storage.commit(upload, digest)
        self.tally.end_upload(upload.repository, upload.name, digest)
        return self._stored(upload.repository, digest)

    def _stored(self, name: str, digest: str) -> web.Response:
        headers = {"Location": f"/v2/{name}/blobs/{digest}", **self._digest_header(digest)}
        return web.Response(status=201, headers=headers)

    def _upload(self, request: web.Request) -> Upload:
        upload = self.storage.uploads.get(request.match_info["upload"])
        limit_s = self.quirks.session_s
        if upload is not None and 0 < limit_s < time.monotonic() - upload.written_s:
            self.storage.forget(upload)
            upload = None
        if upload is None or upload.repository != request.match_info["name"]:
            raise RefusedError(404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload")
        _, told, offset = request.rel_url.raw_query_string.partition("_state=a%2Fb%3D")
        if not told:
            raise RefusedError(400, "BLOB_UPLOAD_INVALID", "the state was changed on the way")
        if self.quirks.strict_state and offset.partition("&")[0] != str(upload.size):
            raise RefusedError(404, "BLOB_UPLOAD_INVALID", "the upload is not where you left it")
        kind = kind_of(request.method, request.path)
        self.tally.blob(upload.repository, upload.name).requests[kind] += 1
        return upload

    def _chunk(self, request: web.Request, upload: Upload) -> int | None:
        """Return how long the body is to be, if that is said, or raise a 416."""
        said = request.headers.get("Content-Range")
        if said is None:
            return None
        match = _CHUNK.fullmatch(said)
        if match is None:
            raise RefusedError(400, "BLOB_UPLOAD_INVALID", f"{said} is no range")
        start, last = map(int, match.groups())
        if start != upload.size or last < start:
            headers = self._where(request, upload)
            if self.quirks.upload_ranges == "quay":
                headers["Range"] = f"0-{upload.size}"
            raise RefusedError(416, "RANGE_INVALID", "out of step", headers)
        return last - start + 1

    def _where(self, request: web.Request, upload: Upload) -> dict[str, str]:
        """Return the headers that say where an upload goes on."""
        path = f"/v2/{upload.repository}/blobs/uploads/{upload.name}"
        match self.quirks.location:
            case "relative":
                location = path
            case "bare":
                location = upload.name
            case "portless":
                location = f"{request.scheme}://{request.host.partition(':')[0]}{path}"
            case _:
                location = f"{request.scheme}://{request.host}{path}"
        return {
            "Location": f"{location}?_state=a%2Fb%3D{upload.size}",
            "Range": f"0-{max(upload.size - 1, 0)}",
            "Docker-Upload-UUID": upload.name,
        }

    async def _body(
        self, request: web.Request, upload: Upload | None = None
    ) -> AsyncIterator[bytes]:
        """Yield what is sent, with all the trouble that there is on this side."""
        quirks = self.quirks
        most = quirks.max_body_bytes
        if 0 < most < (request.content_length or 0):
            raise _TooLargeError
        if request.headers.get("Expect", "").lower() == "100-continue":
            assert request.transport is not None
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        received = 0
        authorization = request.headers.get("Authorization", "")
        while piece := await request.content.readany():
            received += len(piece)
            if upload is not None:
                blob = self.tally.blob(upload.repository, upload.name)
                blob.received_bytes += len(piece)
            if quirks.token_checked_midway and self.access.remaining_s(authorization) <= 0:
                self._refuse(request, _wanted(request))
            yield piece
            self._cut_if(received, quirks.cut_received_bytes)
            if 0 < most < received:
                raise _TooLargeError
            if quirks.received_bytes_per_s:
                await asyncio.sleep(len(piece) / quirks.received_bytes_per_s)

    def _cut_if(self, passed: int, limit: int) -> None:
        if 0 < limit <= passed and self._cuts_left > 0:
            self._cuts_left -= 1
            self.tally.cuts += 1
            raise ConnectionAbortedError("cut")


async def _no_haste(_request: web.Request) -> None:
    """Send no `100 Continue`: the handler does once it wants the body."""


async def _pour(request: web.Request, first: bytes, more: bytes) -> web.StreamResponse:
    """Answer with a document that does not end."""
    response = web.StreamResponse(headers={"Content-Type": INDEX})
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    await response.write(first)
    while True:
        await response.write(more * 10_000)


def _wanted(request: web.Request) -> Actions:
    """Return what a request needs a token for."""
    name = request.match_info.get("name")
    if name is None:
        return frozenset()
    if request.method in ("GET", "HEAD"):
        return frozenset({(name, "pull")})
    if request.method == "DELETE" and "/blobs/uploads/" not in request.path:
        return frozenset({(name, "delete")})
    return frozenset({(name, "pull"), (name, "push")})
