"""Globs of repositories, such as `registry.example.com/team/*`. Pure.

`*` stands for any characters but `/`, `**` for any. Hosts are compared as DNS does, in lower case,
and Docker Hub's by one name. Nothing else is taken for the same: a registry with a port is another
one than the registry without, so that a spelling nobody thought of is not allowed.
"""

import re
from dataclasses import dataclass

from kitd.oci.reference import (
    MAX_NAME,
    InvalidReferenceError,
    Repository,
    canonical_registry,
)

_GLOB = re.compile(r"[A-Za-z0-9.:*\[\]-]+(?:/[a-z0-9._*-]+)+")
_STAR = re.compile(r"(\*\*|\*)")


@dataclass(frozen=True, slots=True)
class RepositoryGlob:
    """A checked glob. Made by `parse_repository_glob`."""

    text: str

    def __str__(self) -> str:
        return self.text

    def matches(self, repository: Repository) -> bool:
        """Whether it names a repository. It never names one of kitd's own cache."""
        if repository.is_local:
            return False
        pattern = "".join(map(_part, _STAR.split(_normal(self.text))))
        return re.fullmatch(pattern, _normal(str(repository))) is not None

    @property
    def is_literal(self) -> bool:
        """Whether it names one repository only."""
        return "*" not in self.text


def parse_repository_glob(text: str) -> RepositoryGlob:
    """Return a glob. Raises `InvalidReferenceError`."""
    if text != "**" and (_GLOB.fullmatch(text) is None or len(text) > MAX_NAME or "***" in text):
        raise InvalidReferenceError(
            f"{text[:80]!r} is not a glob of repositories",
            hint="write it like registry.example.com/team/*, or ** for all",
        )
    return RepositoryGlob(text)


def canonical(repository: Repository) -> Repository:
    """Return the one spelling of a repository, for comparisons: of its host, as globs see it."""
    return Repository(canonical_registry(repository.registry), repository.name)


def _part(part: str) -> str:
    return {"*": "[^/]*", "**": ".*"}.get(part) or re.escape(part)


def _normal(text: str) -> str:
    registry, slash, name = text.partition("/")
    return f"{canonical_registry(registry)}{slash}{name}"
