"""References: `[registry/]repository[:tag | @digest][,tag...]`.

The grammar is `kit`'s (registry before the first `/` when it holds a `.` or a `:`) with the strict
component rules of the OCI distribution spec, section "Pulling manifests". A reference without a
registry belongs to `LOCAL`, kitd's own cache. Of what is parsed here every registry has one
spelling, so that whatever is named in two ways is one repository all the same.
"""

import re
from dataclasses import dataclass, replace
from ipaddress import IPv6Address

from kitd.errors import KitdError
from kitd.oci.digest import Digest, InvalidDigestError, parse_digest

LOCAL = "localhost"
"""The registry of references that name none. Never contacted."""
DEFAULT_TAG = "latest"
MAX_NAME = 255
"""Most clients and registries cap registry, slash and repository together."""

_HUB = "docker.io"
_HUB_ALIASES = frozenset({"index.docker.io", "registry-1.docker.io"})

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_REGISTRY = re.compile(
    rf"(?:{_LABEL}(?:\.{_LABEL})*|\[(?P<address>[0-9A-Fa-f:.]+)\])(?::(?P<port>[0-9]{{1,5}}))?"
)
_PORTS = range(1, 1 << 16)
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HINT = "write it like registry.example.com/team/model:tag"


class InvalidReferenceError(KitdError):
    """The text is not a reference."""

    code = "invalid_reference"


@dataclass(frozen=True, slots=True, order=True)
class Repository:
    """A repository of a registry. `str()` gives `registry/name`."""

    registry: str
    name: str

    def __str__(self) -> str:
        return f"{self.registry}/{self.name}"

    @property
    def is_local(self) -> bool:
        """Whether it lives in kitd's own cache only."""
        return self.registry == LOCAL


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository with at most one of tag and digest. `str()` is what a person types."""

    repository: Repository
    tag: str | None = None
    digest: Digest | None = None

    def __str__(self) -> str:
        name = str(self.repository)
        # `localhost/` is left out wherever the rest would be read as the same repository again.
        if self.repository.is_local and not _looks_remote(self.repository.name):
            name = self.repository.name
        if self.digest is not None:
            return f"{name}@{self.digest}"
        return name if self.tag is None else f"{name}:{self.tag}"

    @property
    def identifier(self) -> str:
        """What stands in `/v2/<name>/manifests/<identifier>`: the digest, the tag or `latest`."""
        return self.digest or self.tag or DEFAULT_TAG

    def pinned(self, digest: Digest) -> "Reference":
        """Return the reference to a digest in the same repository."""
        return Reference(self.repository, digest=digest)

    def with_default_tag(self) -> "Reference":
        """Return the reference with `latest` where it names neither tag nor digest."""
        if self.tag is None and self.digest is None:
            return replace(self, tag=DEFAULT_TAG)
        return self


def _looks_remote(name: str) -> bool:
    """Whether the part before the first slash is read as a registry."""
    first, slash, _ = name.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == LOCAL)


def _is_registry(text: str) -> bool:
    """Whether a host of DNS or an IPv6 address, with a port or without, can be connected to."""
    match = _REGISTRY.fullmatch(text)
    if match is None or int(match["port"] or _PORTS[0]) not in _PORTS:
        return False
    try:
        return match["address"] is None or bool(IPv6Address(match["address"]))
    except ValueError:
        return False


def canonical_registry(registry: str) -> str:
    """Return the one spelling of a registry: in lower case, as DNS compares; Docker Hub has a name.

    A port says that it is another registry, whichever it is: whether it is the usual one depends on
    TLS, which is not said in names.
    """
    registry = registry.lower()
    return _HUB if registry in _HUB_ALIASES else registry


def check_tag(tag: str) -> str:
    """Return `tag`, or raise `InvalidReferenceError`."""
    if _TAG.fullmatch(tag) is None:
        raise InvalidReferenceError(
            f"{tag[:160]!r} is not a tag", hint="letters, digits, '_', '.' and '-', at most 128"
        )
    return tag


def parse_repository(text: str) -> Repository:
    """Return `[registry/]name` as a repository, by the registry's canonical name.

    Raises `InvalidReferenceError`.
    """
    registry, name = LOCAL, text
    if _looks_remote(text):
        registry, _, name = text.partition("/")
    if not _is_registry(registry):
        raise InvalidReferenceError(f"{registry[:160]!r} is not a registry host", hint=_HINT)
    if _REPOSITORY.fullmatch(name) is None:
        why = "must be lower case" if name != name.lower() else "has a malformed component"
        raise InvalidReferenceError(f"the repository {name[:160]!r} {why}", hint=_HINT)
    if len(registry) + 1 + len(name) > MAX_NAME:
        raise InvalidReferenceError(f"the name {text[:40]!r}… is longer than {MAX_NAME} characters")
    return Repository(canonical_registry(registry), name)


def parse_reference(text: str) -> Reference:
    """Return one reference; a tag before a digest is dropped, as `kit` does.

    Raises `InvalidReferenceError`.
    """
    name, at, digest_text = text.partition("@")
    # A colon after the last slash starts a tag; one before it belongs to the registry's port.
    head, colon, tail = name.rpartition(":")
    tag: str | None = None
    if colon and "/" not in tail:
        name, tag = head, check_tag(tail)
    repository = parse_repository(name)
    if not at:
        return Reference(repository, tag=tag)
    try:
        return Reference(repository, digest=parse_digest(digest_text))
    except InvalidDigestError as error:
        raise InvalidReferenceError(str(error), hint=error.hint) from error


def parse_tagged(text: str) -> tuple[Reference, tuple[str, ...]]:
    """Return `reference[,tag...]` as the reference and its further tags, all checked.

    Raises `InvalidReferenceError`, also for a reference with a digest: it names no tag.
    """
    first, *more = text.split(",")
    reference = parse_reference(first)
    if reference.digest is not None:
        raise InvalidReferenceError("kits are named by tags, not by a digest", hint=_HINT)
    return reference, tuple(check_tag(tag) for tag in more)
