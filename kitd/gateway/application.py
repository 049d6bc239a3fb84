"""The gateway as an aiohttp application: routes, admission, and errors as registries give them."""

from collections.abc import Callable

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from kitd.errors import Disposition, KitdError
from kitd.gateway.blob import BlobEndpoint
from kitd.gateway.catalog import Catalog
from kitd.gateway.listing import ListingEndpoint
from kitd.gateway.manifest import ManifestEndpoint
from kitd.gateway.refusal import ErrorCode, RefusedError, error_body, refusal_of
from kitd.gateway.upload import UploadSessions
from kitd.store.blob_store import BlobStore
from kitd.store.lease import LeaseBook

log = structlog.get_logger(__name__)

_BLOB = "/v2/{name:.+}/blobs/{digest}"
_UPLOADS = "/v2/{name:.+}/blobs/uploads/"
_UPLOAD = "/v2/{name:.+}/blobs/uploads/{session}"
_MANIFEST = "/v2/{name:.+}/manifests/{identifier}"
_TAGS = "/v2/{name:.+}/tags/list"
_REFERRERS = "/v2/{name:.+}/referrers/{digest}"


Fatal = Callable[[KitdError], None]
"""Is told an error after which nothing that kitd writes can be relied on."""


def make_application(
    store: BlobStore,
    catalog: Catalog,
    uploads: UploadSessions,
    leases: LeaseBook,
    *,
    writable: bool,
    fatal: Fatal,
) -> web.Application:
    """Return the application; without `writable` every request that would write is refused."""
    blobs = BlobEndpoint(store, uploads, leases)
    manifests = ManifestEndpoint(store, catalog, leases)
    listings = ListingEndpoint(catalog)
    application = web.Application(middlewares=[_admission(writable=writable, fatal=fatal)])
    application.on_response_prepare.append(_mark)
    application.add_routes(
        [
            web.get("/v2/", _support),
            web.get(_BLOB, blobs.read),
            web.delete(_BLOB, blobs.delete),
            web.post(_UPLOADS, blobs.begin),
            web.get(_UPLOAD, blobs.status),
            web.patch(_UPLOAD, blobs.append),
            web.put(_UPLOAD, blobs.finish),
            web.delete(_UPLOAD, blobs.cancel),
            web.get(_MANIFEST, manifests.read),
            web.put(_MANIFEST, manifests.write),
            web.delete(_MANIFEST, manifests.delete),
            web.get(_TAGS, listings.tags),
            web.get(_REFERRERS, listings.referrers),
        ]
    )
    return application


async def _support(_request: web.Request) -> web.StreamResponse:
    return web.json_response({})


async def _mark(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Docker-Distribution-Api-Version"] = "registry/2.0"


def _admission(*, writable: bool, fatal: Fatal) -> Middleware:
    @web.middleware
    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            _check_admission(request, writable=writable)
            return await handler(request)
        except ConnectionError:
            raise  # Nobody is there to answer to.
        except web.HTTPException as error:
            return _answer(request, _routing_refusal(request, error))
        except Exception as error:  # noqa: BLE001 - the boundary: a defect must not end the server
            if isinstance(error, KitdError) and error.disposition is Disposition.FATAL:
                fatal(error)
            return _answer(request, error)

    return admit


def _check_admission(request: web.Request, *, writable: bool) -> None:
    if request.method in (hdrs.METH_GET, hdrs.METH_HEAD):
        return
    if not writable:
        raise RefusedError(
            405,
            ErrorCode.UNSUPPORTED,
            "this registry is read-only",
            headers={hdrs.ALLOW: "GET, HEAD"},
        )
    # Browsers send Origin with every request that writes, and tools send none: a web page must
    # not push into a registry on loopback, which trusts whoever can reach it.
    if hdrs.ORIGIN in request.headers:
        raise RefusedError(403, ErrorCode.DENIED, "web pages may not write to this registry")


def _routing_refusal(request: web.Request, error: web.HTTPException) -> RefusedError:
    allowed = error.headers.get(hdrs.ALLOW)
    headers = {} if allowed is None else {"Allow": allowed}
    message = f"{request.method} {request.path[:160]!r}: {error.reason}"
    return RefusedError(error.status, ErrorCode.UNSUPPORTED, message, headers=headers)


def _answer(request: web.Request, error: Exception) -> web.Response:
    refusal = refusal_of(error)
    if refusal.status >= 500:
        log.error(
            "registry.request_failed",
            method=request.method,
            path=request.path[:400],
            exc_info=error,
        )
    response = web.Response(
        status=refusal.status,
        body=error_body(refusal),
        headers={**refusal.headers, hdrs.CONTENT_TYPE: "application/json"},
    )
    if refusal.status == 429:
        response.headers[hdrs.RETRY_AFTER] = "60"
    return response
