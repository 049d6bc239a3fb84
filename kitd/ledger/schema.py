"""Opening the ledger's file: whose it is, whether it is sound, and bringing it to today's schema.

Before the first migration of a ledger that has one already, a copy of it is made beside it,
`<ledger>.schema-<N>.backup`, whole, on the disk, and readable by any SQLite. Each migration is one
transaction, so that a crash leaves the schema before or the schema after.
"""

import errno
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from kitd.errors import DurabilityError
from kitd.ledger.failure import (
    FREE_SPACE,
    RESTORE,
    LedgerDamagedError,
    LedgerError,
    LedgerFullError,
    LedgerVersionError,
    ledger_errors,
)

APPLICATION_ID = 0x6B697464
"""`kitd` in ASCII, in the header of the file."""
SQLITE_VERSION = sqlite3.sqlite_version
MAX_BACKUPS = 3
CHECK_S = 5.0
"""How long the look at a ledger may take that was not closed in good order."""
ROOM_BYTES = 4 << 20
"""What has to stay free beside a backup: the migration writes as well."""

_CHECK_STEP = 10_000
"""Virtual machine instructions between two looks at the clock: under a millisecond."""
_PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    # For the person who has `sqlite3` open on the file; kitd itself never competes.
    "busy_timeout = 5000",
    "journal_size_limit = 67108864",
    "trusted_schema = OFF",
    "cell_size_check = ON",
    "temp_store = MEMORY",
)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A ledger that came from an earlier schema, and the copy of it as it was."""

    from_version: int
    to_version: int
    backup: Path


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a ledger is like; `damage` is empty for none, None where there was no time to look."""

    version: int
    size_bytes: int
    damage: str | None


@dataclass(frozen=True, slots=True)
class Opened:
    """The connection that may write, and what had to be done before it may."""

    connection: sqlite3.Connection
    upgrade: Upgrade | None


def has_sound_wal() -> bool:
    """Whether this SQLite is free of the corruption that two writers of a WAL could cause."""
    return sqlite3.sqlite_version_info >= (3, 51, 3)


def migrations() -> tuple[str, ...]:
    """Return the migration scripts in order; the n-th leads to schema version n."""
    folder = resources.files("kitd.ledger").joinpath("migrations")
    scripts = sorted(
        (entry for entry in folder.iterdir() if entry.name.endswith(".sql")),
        key=lambda entry: entry.name,
    )
    return tuple(script.read_text(encoding="utf-8") for script in scripts)


def open_ledger(path: Path) -> Opened:
    """Open, check and migrate the file.

    Nobody else may read it from then on, whatever mode a backup had that was put in its place.
    Raises `LedgerError` and what derives from it, `LedgerVersionError`, `DurabilityError`. A file
    that is refused is left as it was.
    """
    with ledger_errors(path):
        # Created with our own mode: SQLite gives its -wal and -shm files the same.
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise _unusable(f"cannot open the ledger {path}", error) from error
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        try:
            upgrade = _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    return Opened(connection, upgrade)


def inspect_ledger(path: Path, *, within_s: float) -> Inspection:
    """Look at a ledger that may be in use, for at most so long. Blocks.

    Raises `LedgerError` and what derives from it.
    """
    with (
        ledger_errors(path),
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection,
    ):
        return Inspection(
            version=_pragma(connection, "user_version"),
            size_bytes=_pragma(connection, "page_count") * _pragma(connection, "page_size"),
            damage=_damage(connection, within_s),
        )


def wal_bytes(path: Path) -> int:
    """Return the size of a ledger's write-ahead log."""
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size
    except OSError:
        return 0


def _prepare(connection: sqlite3.Connection, path: Path) -> Upgrade | None:
    # Whose file it is comes first: one that is refused is not touched.
    version = _pragma(connection, "user_version")
    application = _pragma(connection, "application_id")
    fresh = version == 0 and _pragma(connection, "schema_version") == 0
    if not fresh and application != APPLICATION_ID:
        raise LedgerVersionError(f"{path} is not a ledger of kitd", hint="choose another state_dir")
    scripts = migrations()
    if version > len(scripts):
        raise _newer(path, version, len(scripts))
    if version > 0:
        _check(connection, path)
    _make_private(path)
    upgrade = None
    if 0 < version < len(scripts):
        upgrade = Upgrade(version, len(scripts), _back_up(connection, path, version))
    if fresh:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    for number, script in enumerate(scripts[version:], start=version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{script}\n"
            f"PRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {number};\nCOMMIT;"
        )
    return upgrade


def _make_private(path: Path) -> None:
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        # By its name: closing a descriptor of the file would let go of SQLite's locks. A file of
        # another owner is not ours to change.
        with suppress(FileNotFoundError, PermissionError):
            path.with_name(name).chmod(0o600)


def _newer(path: Path, version: int, known: int) -> LedgerVersionError:
    backups = [found for number, found in _backups(path) if number <= known]
    restore = f"restore {backups[-1]}" if backups else "restore a backup"
    return LedgerVersionError(
        f"{path} has schema {version}, this kitd knows up to {known}",
        hint=f"start the newer kitd that wrote it, or {restore}: docs/recovery.md",
    )


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Look for damage where the last life was cut short. Raises `LedgerDamagedError`.

    A ledger that takes longer than `CHECK_S` is believed: `kitctl doctor` takes more time.
    """
    last = connection.execute("SELECT stopped_us FROM epochs ORDER BY epoch DESC LIMIT 1")
    row = last.fetchone()
    if row is None or row["stopped_us"] is not None:
        return
    damage = _damage(connection, CHECK_S)
    if damage:
        raise LedgerDamagedError(f"the ledger {path} is damaged: {damage}", hint=RESTORE)


def _damage(connection: sqlite3.Connection, within_s: float) -> str | None:
    """Return the first damage that is found, empty for none; None where time ran out."""
    deadline_s = time.monotonic() + within_s
    connection.set_progress_handler(lambda: time.monotonic() > deadline_s, _CHECK_STEP)
    try:
        found: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return None
        raise
    finally:
        connection.set_progress_handler(None, 0)
    return "" if found == "ok" else found


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    row = connection.execute(f"PRAGMA {name}").fetchone()
    value: int = row[0]
    return value


def _back_up(connection: sqlite3.Connection, path: Path, version: int) -> Path:
    """Copy the ledger as it is and return the copy, which is durable, and the newest of three.

    Raises `LedgerFullError` before anything is written if there is no room for it.
    """
    backup = path.with_name(f"{path.name}.schema-{version}.backup")
    unfinished = backup.with_name(f"{backup.name}.unfinished")
    with _backup_errors(path, unfinished):
        unfinished.unlink(missing_ok=True)
        size_bytes = _pragma(connection, "page_count") * _pragma(connection, "page_size")
        free_bytes = shutil.disk_usage(path.parent).free
        if free_bytes < size_bytes + ROOM_BYTES:
            raise LedgerFullError(
                f"the ledger {path} cannot be backed up before its upgrade: it has"
                f" {size_bytes} bytes, the disk {free_bytes}",
                hint=FREE_SPACE,
            )
        # Made first because SQLite would let everybody read it.
        os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        connection.execute("VACUUM INTO ?", (str(unfinished),))
        _sync(unfinished)
        unfinished.rename(backup)
        _sync(path.parent)
        for _, older in _backups(path)[:-MAX_BACKUPS]:
            older.unlink(missing_ok=True)
    return backup


@contextmanager
def _backup_errors(path: Path, unfinished: Path) -> Iterator[None]:
    """Leave no half of a backup behind, and say what the trouble was with."""
    try:
        yield
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise _unusable(f"the ledger {path} cannot be backed up before its upgrade", error) from (
            error
        )
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _backups(path: Path) -> list[tuple[int, Path]]:
    """Return the backups beside a ledger with their schemas, oldest first."""
    name = re.compile(re.escape(path.name) + r"\.schema-([0-9]{1,9})\.backup")
    return sorted(
        (int(match.group(1)), entry)
        for entry in path.parent.iterdir()
        if (match := name.fullmatch(entry.name)) is not None
    )


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        raise DurabilityError(
            f"{path} could not be synced: {error.strerror}",
            hint="look for disk errors in the kernel's log",
        ) from error
    finally:
        os.close(handle)


def _unusable(what: str, error: OSError) -> LedgerError:
    message = f"{what}: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LedgerFullError(message, hint=FREE_SPACE)
    return LedgerError(message)
