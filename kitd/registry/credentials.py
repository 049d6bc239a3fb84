"""Finding the credentials for a registry, where docker, podman and friends keep them.

Sources: docker's `config.json` and credential helper protocol, containers-auth.json(5). The
environment comes in as a mapping. Files are read anew for each look-up, so that a login is seen at
once; who sends many requests keeps what it found.
"""

import asyncio
import base64
import json
import os
import re
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import structlog

from kitd.blocking import run_blocking
from kitd.child import end, spawn
from kitd.errors import Disposition, KitdError
from kitd.oci.json_reader import InvalidJsonError, Json, read_object
from kitd.oci.reference import canonical_registry
from kitd.registry.settings import (
    DOCKER_HUB,
    Anonymous,
    CredentialSource,
    DockerCredentials,
    Given,
    PasswordFile,
    TokenFile,
)
from kitd.secret_file import MAX_BYTES, read_whole

log = structlog.get_logger(__name__)

MAX_AUTH_FILE_BYTES = 1024 * 1024
MAX_HELPER_BYTES = 64 * 1024
HELPER_DEADLINE_S = 10.0
PERSON_S = 120.0
"""The same where a person is there, whom a helper may ask for a passphrase."""

_HUB_KEY = "https://index.docker.io/v1/"
"""What docker's files and helpers call Docker Hub."""
_IDENTITY_USER = "<token>"
"""The user name with which helpers mark an identity token."""
_OLD_NAME = ".dockercfg"
"""A file of docker's first years, which is nothing but its entries."""
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class CredentialsError(KitdError):
    """A file or a helper with credentials cannot be used."""

    code = "registry_credentials"


class HelperTimeoutError(CredentialsError):
    """A credential helper did not answer in time."""

    disposition: ClassVar[Disposition] = Disposition.RETRY


@dataclass(frozen=True, slots=True)
class Password:
    """A user and its password, or a token in the place of one."""

    username: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class IdentityToken:
    """A long-lived token that a token server exchanges for access tokens (OAuth2 refresh token)."""

    secret: str = field(repr=False)
    username: str = ""
    """What stood beside it; for token servers that take the token as a password only."""


@dataclass(frozen=True, slots=True)
class RegistryToken:
    """An access token, sent as it is."""

    secret: str = field(repr=False)


Credential = Password | IdentityToken | RegistryToken


@dataclass(frozen=True, slots=True)
class AuthFile:
    """The content of one `config.json` or `auth.json`."""

    path: Path
    entries: Mapping[str, Credential]
    """By registry, or by registry and path: the keys as they stand, normalised."""
    helpers: Mapping[str, str]
    store: str | None

    def helper_for(self, registry: str) -> str | None:
        """Return the name of the helper that keeps the registry's credentials."""
        return self.helpers.get(entry_key(registry)) or self.store

    def entry_for(self, registry: str, repository: str | None) -> Credential | None:
        """Return the entry with the longest path that holds the repository."""
        host = entry_key(registry)
        parts = repository.split("/") if repository else []
        for length in range(len(parts), -1, -1):
            if entry := self.entries.get("/".join([host, *parts[:length]])):
                return entry
        return None


async def find_credential(
    source: CredentialSource,
    registry: str,
    repository: str | None,
    environment: Mapping[str, str],
) -> Credential | None:
    """Return the credential for a repository of a registry (`host[:port]`), None if there is none.

    Raises `CredentialsError`.
    """
    match source:
        case Anonymous():
            return None
        case PasswordFile(username, path):
            return Password(username, await run_blocking(_read_secret, path))
        case TokenFile(path):
            return IdentityToken(await run_blocking(_read_secret, path))
        case Given("", secret):
            return IdentityToken(secret)
        case Given(username, secret):
            return Password(username, secret)
        case DockerCredentials():
            for path in auth_paths(environment):
                if credential := await search_file(path, registry, repository, environment):
                    return credential
            return None


def auth_paths(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the files to search, the first with an answer wins (containers-auth.json(5)).

    A file named by REGISTRY_AUTH_FILE is the only one. What systemd loaded for the service as
    `registry-auth` comes before what a person left by logging in. The file of `kit` comes last.
    """
    if named := environment.get("REGISTRY_AUTH_FILE"):
        return (Path(named),)
    paths = []
    if granted := environment.get("CREDENTIALS_DIRECTORY"):
        paths.append(Path(granted, "registry-auth"))
    home = environment.get("HOME")
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        paths.append(Path(runtime, "containers/auth.json"))
    elif os.access(unset := Path(f"/run/containers/{os.getuid()}/auth.json"), os.R_OK):
        # Where podman and skopeo keep logins without a runtime directory. The directories above
        # are root's, and it is no fault that others cannot look into them.
        paths.append(unset)
    if config := environment.get("XDG_CONFIG_HOME") or (home and f"{home}/.config"):
        paths.append(Path(config, "containers/auth.json"))
    if docker := environment.get("DOCKER_CONFIG") or (home and f"{home}/.docker"):
        paths.append(Path(docker, "config.json"))
    if home:
        paths.append(Path(home, _OLD_NAME))
    if kit := _home_of_kit(environment):
        paths.append(Path(kit, "credentials.json"))
    return tuple(paths)


def docker_file(environment: Mapping[str, str]) -> Path:
    """Return the file that a login is written to: the one of docker, or REGISTRY_AUTH_FILE.

    Raises `CredentialsError` where there is no home that it could be in.
    """
    if named := environment.get("REGISTRY_AUTH_FILE"):
        return Path(named)
    home = environment.get("HOME")
    if docker := environment.get("DOCKER_CONFIG") or (home and f"{home}/.docker"):
        return Path(docker, "config.json")
    raise CredentialsError(
        "neither HOME nor DOCKER_CONFIG says where a login could be stored", hint="set HOME"
    )


def _home_of_kit(environment: Mapping[str, str]) -> str | None:
    if own := environment.get("KITOPS_HOME"):
        return own
    home = environment.get("HOME")
    data = environment.get("XDG_DATA_HOME") or (home and f"{home}/.local/share")
    return f"{data}/kitops" if data else None


def parse_auth_file(content: bytes, path: Path) -> AuthFile:
    """Read a file with credentials; keys it does not know are somebody else's.

    Raises `CredentialsError`, which names the file and never what is in it.
    """
    try:
        document = read_object(content, max_bytes=MAX_AUTH_FILE_BYTES)
    except InvalidJsonError as error:
        raise malformed(path, str(error)) from None
    if path.name == _OLD_NAME:
        document = {"auths": document}
    entries = {}
    for key, entry in _object(document, "auths", path).items():
        if not isinstance(entry, Mapping):
            raise malformed(path, f"the entry of {key[:80]!r} is not an object")
        try:
            credential = _credential(entry)
        except ValueError:
            # The cause would quote the secret.
            raise malformed(path, f"the entry of {key[:80]!r} cannot be decoded") from None
        if credential is not None:
            entries[entry_key(key)] = credential
    helpers = {
        entry_key(host): name
        for host, name in _object(document, "credHelpers", path).items()
        if isinstance(name, str)
    }
    store = document.get("credsStore")
    return AuthFile(path, entries, helpers, store if isinstance(store, str) else None)


def parse_helper_answer(output: bytes) -> Credential | None:
    """Read what a helper printed for `get`. Raises `ValueError` for what is no credential."""
    try:
        answer = read_object(output, max_bytes=MAX_HELPER_BYTES)
    except InvalidJsonError:
        raise ValueError("not a JSON object") from None
    match answer:
        case {"Username": str(username), "Secret": str(secret)}:
            return _login(username, secret)
    raise ValueError("no Username or no Secret")


def _object(document: Mapping[str, Json], key: str, path: Path) -> Mapping[str, Json]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise malformed(path, f"{key} is not an object")
    return value


def _credential(entry: Mapping[str, Json]) -> Credential | None:
    """Return what an entry of `auths` holds. Raises `ValueError` where it cannot be decoded."""
    texts = {key: value for key, value in entry.items() if isinstance(value, str) and value}
    if "registrytoken" in texts and "identitytoken" not in texts:
        return RegistryToken(texts["registrytoken"])
    username, secret = texts.get("username", ""), texts.get("password", "")
    if "auth" in texts:
        pair = base64.b64decode(texts["auth"], validate=True).decode()
        username, colon, secret = pair.partition(":")
        if not colon:
            raise ValueError("no colon between user and password")
    if "identitytoken" in texts:
        return IdentityToken(texts["identitytoken"], username)
    return _login(username, secret.rstrip("\0"))


def _login(username: str, secret: str) -> Credential | None:
    if username == _IDENTITY_USER:
        return IdentityToken(secret)
    return Password(username, secret) if username and secret else None


def entry_key(text: str) -> str:
    """Return `host[:port][/path]` for a key of a credentials file, whatever wrote it.

    URLs and the API versions in them are docker's old habit: only their host counts.
    """
    _, scheme, rest = text.rpartition("://")
    host, _, path = rest.partition("/")
    host, path = canonical_registry(host), path.strip("/")
    return host if scheme or path in ("", "v1", "v2") else f"{host}/{path}"


def malformed(path: Path, reason: str) -> CredentialsError:
    """Return the error for a file with credentials that cannot be read."""
    return CredentialsError(
        f"cannot read the credentials in {path}: {reason}", hint="mend the file, or log in again"
    )


def _read(path: Path, max_bytes: int) -> bytes:
    """Return the content of a small file.

    Raises `CredentialsError`, and `FileNotFoundError` or `NotADirectoryError` where there is none.
    """
    try:
        content, mode = read_whole(path, max_bytes=max_bytes)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise CredentialsError(
            f"cannot read {path}: {error.strerror}", hint="the user kitd runs as must read it"
        ) from error
    except ValueError as error:
        raise CredentialsError(f"{path} {error}") from error
    warn_if_exposed(path, mode)
    return content


def warn_if_exposed(path: Path, mode: int) -> None:
    """Say so if a file with a secret may be read by everybody."""
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        log.warning("registry.secret_exposed", path=str(path), hint=f"chmod o-rwx {path}")


def _read_secret(path: Path) -> str:
    """Return the text of a password or token file without the newline an editor leaves."""
    try:
        secret = _read(path, MAX_BYTES).decode().strip("\r\n")
    except (FileNotFoundError, NotADirectoryError):
        raise CredentialsError(f"{path} does not exist") from None
    except UnicodeDecodeError:
        raise CredentialsError(f"{path} is not UTF-8 text") from None
    if not secret:
        raise CredentialsError(f"{path} is empty")
    return secret


def _read_auth_file(path: Path) -> AuthFile | None:
    try:
        return parse_auth_file(_read(path, MAX_AUTH_FILE_BYTES), path)
    except (FileNotFoundError, NotADirectoryError):
        return None


async def search_file(
    path: Path, registry: str, repository: str | None, environment: Mapping[str, str]
) -> Credential | None:
    """Return what one file, or the helper it names, has for the repository.

    Raises `CredentialsError`.
    """
    file = await run_blocking(_read_auth_file, path)
    if file is None:
        return None
    helper, server = file.helper_for(registry), server_name(registry)
    if helper and (credential := await ask_helper(helper, server, environment)):
        return credential
    return file.entry_for(registry, repository)


def server_name(registry: str) -> str:
    """Return what docker's files and helpers call a registry."""
    return _HUB_KEY if registry == DOCKER_HUB else registry


async def ask_helper(
    name: str, server: str, environment: Mapping[str, str], *, is_attended: bool = False
) -> Credential | None:
    """Ask `docker-credential-<name>` for a server; None where it keeps nothing for it.

    Where it `is_attended` it has the terminal, and the time that a person takes. Raises
    `CredentialsError` where it cannot be run, fails or takes longer than it has.
    """
    status, output = await _call_helper(
        name, "get", server.encode(), server, environment, is_attended=is_attended
    )
    if status != 0 and b"credentials not found" in output:
        return None
    reason = f"it ended with status {status}"
    if status == 0:
        try:
            return parse_helper_answer(output)
        except ValueError as error:
            reason = str(error)
    raise CredentialsError(
        f"docker-credential-{name} gave no credentials for {server}: {reason}",
        hint=f"try: echo {server} | docker-credential-{name} get",
    )


async def store_with_helper(
    name: str, server: str, credential: Password | IdentityToken, environment: Mapping[str, str]
) -> None:
    """Let `docker-credential-<name>` keep a person's login. Raises what `ask_helper` raises."""
    username = _IDENTITY_USER if isinstance(credential, IdentityToken) else credential.username
    login = {"ServerURL": server, "Username": username, "Secret": credential.secret}
    question = json.dumps(login).encode()
    status, _ = await _call_helper(name, "store", question, server, environment, is_attended=True)
    if status != 0:
        # What it printed may quote what it was given.
        raise CredentialsError(
            f"docker-credential-{name} did not store the login for {server}:"
            f" it ended with status {status}",
            hint="see whether its keyring is unlocked, or take it out of docker's config.json",
        )


async def erase_with_helper(name: str, server: str, environment: Mapping[str, str]) -> bool:
    """Let `docker-credential-<name>` forget a person's login; whether it had one.

    Raises what `ask_helper` raises.
    """
    if await ask_helper(name, server, environment, is_attended=True) is None:
        return False
    status, _ = await _call_helper(
        name, "erase", server.encode(), server, environment, is_attended=True
    )
    if status != 0:
        raise CredentialsError(
            f"docker-credential-{name} did not forget the login for {server}:"
            f" it ended with status {status}",
            hint=f"try: echo {server} | docker-credential-{name} erase",
        )
    return True


async def _call_helper(
    name: str,
    action: str,
    question: bytes,
    server: str,
    environment: Mapping[str, str],
    *,
    is_attended: bool,
) -> tuple[int, bytes]:
    program = f"docker-credential-{name}"
    path = shutil.which(program, path=environment.get("PATH", ""))
    if _HELPER_NAME.fullmatch(name) is None or path is None:
        raise CredentialsError(
            f"the credential helper {program[:96]!r} is not on the PATH",
            hint="install it, or remove it from the file with the registry credentials",
        )
    deadline_s = PERSON_S if is_attended else HELPER_DEADLINE_S
    # What is stored is no line that anybody could try.
    tried = f"echo {server} | {program} {action}" if action != "store" else f"{program} list"
    try:
        async with asyncio.timeout(deadline_s):
            return await _run(path, action, question, environment, is_attended=is_attended)
    except TimeoutError:
        raise HelperTimeoutError(
            f"{program} gave no answer to {action} for {server} within {deadline_s:.0f} s",
            hint=f"see whether it waits for something, such as a keyring's passphrase: {tried}",
        ) from None
    except OSError as error:
        raise CredentialsError(f"cannot run {path}: {error.strerror}") from error


async def _run(
    path: str, action: str, question: bytes, environment: Mapping[str, str], *, is_attended: bool
) -> tuple[int, bytes]:
    """Return the exit status and the first `MAX_HELPER_BYTES` of what the program printed."""
    process = await spawn(
        path,
        action,
        env=environment,
        stderr=asyncio.subprocess.DEVNULL,
        shares_session=is_attended,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    output = b""
    try:
        # A helper that needs no question may be gone before it is asked.
        with suppress(ConnectionError):
            process.stdin.write(question)
            await process.stdin.drain()
        process.stdin.close()
        while chunk := await process.stdout.read(MAX_HELPER_BYTES - len(output)):
            output += chunk
        # One that prints more would wait for a reader for ever.
        if len(output) < MAX_HELPER_BYTES:
            await process.wait()
    finally:
        # Helpers are scripts more often than not: what they started ends with them, unless they
        # have the terminal.
        await end(process)
    return await process.wait(), output
