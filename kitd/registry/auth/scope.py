"""Scopes of access tokens: `repository:team/model:pull,push` (distribution, token scope). Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

MAX_SCOPES = 16


@dataclass(frozen=True, slots=True)
class Scope:
    """What may be done with one resource, such as `repository:team/model`."""

    resource: str
    actions: frozenset[str]

    def __str__(self) -> str:
        return f"{self.resource}:{','.join(sorted(self.actions))}"

    @property
    def repository(self) -> str | None:
        """The name of the repository, if the resource is one."""
        kind, _, name = self.resource.partition(":")
        return name if kind == "repository" else None


def pull(name: str) -> Scope:
    """Return the scope to read a repository."""
    return Scope(f"repository:{name}", frozenset({"pull"}))


def push(name: str) -> Scope:
    """Return the scope to read and write a repository."""
    return Scope(f"repository:{name}", frozenset({"pull", "push"}))


def delete(name: str) -> Scope:
    """Return the scope to remove what is in a repository."""
    return Scope(f"repository:{name}", frozenset({"delete", "pull", "push"}))


def catalog() -> Scope:
    """Return the scope to list a registry's repositories (distribution, catalog)."""
    return Scope("registry:catalog", frozenset({"*"}))


def parse_scopes(text: str) -> tuple[Scope, ...]:
    """Return the scopes of a challenge, at most `MAX_SCOPES`; what cannot be read is left out."""
    scopes = []
    for word in text.split()[:MAX_SCOPES]:
        resource, colon, actions = word.rpartition(":")
        if colon and resource:
            scopes.append(Scope(resource, frozenset(filter(None, actions.split(",")))))
    return tuple(scopes)


def merge(scopes: Iterable[Scope]) -> tuple[Scope, ...]:
    """Return one scope for each resource, with all actions asked for it, in the given order."""
    actions: dict[str, frozenset[str]] = {}
    for scope in scopes:
        actions[scope.resource] = actions.get(scope.resource, frozenset()) | scope.actions
    return tuple(Scope(resource, allowed) for resource, allowed in actions.items())
