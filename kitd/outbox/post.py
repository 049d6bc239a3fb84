"""One request to an endpoint: sent, answered by a 2xx, or an error that says why not."""

import asyncio
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import aiohttp
from yarl import URL

from kitd import __version__
from kitd.outbox.cloud_event import CONTENT_TYPE
from kitd.outbox.error import (
    EndpointError,
    EndpointTimeoutError,
    EndpointTlsError,
    EndpointUnreachableError,
)
from kitd.outbox.plan import refusal
from kitd.outbox.target import Target
from kitd.retry_after import parse_retry_after
from kitd.signature import HEADER, sign

DEADLINE_S = 10.0
"""For all of a request: names, connection, TLS, and the head of the answer."""
KEEP_ALIVE_S = 2.0
"""Long enough for events that come together. Servers close connections that rest for a while, and
a request that meets this would count as a failure."""
READ_BYTES = 1024
"""Of an answer's body, which nobody looks at, no more is taken from the connection."""

Proxy = Callable[[URL], URL | None]
"""Returns the proxy for a request, None for none. Raises `ValueError` for one that cannot be."""


async def open_session() -> aiohttp.ClientSession:
    """Return the connections to all endpoints; who opens them closes them."""
    # Not to be waited for when cancelled: it reads files, and leaves nothing behind.
    tls = await asyncio.to_thread(ssl.create_default_context)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls, limit=0, keepalive_timeout=KEEP_ALIVE_S),
        headers={"User-Agent": f"kitd/{__version__}", "Accept-Encoding": "identity"},
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=READ_BYTES,
    )


async def post(
    session: aiohttp.ClientSession, target: Target, body: bytes, *, at_s: int, proxy: Proxy
) -> None:
    """Send a body, signed at `at_s` (seconds since the epoch), and wait for a 2xx.

    Raises `EndpointError`.
    """
    headers = {"Content-Type": CONTENT_TYPE}
    if target.secret is not None:
        headers[HEADER] = sign(target.secret, body, at_s=at_s)
    through = _through(proxy, target)
    with _endpoint_errors(target.host):
        async with (
            asyncio.timeout(DEADLINE_S),
            session.post(
                target.url,
                data=body,
                headers=headers,
                allow_redirects=False,
                proxy=through,
                timeout=aiohttp.ClientTimeout(total=None),
            ) as response,
        ):
            status, after = response.status, response.headers.get("Retry-After")
    retry_after_s = None if after is None else parse_retry_after(after, now=datetime.now(UTC))
    if (error := refusal(status, target.host, retry_after_s)) is not None:
        raise error


def _through(proxy: Proxy, target: Target) -> URL | None:
    try:
        return proxy(target.url)
    except ValueError as error:
        raise EndpointUnreachableError(
            f"the proxy for {target.host} cannot be used",
            hint="write HTTPS_PROXY and HTTP_PROXY like http://proxy.example.com:3128",
        ) from error


@contextmanager
def _endpoint_errors(host: str) -> Iterator[None]:
    """Map what the HTTP library raises, whose own words may hold the URL."""
    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        raise EndpointTlsError(
            f"the certificate of {host} is not trusted ({error.certificate_error})",
            hint="endpoints are trusted by the system's authorities: SSL_CERT_FILE names others",
        ) from error
    except (aiohttp.ClientSSLError, ssl.SSLError) as error:
        raise EndpointTlsError(
            f"TLS with {host} failed", hint="see whether the URL should begin with http://"
        ) from error
    except aiohttp.ClientProxyConnectionError as error:
        raise EndpointUnreachableError(
            f"the proxy before {host} cannot be reached ({_reason(error)})",
            hint="check HTTPS_PROXY and HTTP_PROXY, or except the host in NO_PROXY",
        ) from error
    except aiohttp.ClientHttpProxyError as error:
        raise EndpointUnreachableError(
            f"the proxy before {host} refused (HTTP {error.status})",
            hint="check HTTPS_PROXY and HTTP_PROXY, or except the host in NO_PROXY",
        ) from error
    except aiohttp.ClientConnectorError as error:
        raise EndpointUnreachableError(
            f"{host} cannot be reached ({_reason(error)})",
            hint="check that it is up and can be reached from here",
        ) from error
    except TimeoutError as error:
        raise EndpointTimeoutError(
            f"{host} did not answer within {DEADLINE_S:g} s",
            hint="an endpoint should answer first and work afterwards",
        ) from error
    except aiohttp.ClientResponseError as error:
        raise EndpointError(f"what answers at {host} is not HTTP") from error
    except (aiohttp.ClientError, OSError) as error:
        raise EndpointError(f"the connection to {host} broke") from error
    except UnicodeError as error:
        raise EndpointUnreachableError(
            f"{host} is no name of a host", hint="mend its URL in the configuration"
        ) from error


def _reason(error: OSError) -> str:
    """Return the operating system's words, not those that libraries put around its number."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return "no such host" if error.errno is not None else "no connection"
