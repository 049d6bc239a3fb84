"""`system.discover`: the method that describes the others."""

from collections.abc import Sequence
from functools import cache

from kitd import __version__
from kitd.rpc.method import Context, Method, method
from kitd.rpc.methods.services import Services
from kitd.rpc.methods.wire import Nothing
from kitd.rpc.openrpc import openrpc_document
from kitd.rpc.peer import Role


def discovery(methods: Sequence[Method[Services]]) -> Method[Services]:
    """Return the method that answers with the OpenRPC document of `methods`."""

    @cache
    def document() -> dict[str, object]:
        # Made when it is first asked for, and once: that takes as long as a hundred small calls.
        return dict(openrpc_document(methods, version=__version__))

    async def discover(context: Context[Services], params: Nothing) -> dict[str, object]:
        """Describe every method: an OpenRPC document."""
        return document()

    return method("system.discover", Role.READ, Nothing, dict[str, object], discover)
