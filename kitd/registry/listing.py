"""Lists that come in pages: a repository's tags, a registry's repositories."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import TypeVar

from yarl import URL

from kitd.blocking import run_blocking
from kitd.oci.tag_list import MAX_PAGE_BYTES, InvalidListError
from kitd.registry.errors import RegistryProtocolError
from kitd.registry.location import InvalidLocationError, next_page
from kitd.registry.request import Request
from kitd.registry.transport import Transport

NAMES_A_PAGE = 1000
MAX_PAGES = 1000

_T = TypeVar("_T")


async def list_pages(
    transport: Transport, request: Request, parse: Callable[[bytes], _T]
) -> AsyncGenerator[_T, None]:
    """Yield one page after the other, following their Link headers (RFC 8288).

    Raises `RegistryError` and its family, `RegistryProtocolError` for pages without an end.
    """
    operation = request.operation

    def violation(reason: str) -> RegistryProtocolError:
        return RegistryProtocolError(reason, host=transport.registry, operation=operation)

    url: URL | None = request.url
    for _ in range(MAX_PAGES):
        if url is None:
            return
        async with transport.send(replace(request, url=url)) as response:
            body = await transport.read(response, operation=operation, max_bytes=MAX_PAGE_BYTES)
            try:
                url = next_page(response.url, response.links, transport.origin)
            except InvalidLocationError as error:
                raise violation(str(error)) from error
        try:
            yield await run_blocking(parse, body)
        except InvalidListError as error:
            raise violation(str(error)) from error
    raise violation(f"it lists more than {MAX_PAGES} pages")
