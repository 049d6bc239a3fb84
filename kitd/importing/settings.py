"""Where the hub is and what to show it: the configuration, and the variables of the hub's tools."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from yarl import URL

from kitd.config.literal import check_endpoint
from kitd.config.model import HubConfig
from kitd.config.problem import InvalidValueError
from kitd.hub.error import InvalidHubError
from kitd.secret_file import read_secret

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class HubSettings:
    """The hub's address without a slash at its end; the token None asks as nobody."""

    endpoint: URL
    token: str | None = field(repr=False)


def read_settings(config: HubConfig, environ: Mapping[str, str]) -> HubSettings:
    """Return what is in force now; the environment comes before the file. Blocks.

    HF_ENDPOINT; HF_TOKEN, HF_TOKEN_PATH, and the token that the hub's own tools keep in HF_HOME.
    Raises `InvalidHubError`, which repeats no secret.
    """
    try:
        endpoint = check_endpoint(endpoint_in_force(config, environ))
    except InvalidValueError as error:
        raise InvalidHubError(f"the hub's address cannot be used: {error.message}") from None
    token = _token(config, environ)
    if token is not None and endpoint.scheme != "https" and endpoint.host not in _LOOPBACK:
        raise InvalidHubError(
            f"the token is not sent to {endpoint.origin()} without TLS",
            hint="use https:// in hub.endpoint, or take the token away",
        )
    return HubSettings(endpoint, token)


def endpoint_in_force(config: HubConfig, environ: Mapping[str, str]) -> str:
    """Return the hub's address without a slash at its end, unchecked where HF_ENDPOINT has it."""
    return (environ.get("HF_ENDPOINT", "").strip() or config.endpoint).rstrip("/")


def _token(config: HubConfig, environ: Mapping[str, str]) -> str | None:
    if token := environ.get("HF_TOKEN", "").strip():
        return _checked(token, "HF_TOKEN")
    if named := environ.get("HF_TOKEN_PATH", "").strip():
        return _read(Path(named))
    if config.token_file is not None:
        return _read(config.token_file)
    home = environ.get("HF_HOME") or os.path.join(environ.get("HOME", ""), ".cache/huggingface")
    kept = Path(home, "token")
    if not kept.is_absolute() or not os.path.lexists(kept):
        return None
    return _read(kept)


def _read(path: Path) -> str:
    try:
        return _checked(read_secret(path).decode("ascii", "replace"), str(path))
    except ValueError as error:
        raise InvalidHubError(
            f"{path} {error}", hint="one line, which is the token and nothing else"
        ) from error


def _checked(token: str, where: str) -> str:
    """Return a token that can stand in a header."""
    if not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidHubError(f"{where} holds what no token of a hub can be")
    return token
