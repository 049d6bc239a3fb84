"""Which proxy a request goes through: HTTPS_PROXY, HTTP_PROXY and NO_PROXY, as Go reads them.

That is how docker, podman and kit understand them: upper case before lower case, nothing for this
machine itself, and in NO_PROXY hosts with all below them, networks, ports and `*`. Pure.
"""

from collections.abc import Mapping
from ipaddress import ip_address, ip_network

from yarl import URL

from kitd.registry.settings import is_loopback


class InvalidProxyError(ValueError):
    """The variable names no proxy that can be gone through; the text does not repeat it."""


def proxy_for(url: URL, environment: Mapping[str, str]) -> URL | None:
    """Return the proxy for a request to `url`, None for none. Raises `InvalidProxyError`."""
    name = f"{url.scheme.upper()}_PROXY"
    text = _variable(name, environment)
    if not text or _is_excluded(url, _variable("NO_PROXY", environment)):
        return None
    try:
        proxy = URL(text if "://" in text else f"http://{text}")
        if proxy.scheme in ("http", "https") and proxy.host and proxy.port:
            return proxy
    except ValueError:
        pass
    raise InvalidProxyError(f"{name} names no HTTP proxy")


def _variable(name: str, environment: Mapping[str, str]) -> str:
    return (environment.get(name) or environment.get(name.lower()) or "").strip()


def _is_excluded(url: URL, no_proxy: str) -> bool:
    host = (url.host or "").lower().rstrip(".")
    if is_loopback(f"[{host}]" if ":" in host else host):
        return True
    return any(_names(entry.strip().lower(), host, url.port) for entry in no_proxy.split(","))


def _names(entry: str, host: str, port: int | None) -> bool:
    """Whether an entry of NO_PROXY is about a host."""
    if entry == "*":
        return True
    head, colon, tail = entry.rpartition(":")
    if colon and tail.isdecimal() and (":" not in head or head.endswith("]")):
        if int(tail) != port:
            return False
        entry = head
    entry = entry.strip("[]")
    try:
        address = ip_address(host)
    except ValueError:
        # `example.com` is that and all below it, `.example.com` and `*.example.com` are the latter.
        suffix = entry.removeprefix("*")
        below = suffix if suffix.startswith(".") else f".{suffix}"
        return bool(entry) and (host == suffix or host.endswith(below))
    try:
        return address in ip_network(entry, strict=False)
    except ValueError:
        return False
