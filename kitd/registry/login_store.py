"""Logins that a person leaves behind and takes away: docker's `config.json` and its helpers.

The file is docker's, and others keep things in it: what is not the login is left as it is, and it
is replaced as a whole, by a file that nobody else may read. Blocks where it says so.
"""

import asyncio
import base64
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kitd.blocking import run_blocking
from kitd.oci.json_reader import InvalidJsonError, read_object
from kitd.registry.credentials import (
    MAX_AUTH_FILE_BYTES,
    AuthFile,
    CredentialsError,
    IdentityToken,
    Password,
    auth_paths,
    docker_file,
    entry_key,
    erase_with_helper,
    malformed,
    parse_auth_file,
    search_file,
    server_name,
    store_with_helper,
)
from kitd.secret_file import read_whole

LOCK_S = 10.0
"""How long somebody else may take to change the file."""
_TURN_S = 0.05


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a login is: in a file, or with the helper that the file names."""

    path: Path
    helper: str | None
    hidden_by: Path | None
    """A file that is read earlier, and has another login."""


@dataclass(frozen=True, slots=True)
class Erased:
    """Whether there was a login, and the files that still have one."""

    path: Path
    was_there: bool
    still_in: tuple[Path, ...]


async def store_login(
    registry: str, credential: Password | IdentityToken, environment: Mapping[str, str]
) -> Stored:
    """Keep a login for a registry where docker would.

    Raises `CredentialsError`: then nothing was changed, unless it says so.
    """
    path = docker_file(environment)
    server = server_name(registry)
    helper = (await run_blocking(_read, path))[1].helper_for(registry)
    if helper is not None:
        await store_with_helper(helper, server, credential, environment)
    # Docker leaves an empty entry for what a helper keeps.
    entry = {} if helper is not None else _entry(credential)
    try:
        await asyncio.to_thread(_change, path, registry, server, entry)
    except CredentialsError as error:
        if helper is None:
            raise
        raise CredentialsError(
            f"{error.message}; docker-credential-{helper} keeps the login all the same",
            hint=f"kitctl logout {registry} takes it away",
        ) from error
    hidden_by = None
    for earlier in auth_paths(environment):
        if earlier == path:
            break
        with suppress(CredentialsError):
            if await search_file(earlier, registry, None, environment) not in (None, credential):
                hidden_by = hidden_by or earlier
    return Stored(path, helper, hidden_by)


async def erase_login(registry: str, environment: Mapping[str, str]) -> Erased:
    """Take a login away from where `store_login` puts it.

    Raises `CredentialsError`; where only a helper failed the file has none any more.
    """
    path = docker_file(environment)
    server = server_name(registry)
    _, file = await run_blocking(_read, path)
    was_there = file.entry_for(registry, None) is not None
    # A password in plain text goes first, whatever becomes of a helper.
    if path.exists():
        await asyncio.to_thread(_change, path, registry, server, None)
    if (helper := file.helper_for(registry)) is not None:
        try:
            was_there = await erase_with_helper(helper, server, environment) or was_there
        except CredentialsError as error:
            what = "the login that was in" if was_there else "there is none in"
            gone = " is gone" if was_there else ""
            raise CredentialsError(
                f"{error.message}; {what} {path}{gone}", hint=error.hint
            ) from error
    still_in = []
    for other in auth_paths(environment):
        with suppress(CredentialsError):
            if await search_file(other, registry, None, environment) is not None:
                still_in.append(other)
    return Erased(path, was_there, tuple(still_in))


def _entry(credential: Password | IdentityToken) -> dict[str, str]:
    if isinstance(credential, IdentityToken):
        return {"identitytoken": credential.secret}
    pair = f"{credential.username}:{credential.secret}".encode()
    return {"auth": base64.b64encode(pair).decode()}


def _read(path: Path) -> tuple[dict[str, Any], AuthFile]:
    """Return a file as it is and what it means; an empty one where there is none. Blocks."""
    try:
        content, _ = read_whole(path, max_bytes=MAX_AUTH_FILE_BYTES)
    except FileNotFoundError:
        return {}, AuthFile(path, {}, {}, None)
    except OSError as error:
        raise CredentialsError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise CredentialsError(f"{path} {error}") from error
    # What cannot be understood is not written over.
    file = parse_auth_file(content, path)
    try:
        return dict(read_object(content, max_bytes=MAX_AUTH_FILE_BYTES)), file
    except InvalidJsonError as error:
        raise malformed(path, str(error)) from None


def _change(path: Path, registry: str, server: str, entry: Mapping[str, str] | None) -> None:
    """Replace or remove the entry of a registry, and nothing else. Blocks."""
    # The file may be a link into a directory of such files: that stays one.
    path = Path(os.path.realpath(path))
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(path.parent):
            document, _ = _read(path)
            # One registry may stand there by several names: all of them are its.
            others = {
                key: value
                for key, value in dict(document.get("auths") or {}).items()
                if entry_key(key) != entry_key(registry)
            }
            document["auths"] = others if entry is None else {**others, server: dict(entry)}
            _replace(path, json.dumps(document, indent="\t").encode() + b"\n")
    except OSError as error:
        raise CredentialsError(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keep other logins of kitctl from changing files here at the same time."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline_s = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise CredentialsError(
                        f"somebody else changes the files in {directory}", hint="try again"
                    ) from None
                time.sleep(_TURN_S)
        yield
    finally:
        os.close(handle)


def _replace(path: Path, content: bytes) -> None:
    """Let a file of ours, which nobody else may read, take the place of another."""
    owner = os.stat(path if path.exists() else path.parent)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            if os.geteuid() == 0 and owner.st_uid != 0:
                # Root in somebody's home: it stays his.
                os.fchown(handle, owner.st_uid, owner.st_gid)
            file.write(content)
            file.flush()
            os.fsync(handle)
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
