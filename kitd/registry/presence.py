"""Whether a repository holds some content, also where its registry knows no HEAD.

A blob can be asked for by a mount from the very repository that it is to be in: that is answered by
201 if it is there, and opens an upload if it is not, which saves the request that would do so. But
registries that mount nothing answer every mount as if it was not there.
"""

from collections.abc import Callable
from dataclasses import replace

from aiohttp import ClientResponse

from kitd.registry.request import Request
from kitd.registry.transport import Transport

NO_HEAD = frozenset({405, 501})
"""What registries answer that know no HEAD."""
MAX_KNOWN = 256
"""Registries of which it is remembered what their answers to mounts are worth."""
KNOWN_S = 3600.0
"""How long that is believed: registries and the proxies before them change."""

_MISSING = frozenset({404})


class MountMemory:
    """Which registries tell by a mount whether a blob is there. For all that push to them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[str, tuple[bool, float]] = {}

    def tells(self, registry: str) -> bool | None:
        """Whether a registry does; None where that is not known, or not any more."""
        tells, learned_s = self._known.get(registry, (None, 0.0))
        return None if self._clock() - learned_s > KNOWN_S else tells

    def learn(self, registry: str, *, tells: bool) -> None:
        """Remember what a registry was seen to do."""
        self._known.pop(registry, None)
        self._known[registry] = (tells, self._clock())
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]


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
