"""Objects of S3-compatible stores, fetched with the caller's own network and credentials.

Requests are signed with Signature Version 4 (AWS General Reference, "Signature Version 4 for API
requests"; Amazon S3 API Reference, "Authenticating Requests: Using the Authorization Header").
"""

import hashlib
import hmac
import http.client
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from kitd.client.paced_http import ask, body_size
from kitd.errors import KitdError, printable

CHUNK_BYTES = 1 << 16
MAX_URL = 4096

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_HOST_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_REGION = re.compile(r"[a-z0-9-]{1,64}")
_ETAG = re.compile(r"[\x21\x23-\x7e]{1,256}")
_EMPTY = hashlib.sha256(b"").hexdigest()
_SAFE = "-_.~"


class RemoteDatasetError(KitdError):
    """A remote dataset is not where its kit says, or not what it was when that was packed."""

    code = "remote_dataset"


class Store(NamedTuple):
    """Where objects are, and who asks for them; without keys anybody does."""

    endpoint: str | None
    """Its URL, with buckets beneath it; None is that of AWS."""
    region: str
    access_key: str | None
    secret_key: str | None
    session_token: str | None


class S3Object(NamedTuple):
    """One object, in one version or in the newest."""

    bucket: str
    key: str
    version: str | None


class RemoteContent(NamedTuple):
    """An object on its way: its size is what the store says, and is checked as it comes."""

    size: int
    chunks: Iterator[bytes]


def store_of(environ: Mapping[str, str]) -> Store:
    """Return the store that `S3_*` names, and where these are not set `AWS_*`.

    Raises `RemoteDatasetError`.
    """

    def given(*names: str) -> str | None:
        return next((environ[name] for name in names if environ.get(name)), None)

    endpoint = given("S3_API_ENDPOINT")
    if endpoint is not None:
        parts = urllib.parse.urlsplit(endpoint)
        # What stands before an @ would be another way to say who asks, and nobody reads it.
        is_place = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
        if not is_place or parts.query:
            raise RemoteDatasetError(
                "S3_API_ENDPOINT is not the URL of a store",
                hint="write it like https://s3.example.com",
            )
    region = given("S3_REGION", "AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1"
    if _REGION.fullmatch(region) is None:
        raise RemoteDatasetError("S3_REGION is not the name of a region")
    access_key = given("S3_ACCESS_KEY_ID")
    if access_key is not None:
        return Store(endpoint, region, access_key, given("S3_SECRET_KEY"), None)
    return Store(
        endpoint,
        region,
        given("AWS_ACCESS_KEY_ID"),
        given("AWS_SECRET_ACCESS_KEY"),
        given("AWS_SESSION_TOKEN"),
    )


def parse_object(url: str) -> S3Object:
    """Read `s3://BUCKET/KEY[?versionId=ID]`. Raises `RemoteDatasetError`."""
    bucket, _, rest = url.removeprefix("s3://").partition("/")
    key, question, query = rest.partition("?")
    field, _, version = query.partition("=")
    if (
        not url.startswith("s3://")
        or len(url) > MAX_URL
        or _BUCKET.fullmatch(bucket) is None
        or not key
        or (question and (field != "versionId" or not version))
    ):
        raise RemoteDatasetError(
            f"kitctl cannot fetch {printable(url[:200])}",
            hint="it fetches https://, and s3://BUCKET/KEY, with ?versionId=ID or without",
        )
    return S3Object(bucket, key, urllib.parse.unquote(version) or None)


@contextmanager
def open_object(store: Store, url: str, etag: str) -> Iterator[RemoteContent]:
    """Open an object, if it is still what it was when it had this ETag.

    Raises `RemoteDatasetError`, also while it is read.
    """
    name = printable(url[:200])
    target = parse_object(url)
    if _ETAG.fullmatch(etag) is None:
        raise RemoteDatasetError(
            f"the kit does not say what {name} was when it was packed",
            hint="its remoteHash has to be the object's ETag, without quotes",
        )
    request = _request(store, target, etag, time.time())
    try:
        with ask(request) as response:
            found = response.headers.get("ETag", "").removeprefix("W/").strip('"')
            if found != etag:
                raise _changed(name, etag)
            if (size := body_size(response)) is None:
                raise RemoteDatasetError(
                    f"the store does not say how large {name} is, or does not send it as it is"
                )
            yield RemoteContent(size, chunks_of(response, size, name))
    except urllib.error.HTTPError as error:
        with error:
            raise _refused(error.code, name, etag) from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise lost(name, error) from error


def chunks_of(response: http.client.HTTPResponse, size: int, name: str) -> Iterator[bytes]:
    """Yield a body of so many bytes, as they come.

    Raises `RemoteDatasetError` where it has fewer, or they come too slowly.
    """
    left = size
    while left:
        try:
            chunk = response.read1(min(CHUNK_BYTES, left))
        except (http.client.HTTPException, OSError) as error:
            raise lost(name, error) from error
        if not chunk:
            raise RemoteDatasetError(f"{name} ended {left} bytes too early", hint="try again")
        left -= len(chunk)
        yield chunk


def lost(name: str, error: Exception) -> RemoteDatasetError:
    """Return what it is that nobody answers, or breaks off."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    why = printable(str(reason)[:200]) or type(reason).__name__
    return RemoteDatasetError(f"cannot fetch {name}: {why}", hint="see whether its server answers")


def _changed(name: str, etag: str) -> RemoteDatasetError:
    return RemoteDatasetError(
        f"{name} is not what it was when the kit was packed: its ETag is not {printable(etag)} now",
        hint="pack the kit again, or restore the object",
    )


def _refused(status: int, name: str, etag: str) -> RemoteDatasetError:
    if status == 412:
        return _changed(name, etag)
    hints = {
        301: "S3_REGION has to be the region of the bucket",
        307: "S3_REGION has to be the region of the bucket",
        401: "S3_ACCESS_KEY_ID and S3_SECRET_KEY say who asks",
        403: "S3_ACCESS_KEY_ID and S3_SECRET_KEY say who asks; he has to be allowed to read it",
        404: "S3_API_ENDPOINT says where buckets are that are not at AWS",
    }
    return RemoteDatasetError(f"the store answers {status} for {name}", hint=hints.get(status))


def _request(store: Store, target: S3Object, etag: str, now_s: float) -> urllib.request.Request:
    url = object_url(store, target)
    headers = {"If-Match": f'"{etag}"'}
    if store.access_key and store.secret_key:
        headers |= signature(store, url, now_s)
    return urllib.request.Request(url, headers=headers)  # noqa: S310 - http and https only


def object_url(store: Store, target: S3Object) -> str:
    """Return where an object is: beneath the endpoint, or at AWS by the bucket's own name."""
    key = urllib.parse.quote(target.key, safe="/" + _SAFE)
    if store.endpoint is not None:
        base = f"{store.endpoint.rstrip('/')}/{target.bucket}"
    elif _HOST_BUCKET.fullmatch(target.bucket):
        base = f"https://{target.bucket}.s3.{store.region}.amazonaws.com"
    else:
        base = f"https://s3.{store.region}.amazonaws.com/{target.bucket}"
    if target.version is None:
        return f"{base}/{key}"
    return f"{base}/{key}?versionId={urllib.parse.quote(target.version, safe=_SAFE)}"


def signature(store: Store, url: str, now_s: float) -> dict[str, str]:
    """Return the headers that sign a GET of `url`, whose path and query are encoded already."""
    parts = urllib.parse.urlsplit(url)
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
    day = moment[:8]
    headers = {"x-amz-content-sha256": _EMPTY, "x-amz-date": moment}
    if store.session_token:
        headers["x-amz-security-token"] = store.session_token
    signed = dict(sorted({**headers, "host": parts.netloc}.items()))
    names = ";".join(signed)
    canonical = "\n".join(
        (
            "GET",
            parts.path,
            parts.query,
            *(f"{name}:{value}" for name, value in signed.items()),
            "",
            names,
            _EMPTY,
        )
    )
    scope = f"{day}/{store.region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{store.secret_key}".encode()
    for word in (day, store.region, "s3", "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    proof = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"{store.access_key}/{scope}"
    headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={proof}"
    )
    return headers
