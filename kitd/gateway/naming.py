"""Names of the gateway and of its repositories: a bijection with those of all registries.

`team/model` is a repository of kitd's own. A first component that holds a `.` or ends in `_` and a
port is a registry host: `registry.example.com_5000/team/x` is what kitd knows of
`registry.example.com:5000/team/x`, since a `:` cannot stand in the name of a repository. The few
repositories of kitd's own whose name looks like that are written with `localhost/` before it.
"""

import re
from contextlib import suppress
from ipaddress import ip_address

from kitd.config.address import TcpAddress
from kitd.oci.reference import LOCAL, InvalidReferenceError, Repository, parse_repository

_PORT = re.compile(r"_([0-9]{1,5})\Z")
_OWN = f"{LOCAL}/"
_HERE = ("localhost", "127.0.0.1", "::1")
"""How users of this machine name it."""


def _names_registry(name: str) -> bool:
    first, slash, _ = name.partition("/")
    return bool(slash) and ("." in first or _PORT.search(first) is not None)


def repository_of(name: str) -> Repository:
    """Return the repository that a gateway name stands for. Raises `InvalidReferenceError`."""
    # Whatever its components mean, it has to be the name of a repository first.
    parse_repository(_OWN + name)
    if _names_registry(name):
        first, _, rest = name.partition("/")
        host = _PORT.sub(r":\1", first)
        return parse_repository(f"{host}/{rest}")
    own = name.removeprefix(_OWN)
    if own != name and not _names_registry(own):
        raise InvalidReferenceError(
            f"the repository {name[:160]!r} begins with {_OWN}", hint=f"leave out {_OWN}"
        )
    return Repository(LOCAL, own)


def name_of(repository: Repository) -> str:
    """Return the gateway name of a repository.

    Raises `InvalidReferenceError` for registries that have none: hosts in upper case and IPv6
    addresses, whose characters cannot stand in the name of a repository.
    """
    if repository.is_local:
        own = repository.name
        name = _OWN + own if _names_registry(own) else own
    else:
        host, colon, port = repository.registry.partition(":")
        name = f"{host}_{port}/{repository.name}" if colon else str(repository)
    if repository_of(name) != repository:
        raise InvalidReferenceError(f"the repository {repository} has no name in this registry")
    return name


def registry_names(address: TcpAddress) -> tuple[str, ...]:
    """Return how references name a registry that listens there: `host:port`, the given one first.

    One that listens on loopback or everywhere has the names that this machine has for itself. Those
    that others may have for it are not known.
    """
    host, is_here = address.host.lower(), address.host.lower() == "localhost"
    with suppress(ValueError):
        ip = ip_address(host)
        is_here = ip.is_loopback or ip.is_unspecified
    hosts = (host, *_HERE) if is_here else (host,)
    return tuple(dict.fromkeys(str(TcpAddress(each, address.port)) for each in hosts))
