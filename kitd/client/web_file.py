"""Files of web servers, fetched with the caller's own network and logins, over TLS only.

What a Kitfile names is not the caller's choice: nobody but the server that it names is shown
anything, and no service without TLS, such as one on this machine, is asked at all.
"""

import base64
import hashlib
import http.client
import netrc
import os
import re
import ssl
import string
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from kitd.client.object_store import (
    MAX_URL,
    RemoteContent,
    RemoteDatasetError,
    chunks_of,
    lost,
)
from kitd.client.paced_http import ask, body_size
from kitd.errors import printable

SCHEME = "https://"
MAX_REDIRECTS = 5
MAX_NETRC_BYTES = 64 << 10

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HASH = re.compile(r"sha256:([0-9a-f]{64})")


@contextmanager
def open_file(environ: Mapping[str, str], url: str, expected: str) -> Iterator[RemoteContent]:
    """Open a file; where `expected` is not empty it is the SHA-256 of what comes.

    `environ` says where `~/.netrc` is. Raises `RemoteDatasetError`, also while it is read.
    """
    # What follows a question mark is often a signature, and so a secret.
    name = printable(url.partition("?")[0][:200])
    found = _HASH.fullmatch(expected)
    if expected and found is None:
        raise RemoteDatasetError(
            f"the kit has a hash of {name} that cannot be checked",
            hint="its remoteHash has to be sha256: and 64 hexadecimal digits",
        )
    if (problem := _problem(url)) is not None:
        raise RemoteDatasetError(f"kitctl cannot fetch {name}: {problem}")
    try:
        with _asked(environ, url, name) as response:
            if (size := body_size(response)) is None:
                raise RemoteDatasetError(
                    f"the server does not say how large {name} is, or does not send it as it is"
                )
            codings = response.headers.get_all("Content-Encoding", [])
            if any(coding.strip().lower() != "identity" for coding in codings):
                raise RemoteDatasetError(f"the server sends {name} in another form than it has")
            chunks = chunks_of(response, size, name)
            hashed = chunks if found is None else _hashed(chunks, found[1], name)
            yield RemoteContent(size, hashed)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
            raise RemoteDatasetError(
                f"cannot fetch {name}: the certificate of its server is not trusted",
                hint="SSL_CERT_FILE names the authorities to trust",
            ) from error
        raise lost(name, error) from error


def _asked(environ: Mapping[str, str], url: str, name: str) -> http.client.HTTPResponse:
    """Return the answer to a GET, after a few redirects.

    They are followed over TLS only, and a login is shown to nobody but the server it is for.
    Raises `RemoteDatasetError` and what `ask` does.
    """
    headers = {"Accept-Encoding": "identity", **_login(environ, url)}
    for _ in range(MAX_REDIRECTS + 1):
        try:
            return ask(urllib.request.Request(url, headers=headers))  # noqa: S310 - https only
        except urllib.error.HTTPError as error:
            # It closes the body unread, however long that may be.
            with error:
                if error.code not in _REDIRECTS or "Location" not in error.headers:
                    raise _refused(error.code, name) from error
                target = _target(url, error.headers["Location"])
        if target is None:
            raise RemoteDatasetError(
                f"{printable(urllib.parse.urlsplit(url).netloc)} redirects to where kitctl does"
                " not go",
                hint="it follows redirects to https:// only",
            )
        if urllib.parse.urlsplit(target).netloc != urllib.parse.urlsplit(url).netloc:
            headers.pop("Authorization", None)
        url = target
    raise RemoteDatasetError(
        f"the server of {name} redirects without end",
        hint=f"kitctl follows {MAX_REDIRECTS} redirects",
    )


def _target(url: str, location: str) -> str | None:
    """Return where a redirect leads to, and None for where nobody goes."""
    try:
        # Header fields are read as Latin-1 (RFC 9112, section 2.2), and URLs are ASCII.
        quoted = urllib.parse.quote(location, encoding="iso-8859-1", safe=string.punctuation)
        target = urllib.parse.urljoin(url, quoted)
    except ValueError:
        return None
    return None if _problem(target) is not None else target


def _hashed(chunks: Iterator[bytes], expected: str, name: str) -> Iterator[bytes]:
    found = hashlib.sha256()
    for chunk in chunks:
        found.update(chunk)
        yield chunk
    if found.hexdigest() != expected:
        raise RemoteDatasetError(
            f"{name} is not what it was when the kit was packed: its SHA-256 is"
            f" {found.hexdigest()} now",
            hint="pack the kit again, or restore the file",
        )


def _problem(url: str) -> str | None:
    """Return why a URL is not asked, if it is not."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "it is not a URL"
    if not url.startswith(SCHEME) or not host:
        return "only https:// is fetched"
    if "@" in parts.netloc:
        return "logins stand in ~/.netrc, and not in a URL"
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        return "it is not a URL"
    return None


def _login(environ: Mapping[str, str], url: str) -> dict[str, str]:
    """Return what `~/.netrc`, or the file that NETRC names, has for a server."""
    path = environ.get("NETRC") or os.path.join(environ.get("HOME", ""), ".netrc")
    if not os.path.isfile(path) or os.path.getsize(path) > MAX_NETRC_BYTES:
        return {}
    try:
        found = netrc.netrc(path).hosts.get(urllib.parse.urlsplit(url).hostname or "")
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError):
        raise RemoteDatasetError(f"{printable(path)} cannot be read") from None
    if found is None:
        return {}
    pair = base64.b64encode(f"{found[0]}:{found[2]}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def _refused(status: int, name: str) -> RemoteDatasetError:
    hints = {
        401: "~/.netrc says who asks",
        403: "~/.netrc says who asks; he has to be allowed to read it",
    }
    return RemoteDatasetError(f"the server answers {status} for {name}", hint=hints.get(status))
