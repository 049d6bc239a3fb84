"""Whether a repository holds some content, also where its registry knows no HEAD."""

from dataclasses import replace

from aiohttp import ClientResponse

from kitd.registry.request import Request
from kitd.registry.transport import Transport

NO_HEAD = frozenset({405, 501})
"""What registries answer that know no HEAD."""

_MISSING = frozenset({404})


async def is_present(transport: Transport, head: Request, *, size: int, is_blob: bool) -> bool:
    """Whether `head`, a HEAD of content of so many bytes, finds it. Raises `RegistryError`.

    Content of another size is other content; a registry that keeps quiet of it is believed.
    """
    head = replace(head, accept=_MISSING | NO_HEAD)
    async with transport.send(head) as response:
        if response.status not in NO_HEAD:
            return _is_it(response, size)
    # The answer is closed before much of the content comes.
    async with transport.send(replace(head, method="GET", is_download=is_blob)) as response:
        return _is_it(response, size)


def _is_it(response: ClientResponse, size: int) -> bool:
    length = response.headers.get("Content-Length", str(size))
    return response.status == 200 and length == str(size)
