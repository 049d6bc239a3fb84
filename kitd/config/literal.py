"""Text to domain types that have no module of their own: paths, names, hosts, modes."""

import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from yarl import URL

from kitd.config.address import Endpoint
from kitd.config.model import FileMode
from kitd.config.places import CREDENTIALS
from kitd.config.problem import InvalidValueError
from kitd.oci.reference import (
    InvalidReferenceError,
    Repository,
    canonical_registry,
    parse_reference,
    parse_repository,
)

MAX_NAME = 64
MAX_URL = 2000
MAX_PATH_BYTES = 4096
"""`PATH_MAX` of Linux."""

_CREDENTIAL = "$CREDENTIALS_DIRECTORY/"
_NAME = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{MAX_NAME - 1}}}")
_EVENT_TYPES = re.compile(r"[a-z0-9_.*]{1,64}")
_MODE = re.compile(r"(?:0o?)?([0-7]{3})")


def parse_path(text: str, *, home: str | None, credentials: str = CREDENTIALS) -> Path:
    """Return an absolute path; a leading `~/` is `home`. Raises `InvalidValueError`.

    A leading `$CREDENTIALS_DIRECTORY/` is `credentials`. The text is not repeated in the error: it
    may be a secret in the place of its file's name.
    """
    if text.startswith(_CREDENTIAL):
        text = f"{credentials}/{text.removeprefix(_CREDENTIAL)}"
    if text == "~" or text.startswith("~/"):
        if home is None:
            raise InvalidValueError("'~' stands for nothing here: HOME is not set")
        text = f"{home}{text[1:]}"
    if not text.startswith("/"):
        raise InvalidValueError("must be an absolute path", hint="it begins with / or ~/")
    path = Path(text)
    if ".." in path.parts or len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise InvalidValueError(f"must be a path without '..', of at most {MAX_PATH_BYTES} bytes")
    return path


def parse_kitfile(text: str) -> PurePosixPath:
    """Return a path below a project. Raises `InvalidValueError`."""
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise InvalidValueError(
            f"expected a path inside the project, got {text[:60]!r}",
            hint="it is relative to the project's path",
        )
    return path


def parse_name(text: str) -> str:
    """Return the name of a project, a mirror or a webhook. Raises `InvalidValueError`."""
    if _NAME.fullmatch(text) is None:
        raise InvalidValueError(
            f"{text[:80]!r} is not a name",
            hint=f"lower case letters, digits, '.', '_' and '-', at most {MAX_NAME}",
        )
    return text


def parse_host(text: str) -> str:
    """Return `host[:port]` of a registry, in its canonical spelling. Raises `InvalidValueError`."""
    try:
        repository = parse_repository(f"{text}/name")
    except InvalidReferenceError as error:
        raise InvalidValueError(f"{text[:80]!r} is not a registry host") from error
    if repository.is_local or repository.registry != canonical_registry(text):
        raise InvalidValueError(
            f"{text[:80]!r} is not a registry host",
            hint="write it like registry.example.com or localhost:5000",
        )
    return repository.registry


def parse_location(text: str) -> str:
    """Return `host[:port]`, or that with a prefix of repositories. Raises a `KitdError`."""
    return str(parse_remote_repository(text)) if "/" in text else parse_host(text)


def parse_remote_repository(text: str) -> Repository:
    """Return a repository of a registry, not of the local cache. Raises a `KitdError`."""
    repository = parse_untagged_repository(text)
    if repository.is_local:
        raise InvalidValueError(
            f"{text[:80]!r} names no registry",
            hint="write it like registry.example.com/team/model",
        )
    return repository


def parse_untagged_repository(text: str) -> Repository:
    """Return a repository; a tag or a digest is refused. Raises a `KitdError`."""
    reference = parse_reference(text)
    if reference.tag is not None or reference.digest is not None:
        raise InvalidValueError(
            f"{text[:80]!r} must name a repository, without a tag or digest",
            hint="which tags is said in 'tags'",
        )
    return reference.repository


def parse_mode(text: str) -> FileMode:
    """Return permission bits; the digits are octal, quoted or not. Raises `InvalidValueError`."""
    match = _MODE.fullmatch(text)
    if match is None:
        raise InvalidValueError(f"expected three octal digits such as 0600, got {text[:40]!r}")
    return FileMode(int(match.group(1), 8))


def parse_proxy(text: str) -> str:
    """Return the URL of an HTTP proxy. Raises `InvalidValueError`, which does not repeat it."""
    try:
        url = urlsplit(text)
        is_complete = url.scheme in {"http", "https"} and url.hostname and url.port != 0
    except ValueError:
        raise _not_a_proxy() from None
    if not is_complete or any(character.isspace() for character in text):
        raise _not_a_proxy()
    if "@" in url.netloc:
        raise InvalidValueError("a proxy with a user or a password is not supported")
    return text


def _not_a_proxy() -> InvalidValueError:
    return InvalidValueError("expected a proxy such as http://proxy.example.com:3128")


def parse_endpoint(text: str) -> Endpoint:
    """Return the URL of an HTTP endpoint, without a query. Raises `InvalidValueError`.

    More people read a configuration file than should know a secret.
    """
    check_endpoint(text)
    if "?" in text:
        raise InvalidValueError(
            "must have no query, which is often a secret",
            hint="write the whole URL into a file, and name that in url_file",
        )
    return Endpoint(text)


def parse_hub_endpoint(text: str) -> str:
    """Return the URL of a hub, without a query. Raises `InvalidValueError`."""
    return parse_endpoint(text).url.rstrip("/")


def check_endpoint(text: str) -> URL:
    """Return the URL of an HTTP endpoint. Raises `InvalidValueError`, which does not repeat it."""
    try:
        url = URL(text)
        is_complete = url.scheme in {"http", "https"} and url.host and url.port
    except ValueError:
        raise _not_an_endpoint() from None
    is_plain = text.isascii() and text.isprintable() and " " not in text
    if not is_complete or not is_plain or len(text) > MAX_URL:
        raise _not_an_endpoint()
    if "@" in urlsplit(text).netloc:
        raise InvalidValueError(
            "a URL with a user or a password is not supported",
            hint="requests are signed with the secret in secret_file",
        )
    # As it is written: some that are secret have signatures in them.
    return URL(text, encoded=True)


def _not_an_endpoint() -> InvalidValueError:
    return InvalidValueError("expected a URL such as https://ci.example.com/hooks/kitd")


def parse_event_types(text: str) -> str:
    """Return a glob of event types. Raises `InvalidValueError`."""
    if _EVENT_TYPES.fullmatch(text) is None:
        raise InvalidValueError(
            f"{text[:80]!r} is no glob of event types", hint="write it like kit.packed or kit.*"
        )
    return text
