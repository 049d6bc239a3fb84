"""How one registry is reached: the part of the configuration that this room understands. Pure."""

import enum
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from yarl import URL

from kitd.oci.reference import Repository

DOCKER_HUB = "docker.io"
"""What references call Docker Hub."""
_DOCKER_HUB_API = "registry-1.docker.io"


class UploadMode(enum.StrEnum):
    """How the bytes of a blob travel."""

    AUTO = "auto"
    """What the registry is known to take, judged by its host and the size of the blob."""
    MONOLITHIC = "monolithic"
    """One PUT with the whole blob."""
    CHUNKED = "chunked"
    """PATCH requests of a fixed size, each with its range, and an empty PUT."""
    STREAM = "stream"
    """One PATCH of undeclared length, as docker sends it, and an empty PUT."""


@dataclass(frozen=True, slots=True)
class DockerCredentials:
    """Whatever `docker login` or `podman login` left for the user kitd runs as."""


@dataclass(frozen=True, slots=True)
class Anonymous:
    """No credentials, even where some are to be found."""


@dataclass(frozen=True, slots=True)
class PasswordFile:
    """A user whose password is the content of a file."""

    username: str
    password_file: Path


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A file with an identity token: what a token server exchanges for access tokens."""

    token_file: Path


@dataclass(frozen=True, slots=True)
class Given:
    """A login that is tried before it is stored: without a user it is an identity token."""

    username: str
    secret: str = field(repr=False)


CredentialSource = DockerCredentials | Anonymous | PasswordFile | TokenFile | Given


@dataclass(frozen=True, slots=True)
class Mirror:
    """Another registry (`host[:port]`) that may have what a registry has, below a prefix."""

    registry: str
    prefix: str = ""
    """Repositories there; empty where the names are the same."""
    tags: bool = False
    """Whether it is believed what it says of names and referrers."""

    def repository(self, original: Repository) -> Repository:
        """Return where the mirror has a repository."""
        name = remote_name(original.registry, original.name)
        return Repository(self.registry, f"{self.prefix}/{name}" if self.prefix else name)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """One entry of `registries:`; the defaults are those of a registry that has none."""

    plain_http: bool | None = None
    """None means plain HTTP on loopback hosts and TLS elsewhere."""
    ca_file: Path | None = None
    """Certificates (PEM) to trust besides the system's."""
    client_cert: Path | None = None
    client_key: Path | None = None
    # A proxy's URL may hold a password.
    proxy: str | None = field(default=None, repr=False)
    credentials: CredentialSource = DockerCredentials()
    upload_mode: UploadMode = UploadMode.AUTO
    chunk_bytes: int | None = None
    """The size of a PATCH; None means what the registry is known to take."""
    mirrors: tuple[Mirror, ...] = ()
    """Who is asked for content before the registry itself, in this order."""


def is_loopback(registry: str) -> bool:
    """Whether `host[:port]` names this machine: localhost, 127.0.0.0/8 or ::1."""
    host = registry.rpartition("]")[0].lstrip("[") or registry.partition(":")[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def origin_of(registry: str, settings: RegistrySettings) -> URL:
    """Return the scheme, host and port behind which the registry's `/v2/` is."""
    plain = is_loopback(registry) if settings.plain_http is None else settings.plain_http
    host = _DOCKER_HUB_API if registry == DOCKER_HUB else registry
    return URL(f"{'http' if plain else 'https'}://{host}")


def remote_name(registry: str, name: str) -> str:
    """Return the name of the repository in the registry's API.

    Docker Hub keeps repositories of one component under `library/`.
    """
    return f"library/{name}" if registry == DOCKER_HUB and "/" not in name else name
