"""Repository names of the gateway: a bijection with the repositories of all registries.

`team/model` is a repository of kitd's own. A first component that holds a `.` or ends in `_` and a
port is a registry host: `registry.example.com_5000/team/x` is what kitd knows of
`registry.example.com:5000/team/x`, since a `:` cannot stand in the name of a repository. The few
repositories of kitd's own whose name looks like that are written with `localhost/` before it.
"""

import re

from kitd.oci.reference import LOCAL, InvalidReferenceError, Repository, parse_repository

_PORT = re.compile(r"_([0-9]{1,5})\Z")
_OWN = f"{LOCAL}/"


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
