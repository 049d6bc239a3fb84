"""Where an endpoint is and what requests to it are signed with: read anew for each of them."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from yarl import URL

from kitd.config.literal import check_endpoint
from kitd.config.model import NotificationConfig
from kitd.config.problem import InvalidValueError
from kitd.outbox.error import EndpointFileError

MAX_FILE_BYTES = 64 * 1024
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
    secret = None if config.secret_file is None else _read(config.secret_file)
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


def _read(path: Path) -> bytes:
    """Return the content of a small file without the white space around it."""
    try:
        # A pipe would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            content = file.read(MAX_FILE_BYTES + 1) if is_file else b""
    except OSError as error:
        raise EndpointFileError(
            f"cannot read {path}: {error.strerror}", hint="the user kitd runs as must read it"
        ) from error
    if not is_file or len(content) > MAX_FILE_BYTES or not content.strip():
        raise EndpointFileError(
            f"{path} is no file with a secret", hint="a line of text, of at most 64 KiB"
        )
    return content.strip()
