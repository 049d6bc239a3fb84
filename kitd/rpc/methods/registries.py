"""`registries.logins`: where kitd looks for the credentials of a registry.

Nothing here writes any: kitd's credentials are changed by who can write its files, and by nobody
who can only talk to it.
"""

from kitd.oci.reference import parse_repository
from kitd.rpc.error import InvalidParamsError
from kitd.rpc.method import Context, Method, Params, method
from kitd.rpc.methods.services import Services
from kitd.rpc.methods.wire import WireLogins
from kitd.rpc.peer import Role


class WhichRegistry(Params, frozen=True):
    """A registry, as `host[:port]`."""

    registry: str


async def logins(context: Context[Services], params: WhichRegistry) -> WireLogins:
    """Tell where kitd looks for the credentials of a registry."""
    repository = parse_repository(f"{params.registry}/x")
    if repository.is_local or repository.name != "x":
        raise InvalidParamsError(f"{params.registry[:160]!r} is not a registry")
    return context.services.logins(repository.registry)


METHODS: tuple[Method[Services], ...] = (
    method("registries.logins", Role.READ, WhichRegistry, WireLogins, logins),
)
