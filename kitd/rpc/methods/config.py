"""`config.*`: what the daemon runs with."""

import msgspec

from kitd.rpc.method import Context, Method, method
from kitd.rpc.methods.services import Services
from kitd.rpc.methods.wire import Nothing
from kitd.rpc.peer import Role


class Effective(msgspec.Struct, frozen=True):
    """The configuration with its defaults: files of secrets, no secret, of URLs only the host."""

    config: object


async def show(context: Context[Services], params: Nothing) -> Effective:
    """Show the effective configuration."""
    return Effective(context.services.effective_config())


METHODS: tuple[Method[Services], ...] = (
    method("config.show", Role.READ, Nothing, Effective, show),
)
