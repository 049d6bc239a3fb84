"""Whom to trust as a registry, and which certificate to show it.

What the configuration says nothing of is taken from where docker and podman look: a directory
`certs.d/<host[:port]>` with authorities in `*.crt` and a client's certificate and key in `*.cert`
and `*.key` (containers-certs.d(5)). Blocks.
"""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kitd.registry.credentials import warn_if_exposed
from kitd.registry.errors import RegistryTlsError
from kitd.registry.settings import RegistrySettings

MAX_FILES = 100
"""Of one directory of certificates."""

_SYSTEM_DIRS = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))
_USER_DIR = ".config/containers/certs.d"


@dataclass(frozen=True, slots=True)
class Certificates:
    """The files (PEM) for one registry; `key` None means that the certificate's file holds it."""

    authorities: tuple[Path, ...] = ()
    """Trusted besides the system's."""
    client: Path | None = None
    key: Path | None = None


def tls_context(
    registry: str, settings: RegistrySettings, environment: Mapping[str, str]
) -> ssl.SSLContext:
    """Return the TLS settings for a registry. Raises `RegistryTlsError`, which names the file."""
    found = _find_certificates(registry, settings, environment)
    if found == Certificates():
        return _system_context()
    context = ssl.create_default_context()
    path = None
    try:
        for path in found.authorities:
            context.load_verify_locations(path)
        path = found.client
        if found.client is not None:
            key = found.key or found.client
            warn_if_exposed(key, key.stat().st_mode)
            # Without a password here OpenSSL would ask for one on the daemon's terminal.
            context.load_cert_chain(found.client, found.key, password="")
    except OSError as error:
        raise RegistryTlsError(
            f"{path} cannot be used: {error.strerror or error}",
            host=registry,
            operation="prepare TLS",
            hint="certificates and keys are PEM files; the key must have no password",
        ) from error
    return context


@cache
def _system_context() -> ssl.SSLContext:
    """Return the one that all share who need no other: it takes most of a megabyte."""
    return ssl.create_default_context()


def _find_certificates(
    registry: str, settings: RegistrySettings, environment: Mapping[str, str]
) -> Certificates:
    if settings.ca_file is not None or settings.client_cert is not None:
        authorities = () if settings.ca_file is None else (settings.ca_file,)
        return Certificates(authorities, settings.client_cert, settings.client_key)
    home = environment.get("HOME", "")
    user_dirs = (Path(home, _USER_DIR),) if home.startswith("/") else ()
    for directory in (*user_dirs, *_SYSTEM_DIRS):
        try:
            names = sorted(os.listdir(directory / registry))[:MAX_FILES]
        except OSError:
            # Not there, or not meant for this user.
            continue
        return _certificates_in(directory / registry, names)
    return Certificates()


def _certificates_in(directory: Path, names: list[str]) -> Certificates:
    client = next((directory / name for name in names if name.endswith(".cert")), None)
    return Certificates(
        tuple(directory / name for name in names if name.endswith(".crt")),
        client,
        None if client is None else client.with_suffix(".key"),
    )
