"""Git LFS, as far as it is asked for files: where its server is, and what that answers. Pure.

Git LFS API specification: "Server Discovery", "Batch API", "Basic Transfers". What `.lfsconfig` of
a repository says of servers is not followed: kitd goes where the caller may have it go.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import msgspec

from kitd.errors import printable
from kitd.hub.error import HubDeniedError, HubError, HubNotFoundError, HubUnavailableError
from kitd.hub.git_source import GitPlace
from kitd.hub.tree import HubFile

MEDIA_TYPE = "application/vnd.git-lfs+json"
MAX_HEADERS = 20
MAX_HEADER_CHARS = 8192

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_OURS = frozenset(
    {"host", "range", "content-length", "transfer-encoding", "connection", "accept-encoding"}
)
"""Headers that say how a request is made, which is nobody else's business."""


@dataclass(frozen=True, slots=True)
class LfsAction:
    """A URL, and the headers that go with a request there, which may be secrets."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


class _Link(msgspec.Struct, frozen=True):
    href: str
    header: dict[str, str] | None = None
    expires_in: int = 0


class _Actions(msgspec.Struct, frozen=True):
    download: _Link | None = None


class _Problem(msgspec.Struct, frozen=True):
    code: int
    message: str = ""


class _Object(msgspec.Struct, frozen=True):
    oid: str
    size: int = 0
    actions: _Actions | None = None
    error: _Problem | None = None


class _Batch(msgspec.Struct, frozen=True):
    objects: list[_Object]
    transfer: str = "basic"


_BATCHES = msgspec.json.Decoder(_Batch)
_LINKS = msgspec.json.Decoder(_Link)


def lfs_endpoint(url: str) -> str:
    """Return the URL of the LFS server that belongs to a repository reached by HTTP."""
    url = url.rstrip("/")
    return f"{url}/info/lfs" if url.endswith(".git") else f"{url}.git/info/lfs"


def batch_request(file: HubFile) -> bytes:
    """Return the question for where one file is."""
    return msgspec.json.encode(
        {
            "operation": "download",
            "transfers": ["basic"],
            "objects": [{"oid": file.sha256, "size": file.size}],
            "hash_algo": "sha256",
        }
    )


def parse_batch(content: bytes, file: HubFile) -> LfsAction:
    """Return where a file is by the server's answer. Raises `KitdError` of `kitd.hub.error`."""
    try:
        batch = _BATCHES.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HubError(f"the LFS server's answer cannot be read: {error}") from error
    found = [each for each in batch.objects if each.oid == file.sha256]
    if batch.transfer != "basic" or len(found) != 1:
        raise HubError(f"the LFS server does not say where {printable(file.path)} is")
    if (problem := found[0].error) is not None:
        raise _refusal(problem, file)
    if found[0].actions is None or found[0].actions.download is None:
        raise HubError(f"the LFS server does not say where {printable(file.path)} is")
    return _action(found[0].actions.download)


def _refusal(problem: _Problem, file: HubFile) -> Exception:
    what = f"{printable(file.path)}: {printable(problem.message[:200])} ({problem.code})"
    if problem.code in (404, 410, 422):
        return HubNotFoundError(
            f"the LFS server does not have {what}",
            hint="whoever committed it has to push it: git lfs push --all",
        )
    if problem.code in (401, 403):
        return HubDeniedError(f"the LFS server does not let kitd have {what}")
    return HubUnavailableError(f"the LFS server cannot give {what}")


def authenticate_command(place: GitPlace) -> str:
    """Return what a server is asked by ssh; `parse_authenticated` reads the answer."""
    return f"git-lfs-authenticate {shlex.quote(place.path)} download"


def parse_authenticated(content: bytes) -> tuple[LfsAction, int]:
    """Return the LFS server of a repository reached by ssh, and for how many seconds.

    Raises `HubError`.
    """
    try:
        link = _LINKS.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Its words may be a part of the token that it should have been.
        raise HubError("the answer to git-lfs-authenticate cannot be read") from None
    if "?" in link.href or "#" in link.href:
        # What is asked for there is put after it, and would be a part of neither.
        raise HubError("the address of the LFS server has a ? or a #")
    return _action(link), link.expires_in


def _action(link: _Link) -> LfsAction:
    """Return a link once it was judged. Raises `HubError`, which repeats neither URL nor header."""
    try:
        parts = urlsplit(link.href)
        is_place = parts.scheme in ("http", "https") and parts.hostname and parts.username is None
    except ValueError:
        is_place = False
    if not is_place or not link.href.isprintable():
        raise HubError("the LFS server leads to no place")
    headers = link.header or {}
    if len(headers) > MAX_HEADERS or not all(
        _NAME.fullmatch(name) and value.isprintable() and len(value) <= MAX_HEADER_CHARS
        for name, value in headers.items()
    ):
        raise HubError("the LFS server wants headers that cannot be sent")
    kept = {name: value for name, value in headers.items() if name.lower() not in _OURS}
    return LfsAction(link.href, kept)
