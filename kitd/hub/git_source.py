"""Repositories of git as a source of imports: which addresses kitd goes to. Pure.

An address is given to `git`, which would run programs for some (`ext::`), take others for options,
and keep the password of a third: only the forms that stand here pass (gitremote-helpers(7),
git-clone(1), "GIT URLS").
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import msgspec

from kitd.errors import KitdError
from kitd.hub.tree import HubSource

MAX_URL_CHARS = 2048
HEAD = "HEAD"
"""The revision that a server offers to who names none."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|[0-9A-Fa-f:.]{2,45}")
_USER = re.compile(r"[A-Za-z0-9_][\w.-]{0,63}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w./+-]{0,199}", re.ASCII)
_SHORT = re.compile(r"(?:(?P<user>[^@/:]+)@)?(?P<host>[^@/:]+):(?P<path>.+)")
_PORTS = {"https": 443, "http": 80, "ssh": 22}


class InvalidGitSourceError(KitdError):
    """What is no address of a git repository that kitd goes to, or no revision of one."""

    code = "invalid_git_source"


@dataclass(frozen=True, slots=True, kw_only=True)
class GitPlace:
    """Where a repository is. `host` is "" for a directory of this machine."""

    scheme: str
    """`https`, `http`, `ssh` or `file`."""
    user: str
    host: str
    port: int | None
    path: str
    """As its server takes it, with what is percent-encoded decoded."""

    @property
    def authority(self) -> str:
        """The host, and the port if it is not the usual one; in lower case."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = self.port is None or self.port == _PORTS.get(self.scheme)
        return (host if usual else f"{host}:{self.port}").lower()

    @property
    def name(self) -> str:
        """The repository as people call it: `org/name`, of a directory its last name."""
        name = self.path.strip("/")
        if not self.host:
            return name.removesuffix("/.git").removesuffix(".git").rpartition("/")[2]
        # A directory of git's within a repository is another place at a server.
        return name if name.endswith("/.git") else name.removesuffix(".git")


class GitSource(msgspec.Struct, frozen=True, kw_only=True, tag_field="tool", tag="git"):
    """A revision of a git repository: a branch, a tag or a whole commit. Made by `git_source`."""

    url: str
    revision: str

    def __str__(self) -> str:
        return self.url

    @property
    def place(self) -> GitPlace:
        """Where it is."""
        return parse_git_url(self.url)

    @property
    def repository(self) -> str:
        """What it is called there."""
        return self.place.name


Source = HubSource | GitSource


def git_source(url: str, revision: str | None) -> GitSource:
    """Return a source as people write it. Raises `InvalidGitSourceError`."""
    parse_git_url(url)
    revision = revision or HEAD
    if _REVISION.fullmatch(revision) is None or ".." in revision or revision.endswith(".lock"):
        raise InvalidGitSourceError(f"{revision[:120]!r} is not the name of a revision")
    return GitSource(url=url, revision=revision)


def is_git_address(text: str) -> bool:
    """Whether a text can only be the address of a git repository, such as `git@host:org/name`."""
    return text.startswith(("ssh://", "file://")) or (
        "://" not in text and "@" in text.partition(":")[0] and ":" in text
    )


def parse_git_url(url: str) -> GitPlace:
    """Return where an address leads. Raises `InvalidGitSourceError`, which repeats no password."""
    if not url.isprintable() or " " in url or "\\" in url or len(url) > MAX_URL_CHARS:
        raise _refused("an address has no spaces, and at most 2048 characters")
    place = _parse_url(url) if "://" in url else _parse_short(url)
    parts = place.path.strip("/").split("/")
    if any(part in ("", ".", "..") or part.startswith("-") for part in parts):
        raise _refused("the path of a repository leads nowhere else")
    if "//" in place.path:
        raise _refused("the path of a repository has one / at a time")
    if "%" in place.path:
        raise _refused("the path of a repository is not encoded twice")
    if not place.path.isprintable() or "\\" in place.path:
        raise _refused("the path of a repository holds characters that no name should have")
    if place.scheme == "http" and place.host not in LOOPBACK:
        raise _refused(f"{place.host} is not asked without TLS", "write https://")
    return place


def _parse_url(url: str) -> GitPlace:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refused("it is not the address of a repository") from None
    scheme, host, user = parts.scheme, parts.hostname or "", parts.username or ""
    if scheme not in (*_PORTS, "file"):
        raise _refused(f"git repositories are not fetched by {scheme[:20]}")
    if parts.password is not None or (user and scheme != "ssh"):
        raise _refused(
            "an address holds no password or token: it would be seen and kept",
            "put them into ~/.netrc of kitd's user",
        )
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise _refused(
            "the address of a repository has no ? and no #", "name a revision with --ref"
        )
    if scheme == "file" and (parts.netloc or not parts.path.startswith("/")):
        raise _refused("write the address of a directory like file:///srv/repository.git")
    if scheme != "file" and (_HOST.fullmatch(host) is None or not parts.path.strip("/")):
        raise _refused("it names no host, or no repository there")
    if user and _USER.fullmatch(user) is None:
        raise _refused("it names no user that could be")
    if "%2f" in parts.path.lower() or (scheme in ("ssh", "file") and "%" in parts.path):
        raise _refused("the path of a repository is written without %")
    return GitPlace(scheme=scheme, user=user, host=host, port=port, path=unquote(parts.path))


def _parse_short(text: str) -> GitPlace:
    """Read `[USER@]HOST:PATH`, which ssh is asked for."""
    found = _SHORT.fullmatch(text)
    if (
        found is None
        or _HOST.fullmatch(found["host"]) is None
        or (found["user"] is not None and _USER.fullmatch(found["user"]) is None)
        or "::" in text
    ):
        raise _refused("it is not the address of a git repository")
    return GitPlace(
        scheme="ssh", user=found["user"] or "", host=found["host"], port=None, path=found["path"]
    )


def _refused(
    why: str, hint: str = "write it like https://git.example.com/org/name.git, or git@host:org/name"
) -> InvalidGitSourceError:
    # The address is not repeated: a token may stand anywhere in it.
    return InvalidGitSourceError(f"kitd does not import from this address: {why}", hint=hint)
