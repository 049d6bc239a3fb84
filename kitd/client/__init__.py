"""The Python client of the daemon; also what `kitctl` is made of.

    from kitd.client import Client

    with Client.connect() as kitd:
        kit = kitd.pack("sentiment", "registry.example.com/team/sentiment:v2", push=True)
        kitd.unpack(kit.reference, "out", ["model"])

Whatever else the daemon can be asked is in `kitd.client.request`, for `Client.call`.
Standard library only, and nothing of the daemon: an import contract checks it. `AsyncClient` is
loaded when it is asked for, because asyncio costs more than everything else here together.
"""

from typing import TYPE_CHECKING, Any

from kitd.client.client import Client

if TYPE_CHECKING:
    from kitd.client.async_client import AsyncClient

__all__ = ["AsyncClient", "Client"]


def __getattr__(name: str) -> Any:
    if name == "AsyncClient":
        from kitd.client.async_client import AsyncClient  # noqa: PLC0415 - see above

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
