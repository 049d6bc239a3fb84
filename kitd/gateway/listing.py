"""Tags and referrers of a repository, page by page (OCI distribution spec, end-8, end-12)."""

import json
import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from aiohttp import hdrs, web

from kitd.content.store import ContentNotFoundError
from kitd.gateway.catalog import Catalog
from kitd.gateway.naming import repository_of
from kitd.gateway.refusal import ErrorCode, RefusedError
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import parse_digest
from kitd.oci.json_reader import Json
from kitd.oci.manifest import MAX_MANIFEST_BYTES
from kitd.oci.media_type import OCI_INDEX
from kitd.oci.referrer import referrer_entry

MAX_TAGS = 10_000
"""Tags of one answer: about a megabyte."""
MAX_REFERRERS_BYTES = MAX_MANIFEST_BYTES // 2
"""Descriptors of one answer, so that the whole stays a manifest that every client takes."""

_COUNT = re.compile(r"[0-9]{1,9}", re.ASCII)


class ListingEndpoint:
    """Answers requests for tags and referrers."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def tags(self, request: web.Request) -> web.StreamResponse:
        """Answer with at most `n` tags after `last`, in the order of their bytes."""
        name = request.match_info["name"]
        count = _count(request.query.get("n"))
        last = request.query.get("last")
        try:
            # One more than asked for tells whether there is a next page.
            found = await self._catalog.tags(repository_of(name), after=last, limit=count + 1)
        except ContentNotFoundError as error:
            raise RefusedError(
                404, ErrorCode.NAME_UNKNOWN, f"no repository {name!r} is here"
            ) from error
        tags = list(found[:count])
        response = web.json_response({"name": name, "tags": tags})
        if tags and len(found) > count:
            response.headers[hdrs.LINK] = _next(request, {"n": str(count), "last": tags[-1]})
        return response

    async def referrers(self, request: web.Request) -> web.StreamResponse:
        """Answer with an index of the manifests whose subject is the digest."""
        repository = repository_of(request.match_info["name"])
        subject = parse_digest(request.match_info["digest"])
        wanted = request.query.get("artifactType")
        found = await self._catalog.referrers(repository, subject)
        after = request.query.get("last", "")
        page, more = referrers_page(
            [
                descriptor
                for descriptor in found
                if descriptor.digest > after and wanted in (None, descriptor.artifact_type)
            ],
            max_bytes=MAX_REFERRERS_BYTES,
        )
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": page}
        response = web.Response(
            body=json.dumps(document, separators=(",", ":")).encode(),
            headers={hdrs.CONTENT_TYPE: OCI_INDEX},
        )
        if wanted is not None:
            response.headers["OCI-Filters-Applied"] = "artifactType"
        if more:
            filters = {} if wanted is None else {"artifactType": wanted}
            response.headers[hdrs.LINK] = _next(
                request, {**filters, "last": str(page[-1]["digest"])}
            )
        return response


def referrers_page(
    descriptors: Sequence[Descriptor], *, max_bytes: int
) -> tuple[list[Mapping[str, Json]], bool]:
    """Return the first descriptors as JSON, and whether there are more than fit.

    A page holds at least one, however large its annotations are.
    """
    page: list[Mapping[str, Json]] = []
    held_bytes = 0
    for descriptor in descriptors:
        entry = referrer_entry(descriptor)
        held_bytes += len(json.dumps(entry))
        if page and held_bytes > max_bytes:
            return page, True
        page.append(entry)
    return page, False


def _count(text: str | None) -> int:
    if text is None:
        return MAX_TAGS
    if _COUNT.fullmatch(text) is None:
        raise RefusedError(400, ErrorCode.UNSUPPORTED, f"n={text[:40]!r} is not a number of tags")
    return min(int(text), MAX_TAGS)


def _next(request: web.Request, query: Mapping[str, str]) -> str:
    return f'<{request.rel_url.raw_path}?{urlencode(query)}>; rel="next"'
