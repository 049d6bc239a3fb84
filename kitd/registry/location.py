"""Where an answer points to: Location headers as registries and the proxies before them send them.

Pure. An upload's Location is opaque and may hold signed state: it is joined and extended as text,
never taken apart and quoted again.
"""

from collections.abc import Mapping
from urllib.parse import quote

from yarl import URL


class InvalidLocationError(ValueError):
    """The header names no place that may be followed; the text says why."""


def same_origin(one: URL, other: URL) -> bool:
    """Whether two URLs have the same scheme, host and port: what one knows the other may know."""
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


def resolve_location(current: URL, location: str) -> URL:
    """Return the absolute URL that `location`, sent in answer to `current`, names.

    Raises `InvalidLocationError` for what is no HTTP URL, and for a step down from TLS.
    """
    try:
        target = current.join(URL(location, encoded=True))
        # Reading the parts finds what joining let pass, such as a port that is none.
        _ = target.port
    except ValueError:
        # Never quoted: it may be signed, and whoever has it may send to it.
        raise InvalidLocationError("the location is not a URL") from None
    if target.scheme not in ("http", "https") or not target.host:
        raise InvalidLocationError("the location is not an HTTP URL")
    if target.user is not None or target.password is not None:
        raise InvalidLocationError(f"the location at {target.host} holds credentials")
    if current.scheme == "https" and target.scheme == "http":
        raise InvalidLocationError(f"it sends from https to plain http at {target.host}")
    return target


def resolve_upload(current: URL, location: str) -> URL:
    """Return where an upload goes on. Raises `InvalidLocationError`.

    A proxy that forwards the host without its port makes registries lose the port in their
    Locations; it is put back.
    """
    target = resolve_location(current, location)
    lost = target.explicit_port is None and target.host == current.host
    if lost and target.scheme == current.scheme and target.port != current.port:
        return target.with_port(current.port)
    return target


def next_page(
    current: URL, links: Mapping[str, Mapping[str, str | URL]], origin: URL
) -> URL | None:
    """Return the URL of the page that the Link headers of `current` (RFC 8288) announce, if any.

    Raises `InvalidLocationError`, also for a page that is not of the registry at `origin`.
    """
    link = links.get("next")
    if link is None:
        return None
    url = resolve_location(current, str(link["url"]))
    if not same_origin(url, origin):
        raise InvalidLocationError(f"the next page is at {url.host}")
    return url


def with_digest(location: URL, digest: str) -> URL:
    """Return the URL that ends an upload: the Location with the digest in its query."""
    joint = "&" if location.raw_query_string else "?"
    return URL(f"{location}{joint}digest={quote(digest, safe='')}", encoded=True)
