"""Manifests (OCI distribution spec, end-3, end-7, end-9): stored and served byte for byte."""

import hashlib

from aiohttp import hdrs, web

from kitd.blocking import run_blocking
from kitd.content.store import ContentNotFoundError
from kitd.gateway.body import read_body
from kitd.gateway.catalog import Catalog
from kitd.gateway.naming import repository_of
from kitd.gateway.refusal import ErrorCode, RefusedError
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest, algorithm_of, from_hash, parse_digest
from kitd.oci.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from kitd.oci.media_type import is_manifest, is_nondistributable
from kitd.oci.reference import InvalidReferenceError, Repository, check_tag
from kitd.store.blob_store import BlobStore
from kitd.store.lease import LeaseBook

MAX_TAGS_AT_ONCE = 64
"""Tags of one push by digest; the specification asks for ten."""


class ManifestEndpoint:
    """Answers requests for manifests."""

    def __init__(self, store: BlobStore, catalog: Catalog, leases: LeaseBook) -> None:
        self._store = store
        self._catalog = catalog
        self._leases = leases

    async def read(self, request: web.Request) -> web.StreamResponse:
        """Answer GET and HEAD of a manifest by tag or digest."""
        repository = repository_of(request.match_info["name"])
        target = await self._resolve(repository, _identifier(request))
        headers = {hdrs.CONTENT_TYPE: target.media_type, "Docker-Content-Digest": target.digest}
        if request.method == hdrs.METH_HEAD:
            headers[hdrs.CONTENT_LENGTH] = str(target.size)
            return web.Response(headers=headers)
        content = await run_blocking(self._store.read, target, max_bytes=MAX_MANIFEST_BYTES)
        return web.Response(body=content, headers=headers)

    async def write(self, request: web.Request) -> web.StreamResponse:
        """Answer PUT: by tag, or by digest with any number of `tag` parameters."""
        name = request.match_info["name"]
        repository = repository_of(name)
        asked, tags = _destination(request)
        content = await read_body(request, max_bytes=MAX_MANIFEST_BYTES)
        algorithm = algorithm_of(asked) if asked else "sha256"
        digest = from_hash(hashlib.new(algorithm, content))
        if asked not in (None, digest):
            raise RefusedError(
                400, ErrorCode.DIGEST_INVALID, f"asked to store {asked}, got {digest}"
            )
        media_type = request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip()
        manifest = await run_blocking(parse_manifest, content, media_type or None)
        target = Descriptor(manifest.media_type, digest, len(content))
        with self._leases.hold() as lease:
            await lease.take(digest, *(child.digest for child in manifest.children))
            await self._check_children(repository, manifest)
            await run_blocking(self._store.put, content, algorithm)
            await self._catalog.commit(repository, target, tags, manifest)
        response = web.Response(status=201)
        response.headers[hdrs.LOCATION] = f"/v2/{name}/manifests/{digest}"
        response.headers["Docker-Content-Digest"] = digest
        if manifest.subject is not None:
            response.headers["OCI-Subject"] = manifest.subject.digest
        if asked and tags:
            response.headers["OCI-Tag"] = ", ".join(tags)
        return response

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Answer DELETE: a digest removes the manifest and its tags, a tag removes itself."""
        repository = repository_of(request.match_info["name"])
        identifier = _identifier(request)
        try:
            if ":" in identifier:
                await self._catalog.remove(repository, parse_digest(identifier))
            else:
                await self._catalog.untag(repository, identifier)
        except ContentNotFoundError as error:
            raise _unknown(identifier) from error
        return web.Response(status=202)

    async def _resolve(self, repository: Repository, identifier: str) -> Descriptor:
        try:
            return await self._catalog.resolve(repository, identifier)
        except ContentNotFoundError as error:
            raise _unknown(identifier) from error

    async def _check_children(self, repository: Repository, manifest: Manifest) -> None:
        """Refuse a manifest that names what is not here; its subject alone may come later."""
        missing = await run_blocking(self._missing, manifest)
        for child in manifest.manifests:
            if missing is None and is_manifest(child.media_type):
                try:
                    await self._catalog.resolve(repository, child.digest)
                except ContentNotFoundError:
                    missing = child
        if missing is not None:
            raise RefusedError(
                404,
                ErrorCode.MANIFEST_BLOB_UNKNOWN,
                f"{missing.digest} of {missing.size} bytes has to be pushed before its manifest",
            )

    def _missing(self, manifest: Manifest) -> Descriptor | None:
        """Return the first child that the cache does not hold."""
        for child in manifest.children:
            if not self._store.has(child) and not is_nondistributable(child.media_type):
                return child
        return None


def _identifier(request: web.Request) -> str:
    """Return the tag or the digest of the path. What can be neither is not found."""
    identifier = request.match_info["identifier"]
    if ":" in identifier:
        return parse_digest(identifier)
    try:
        return check_tag(identifier)
    except InvalidReferenceError as error:
        raise _unknown(identifier) from error


def _destination(request: web.Request) -> tuple[Digest | None, tuple[str, ...]]:
    """Return the digest that a push asks for, if any, and the tags it sets."""
    identifier = request.match_info["identifier"]
    try:
        if ":" not in identifier:
            return None, (check_tag(identifier),)
        tags = tuple(dict.fromkeys(map(check_tag, request.query.getall("tag", []))))
    except InvalidReferenceError as error:
        raise RefusedError(400, ErrorCode.MANIFEST_INVALID, error.message) from error
    if len(tags) > MAX_TAGS_AT_ONCE:
        raise RefusedError(
            414, ErrorCode.MANIFEST_INVALID, f"more than {MAX_TAGS_AT_ONCE} tags at once"
        )
    return parse_digest(identifier), tags


def _unknown(identifier: str) -> RefusedError:
    return RefusedError(
        404, ErrorCode.MANIFEST_UNKNOWN, f"no manifest {identifier[:160]!r} is in this repository"
    )
