"""The files of secrets: there, readable for kitd and for nobody else. Their content is not read."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

from kitd.config.model import Config, PasswordFile, TokenFile
from kitd.doctor.check import sound, wrong
from kitd.doctor.patient import Patient
from kitd.registry.credentials import auth_paths
from kitd.rpc.methods.wire import WireCheck

NAME = "credentials"


async def credentials(patient: Patient) -> AsyncIterator[WireCheck]:
    """Look at the files of secrets that the configuration names, and at those of logins."""
    for check in await asyncio.to_thread(_look, patient.config(), patient.environ):
        yield check


def _look(config: Config, environ: Mapping[str, str]) -> list[WireCheck]:
    named = list(_named(config))
    logins = [path for path in auth_paths(environ) if path.exists()]
    faults = [
        *(fault for path in named for fault in _faults(path)),
        *(fault for path in logins for fault in _faults(path)),
    ]
    count = len(named) + len(logins)
    text = f"{count} files of secrets, readable for kitd only" if count else "none are used"
    return faults or [sound(NAME, text)]


def _named(config: Config) -> Iterator[Path]:
    for registry in config.registries.values():
        match registry.credentials:
            case PasswordFile(password_file=path) | TokenFile(token_file=path):
                yield path
            case _:
                pass
        if registry.client_key is not None:
            yield registry.client_key
    for endpoint in config.notifications.values():
        yield from filter(None, (endpoint.url_file, endpoint.secret_file))
    if config.webhooks.listen is not None:
        for source in config.webhooks.sources.values():
            yield source.secret_file


def _faults(path: Path) -> Iterator[WireCheck]:
    try:
        status = path.stat()
    except OSError as error:
        yield wrong(NAME, f"{path}: {error.strerror}", "make the file, or mend the configuration")
        return
    if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        yield wrong(NAME, f"{path} cannot be read by kitd", f"chown {os.geteuid()} {path}")
    if stat.S_IMODE(status.st_mode) & (stat.S_IROTH | stat.S_IWOTH):
        yield wrong(NAME, f"{path} can be read by everybody", f"chmod o-rwx {path}")
