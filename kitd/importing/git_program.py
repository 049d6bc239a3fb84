"""Running git, which is a program of the machine, so that no repository has a say in how it runs.

It reads no configuration but what is given here (git-config(1)), keeps to the one transport that
was asked for, asks nobody for a password, and ends with all that it started. Nothing is ever
checked out, so that hooks, filters, links and names of a repository mean nothing to it.
"""

import asyncio
import contextlib
import re
import shutil
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from kitd.child import READ_BYTES, end, spawn
from kitd.errors import KitdError, printable
from kitd.hub.error import (
    GitDeniedError,
    GitError,
    GitNotFoundError,
    GitUnavailableError,
    HubDeniedError,
    InvalidHubTreeError,
    NoGitError,
)
from kitd.hub.git_source import GitPlace, GitSource
from kitd.hub.lfs import authenticate_command

MEMORY_KIB = 4 << 20
"""Of address space for each process: objects that claim to be large end the process, not kitd."""
SILENCE_S = 300.0
"""For how long git may neither say nor receive anything."""
LOOK_S = 1.0
"""How often it is looked at while it fetches."""
CONNECT_S = 15
LOCAL_S = 60.0
"""For what git does with objects that are here: it waits for nobody."""
LOCAL_CPU_S = 60
FETCH_CPU_S = 3600
"""Of each process of a fetch, and of what reads its objects: there are a handful of them."""
MAX_SAID_BYTES = 16 << 10
MAX_TREE_BYTES = 64 << 20
MAX_AUTHENTICATION_BYTES = 64 << 10

_PASSED = (
    "PATH", "TMPDIR", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "http_proxy", "https_proxy", "no_proxy", "all_proxy",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
)  # fmt: skip
_SSH = (
    "ssh", "-oBatchMode=yes", "-oStrictHostKeyChecking=yes", f"-oConnectTimeout={CONNECT_S}",
    "-oServerAliveInterval=15", "-oServerAliveCountMax=4", "-oClearAllForwardings=yes",
    "-oForwardAgent=no", "-oPermitLocalCommand=no",
)  # fmt: skip
_SETTINGS = (
    "core.hooksPath=/dev/null", "core.fsmonitor=false", "core.bigFileThreshold=16m",
    "core.packedGitLimit=256m", "core.packedGitWindowSize=16m", "credential.helper=", "gc.auto=0",
    "maintenance.auto=false", "fetch.unpackLimit=1", "fetch.recurseSubmodules=false",
    "fetch.writeCommitGraph=false", "transfer.bundleURI=false", "http.followRedirects=false",
    "http.lowSpeedLimit=1", "http.lowSpeedTime=60",
)  # fmt: skip
# The soft limit alone: at the hard one a process is killed, and nobody sees why.
_BOUNDED = (
    f'ulimit -c 0 && ulimit -v {MEMORY_KIB} && ulimit -S -t "$1" && shift && exec nice -n 5 "$@"'
)
_ENDLESS_HINT = "clone it yourself, and kitctl pack the directory"

_MISSING = re.compile(
    r"couldn't find remote ref|not our ref|unadvertised object|[Rr]epository .*not found"
    r"|does not appear to be a git repository|does not exist|no such remote ref|returned error: 404"
)
_DENIED = re.compile(
    r"[Aa]uthentication failed|could not read (?:Username|Password)|Permission denied"
    r"|returned error: 40[13]|[Aa]ccess denied|Host key verification failed|dubious ownership"
)
_REDIRECTED = re.compile(r"returned error: 30\d|redirect")
_SPENT = re.compile(rf"died of signal {signal.SIGXCPU.value}\b")
_HOPELESS = re.compile(
    r"transport '.*' not allowed|mismatched algorithms|object format|out of memory"
    r"|certificate|invalid refspec"
)


class GitProgram:
    """Runs git for imports; `redact` takes secrets out of what it says."""

    def __init__(self, environ: Mapping[str, str], redact: Callable[[str], str] = str) -> None:
        self._environ = environ
        self._redact = redact

    async def fetch(
        self,
        source: GitSource,
        directory: Path,
        looked: Callable[[], Awaitable[int]],
        *,
        silence_s: float = SILENCE_S,
        cpu_s: int = FETCH_CPU_S,
    ) -> str:
        """Fetch one commit into a directory that is not there yet; return its name (40 hex digits).

        `looked` is called again and again meanwhile, returns how many bytes there are, and may
        raise to end it. Raises `KitdError` of `kitd.hub.error`.
        """
        await self._answer(None, ["init", "--quiet", "--bare", "--template=", str(directory)], 4096)
        arguments = ["fetch", "--progress", "--no-tags", "--no-write-fetch-head", "--depth=1"]
        arguments += ["--", source.url, f"{source.revision}:refs/kitd/import"]
        async with self._running(directory, arguments, source.place, cpu_s) as process:
            said = await _follow(process, looked, silence_s)
        if process.returncode == -signal.SIGXCPU or _SPENT.search(said.decode("utf-8", "replace")):
            raise InvalidHubTreeError(
                f"what is in {source.place.name} takes git more than {cpu_s} s to unpack",
                hint=_ENDLESS_HINT,
            )
        if process.returncode:
            # Before it is cut: nobody would know a half of a secret.
            raise failure_of(self._redact(said.decode("utf-8", "replace")), source)
        commit = [
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            "refs/kitd/import^{commit}",
        ]
        try:
            named = await self._answer(directory, commit, 4096)
        except GitError as error:
            raise GitNotFoundError(
                f"{source.revision} of {source.place.name} names no commit",
                hint="name a branch, a tag of a commit, or a commit with --ref",
            ) from error
        return named.decode("ascii", "replace").strip()

    async def tree(self, directory: Path, commit: str, *, deadline_s: float = LOCAL_S) -> bytes:
        """Return what git-ls-tree prints of a commit. Raises `GitError`, `InvalidHubTreeError`.

        Directories that are empty print nothing, however many a few objects unfold to.
        """
        arguments = ["ls-tree", "-r", "-z", "-l", "--full-tree", commit]
        return await self._answer(directory, arguments, MAX_TREE_BYTES, deadline_s)

    @asynccontextmanager
    async def objects(self, directory: Path) -> AsyncIterator["GitObjects"]:
        """Open the objects of a repository. Raises `NoGitError`, `GitError`."""
        arguments = ["cat-file", "--batch"]
        async with self._running(directory, arguments, None, FETCH_CPU_S) as process:
            yield GitObjects(process)

    async def authenticate(self, place: GitPlace) -> bytes:
        """Return what an ssh server says of its LFS server. Raises `KitdError`."""
        if shutil.which("ssh", path=self._environ.get("PATH")) is None:
            raise NoGitError("there is no ssh on this machine", hint="install it: openssh-client")
        port = [] if place.port is None else ["-p", str(place.port)]
        host = f"{place.user}@{place.host}" if place.user else place.host
        command = [*_SSH, *port, "--", host, authenticate_command(place)]
        process = await self._spawn(command, stderr=asyncio.subprocess.DEVNULL)
        try:
            async with asyncio.timeout(2 * CONNECT_S):
                answer = await _whole(process, MAX_AUTHENTICATION_BYTES)
        except TimeoutError:
            raise GitUnavailableError(f"{place.host} did not answer in time") from None
        finally:
            await end(process)
        if process.returncode:
            raise HubDeniedError(
                f"{place.host} names no LFS server for {place.name}",
                hint="import it by https://, if it is to be had that way",
            )
        return answer

    async def _answer(
        self,
        directory: Path | None,
        arguments: Sequence[str],
        max_bytes: int,
        deadline_s: float = LOCAL_S,
    ) -> bytes:
        late = InvalidHubTreeError(
            f"git {arguments[0]} takes more than {deadline_s:g} s for the repository",
            hint=_ENDLESS_HINT,
        )
        async with self._running(
            directory, arguments, None, LOCAL_CPU_S, asyncio.subprocess.PIPE
        ) as process:
            assert process.stderr is not None
            words = asyncio.create_task(_last_words(process.stderr))
            try:
                async with asyncio.timeout(deadline_s):
                    answer = await _whole(process, max_bytes)
                    said = await words
            except TimeoutError:
                raise late from None
            finally:
                words.cancel()
        if process.returncode == -signal.SIGXCPU:
            raise late
        if process.returncode:
            why = f": {printable(said.strip()[-400:])}" if said.strip() else ""
            raise GitError(
                f"git {arguments[0]} ended with {process.returncode}{why}",
                hint="see whether the repository is whole: git fsck",
            )
        return answer

    @asynccontextmanager
    async def _running(
        self,
        directory: Path | None,
        arguments: Sequence[str],
        place: GitPlace | None,
        cpu_s: int,
        stderr: int = asyncio.subprocess.DEVNULL,
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        program = shutil.which("git", path=self._environ.get("PATH"))
        if program is None:
            raise NoGitError(
                "there is no git on this machine",
                hint="install it where kitd runs: apt install git",
            )
        given = [] if directory is None else [f"--git-dir={directory}"]
        settings = [word for each in _SETTINGS for word in ("-c", each)]
        command = [program, "--no-pager", "--no-replace-objects", *settings, *given, *arguments]
        if place is not None:
            # What is fetched says why it failed; all else prints data.
            stderr = asyncio.subprocess.STDOUT
        scheme = place.scheme if place else ""
        process = await self._spawn(command, stderr=stderr, scheme=scheme, cpu_s=cpu_s)
        try:
            yield process
        finally:
            await end(process)

    async def _spawn(
        self, command: Sequence[str], *, stderr: int, scheme: str = "", cpu_s: int = LOCAL_CPU_S
    ) -> asyncio.subprocess.Process:
        environ = {name: self._environ[name] for name in _PASSED if self._environ.get(name)}
        environ |= {
            "LC_ALL": "C",
            # Else curl would look into the password file for it, and find another ~/.netrc.
            "HOME": self._environ.get("HOME") or "/nonexistent",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_ALLOW_PROTOCOL": scheme,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "SSH_ASKPASS": "/bin/false",
            "SSH_ASKPASS_REQUIRE": "never",
            "GIT_SSH_COMMAND": " ".join(_SSH),
            "GIT_SSH_VARIANT": "ssh",
        }
        if trusted := environ.get("SSL_CERT_FILE"):
            environ["GIT_SSL_CAINFO"] = trusted
        try:
            return await spawn(
                "/bin/sh", "-c", _BOUNDED, "sh", str(cpu_s), *command, env=environ, stderr=stderr
            )
        except OSError as error:
            raise GitUnavailableError(f"git cannot be started: {error.strerror}") from error


class GitObjects:
    """Reads blobs, one after the other (git-cat-file(1), "BATCH OUTPUT")."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()
        self._is_broken = False

    async def read(self, blob: str, size: int) -> AsyncGenerator[bytes]:
        """Yield the content of a blob. Raises `GitError`, `InvalidHubTreeError`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._turn:
            if self._is_broken:
                raise GitError("git was left in the middle of an object")
            # Whoever is cancelled in between leaves a rest that is nobody's.
            self._is_broken = True
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(f"{blob}\n".encode())
                await self._process.stdin.drain()
            try:
                async with asyncio.timeout(LOCAL_S):
                    head = await self._process.stdout.readline()
            except TimeoutError:
                raise InvalidHubTreeError(
                    f"git takes more than {LOCAL_S:g} s to find the blob {blob}",
                    hint=_ENDLESS_HINT,
                ) from None
            if head != f"{blob} blob {size}\n".encode():
                raise GitError(f"git has no blob {blob} of {size} bytes")
            left = size
            while left:
                chunk = await self._process.stdout.read(min(READ_BYTES * 16, left))
                if not chunk:
                    raise GitError(f"git ended in the middle of {blob}")
                left -= len(chunk)
                yield chunk
            if await self._process.stdout.read(1) != b"\n":
                raise GitError(f"git has more of {blob} than it said")
            self._is_broken = False


async def _follow(
    process: asyncio.subprocess.Process, looked: Callable[[], Awaitable[int]], silence_s: float
) -> bytes:
    """Return the end of what a process says, once it has ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    loop = asyncio.get_running_loop()
    said, size, sign_s, look_s = b"", 0, loop.time(), 0.0
    while True:
        chunk: bytes | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                chunk = await process.stdout.read(READ_BYTES)
        # What git started may keep the pipe open when git is gone.
        if chunk == b"" or (chunk is None and process.returncode is not None):
            await process.wait()
            await looked()
            # Of what was cut the first line is none: it may begin in the middle of a secret.
            return (
                said if len(said) < MAX_SAID_BYTES else re.split(rb"[\r\n]", said, maxsplit=1)[-1]
            )
        said = (said + (chunk or b""))[-MAX_SAID_BYTES:]
        now_s = loop.time()
        if now_s >= look_s + LOOK_S:
            found, look_s = await looked(), now_s
            if found != size:
                size, sign_s = found, now_s
        if chunk:
            sign_s = now_s
        if now_s - sign_s > silence_s:
            raise GitUnavailableError(f"the server of git said nothing for {silence_s:.0f} s")


async def _last_words(stream: asyncio.StreamReader) -> str:
    said = b""
    while chunk := await stream.read(READ_BYTES):
        said = (said + chunk)[-MAX_SAID_BYTES:]
    return said.decode("utf-8", "replace")


async def _whole(process: asyncio.subprocess.Process, max_bytes: int) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    content = bytearray()
    while chunk := await process.stdout.read(READ_BYTES * 16):
        content += chunk
        if len(content) > max_bytes:
            raise InvalidHubTreeError(
                f"the repository has names of more than {max_bytes} bytes", hint=_ENDLESS_HINT
            )
    await process.wait()
    return bytes(content)


def failure_of(said: str, source: GitSource) -> KitdError:
    """Return what git's last words come to."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", said)]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "remote: ", "ssh:"))]
    told = [line for line in lines if _DENIED.search(line) or _MISSING.search(line)]
    words = (
        printable("; ".join(dict.fromkeys((*told[:2], *telling[-2:])))[:400]) or "it says nothing"
    )
    what = f"git cannot fetch {source.revision} of {source.place.name}: {words}"
    text = "\n".join(lines)
    if "dubious ownership" in text:
        return GitDeniedError(what, hint="let kitd's user own the repository, or serve it by https")
    if _MISSING.search(text):
        return GitNotFoundError(
            what, hint="check the address and --ref; of private repositories servers say that too"
        )
    if _DENIED.search(text):
        return GitDeniedError(
            what,
            hint="kitd's user asks, with ~/.netrc for https, and for ssh with the keys and"
            " known_hosts in ~/.ssh",
        )
    if _REDIRECTED.search(text):
        return GitError(
            what, hint="give the address that it redirects to, which mostly has .git at its end"
        )
    if _HOPELESS.search(text):
        return GitError(what)
    return GitUnavailableError(what, hint="see whether its server can be reached from here")
