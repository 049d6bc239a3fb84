"""Where an endpoint is and what requests to it are signed with: read anew for each of them."""

from dataclasses import dataclass, field
from pathlib import Path

from yarl import URL

from kitd.config.literal import check_endpoint
from kitd.config.model import NotificationConfig
from kitd.config.problem import InvalidValueError
from kitd.outbox.error import EndpointFileError
from kitd.secret_file import MIN_SHARED_BYTES, read_secret

MIN_PATH_CHARS = 16


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint as it is now."""

    # What comes after the host may be a secret.
    url: URL = field(repr=False)
    secret: bytes | None = field(repr=False)
    """None where requests are not signed."""
    secrets: tuple[str, ...] = field(repr=False)
    """What of all this must not be repeated."""

    @property
    def host(self) -> str:
        """Scheme, host and port: what may be said of it."""
        return str(self.url.origin())


def read_target(config: NotificationConfig) -> Target:
    """Read the files of an endpoint. Blocks. Raises `EndpointFileError`."""
    secret = None
    if config.secret_file is not None:
        secret = _read(config.secret_file, at_least_bytes=MIN_SHARED_BYTES)
    signing = () if secret is None else (secret.decode("utf-8", "replace"),)
    if config.url_file is None:
        assert config.url is not None
        url = check_endpoint(config.url.url)
        return Target(url, secret, (*_secrets_in(url), *signing))
    text = _read(config.url_file).decode("ascii", "replace")
    try:
        url = check_endpoint(text)
    except InvalidValueError as error:
        raise EndpointFileError(
            f"{config.url_file} has no URL of an endpoint: {error.message}",
            hint=error.hint or "one line, which is the URL and nothing else",
        ) from None
    return Target(url, secret, (*_secrets_in(url), *signing))


def _secrets_in(url: URL) -> tuple[str, ...]:
    """Return what of a URL must not be repeated: nothing where it is no more than a host.

    A short path could stand in anything that is said, and protects nothing.
    """
    path = url.raw_path_qs
    if path == "/":
        return ()
    return (str(url), path) if len(path) >= MIN_PATH_CHARS else (str(url),)


def _read(path: Path, *, at_least_bytes: int = 1) -> bytes:
    try:
        return read_secret(path, at_least_bytes=at_least_bytes)
    except ValueError as error:
        raise EndpointFileError(
            f"{path} {error}",
            hint="one line of text, which the user that kitd runs as can read;"
            f" a secret has at least {MIN_SHARED_BYTES} bytes (openssl rand -hex 32)",
        ) from error
