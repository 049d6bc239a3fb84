"""The `kitd` command: the daemon in the foreground, and the check of its configuration.

Exit codes follow sysexits.h: 78 for a configuration that is wrong, 70 for a defect, 74 for a disk
that failed to keep what it was given, 75 for circumstances that may pass, such as another kitd in
the same state directory or a part that had to be killed.
"""

import argparse
import asyncio
import contextlib
import os
import platform
import resource
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from kitd import __version__
from kitd.config.load import Loaded, load_config
from kitd.config.model import LogConfig
from kitd.config.places import Places, find_places
from kitd.config.problem import ConfigError
from kitd.daemon.first_process import run_behind_first
from kitd.daemon.guardian import Guardian
from kitd.daemon.log import is_for_people, open_logs
from kitd.daemon.log_writer import STDERR
from kitd.daemon.notify import ServiceManager, take_service_manager
from kitd.daemon.serve import Controls, serve
from kitd.errors import Disposition, KitdError, printable

log = structlog.get_logger("kitd")

_SWITCH_S = 0.0005
"""How long a thread keeps the interpreter when another one waits for it. The loop gives it up with
every system call; at CPython's 5 ms a thread that parses would hold it up each time."""

EX_SOFTWARE, EX_IOERR, EX_TEMPFAIL, EX_CONFIG = 70, 74, 75, 78


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="kitd", description="Watch AI/ML projects, pack them as ModelKits, push them."
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show versions")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serving = commands.add_parser("serve", help="run the daemon in the foreground")
    serving.add_argument("--config", type=Path, metavar="FILE", help="the configuration file")
    serving.add_argument("--socket", type=Path, metavar="PATH", help="where clients connect")
    checking = commands.add_parser("check-config", help="check a configuration and exit")
    checking.add_argument("file", type=Path, nargs="?", metavar="FILE")
    commands.add_parser("version", help="show versions")
    options = parser.parse_args(arguments)
    match options.command:
        case "serve":
            return _serve(options.config, options.socket)
        case "check-config":
            return _check(options.file)
        case _:
            print(_version())
            return 0


class _ShowVersion(argparse.Action):
    """Prints what `kitd version` prints. argparse's own would want it at each start."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(_version())
        parser.exit()


def _version() -> str:
    return f"kitd {__version__} (Python {platform.python_version()}, {platform.platform()})"


def _say(line: str) -> None:
    # A standard error that takes nothing must not hide the exit code. What `sys.stderr` could not
    # write it would try to write again at the end, and fail.
    with contextlib.suppress(OSError):
        os.write(STDERR, f"{line}\n".encode("utf-8", "backslashreplace"))


def _places(config: Path | None, socket: Path | None) -> Places:
    return find_places(
        os.environ,
        os.geteuid(),
        config=None if config is None else str(config.absolute()),
        socket=None if socket is None else str(socket.absolute()),
    )


def _load(find: Callable[[], Places]) -> tuple[Places, Loaded] | None:
    """Return the configuration and where it was found, or None after saying what is wrong."""
    try:
        places = find()
        return places, load_config(places)
    except ConfigError as error:
        for line in error.lines:
            _say(line)
    except KitdError as error:
        _say(f"kitd: {error.describe()}")
    return None


def _check(file: Path | None) -> int:
    found = _load(lambda: _places(file, None))
    if found is None:
        return EX_CONFIG
    places, loaded = found
    for warning in loaded.warnings:
        _say(f"warning: {warning}")
    print(f"{loaded.path or f'there is no {places.config.path}: the defaults'}: ok")
    return 0


def _serve(config: Path | None, socket: Path | None) -> int:
    _hold_standard_places()
    _keep_to_ourselves()
    sys.setswitchinterval(_SWITCH_S)
    service = take_service_manager(os.environ, os.getpid())
    found = _load(lambda: _places(config, socket))
    if found is None:
        return EX_CONFIG
    return run_behind_first(partial(_live, *found, service))


def _live(places: Places, loaded: Loaded, service: ServiceManager) -> int:
    with open_logs() as logs:
        logs.configure(loaded.config.log)
        guardian = Guardian(logs.writer)
        life = partial(
            serve,
            loaded.config,
            os.environ,
            started=partial(_steer, guardian),
            service=service,
            logs=logs,
            load=lambda: load_config(places),
        )
        return guardian.run(partial(_run, places, loaded, life))


def _steer(guardian: Guardian, daemon: Controls) -> None:
    guardian.on_stop(daemon.stop)
    guardian.on_reload(daemon.reload)


def _hold_standard_places() -> None:
    """Open what was closed of 0, 1 and 2: else a file of kitd's own might be standard error."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        os.set_inheritable(opened, True)  # noqa: FBT003 - as all programs expect of these
    os.close(opened)


def _keep_to_ourselves() -> None:
    """Make files for our own user only, and no picture of the memory, where secrets are."""
    os.umask(0o077)
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    # One byte and not none: it is less than any core file has, and the only limit that the kernel
    # also respects where cores are piped to a program (core(5)).
    limit = hard if 0 <= hard < 1 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


async def _run(
    places: Places, loaded: Loaded, life: Callable[[], Coroutine[Any, Any, None]]
) -> int:
    for warning in loaded.warnings:
        log.warning("config.warning", warning=warning)
    if loaded.path is None:
        hint = "kitctl projects add NAME PATH -t REFERENCE watches a project"
        log.info("config.none", path=places.config.path, hint=hint)
    try:
        await life()
    except asyncio.CancelledError:
        log.info("daemon.stopped", before="it was ready")
    except Exception as error:
        errors = tuple(_leaves(error))
        known = [each for each in errors if isinstance(each, KitdError)]
        if len(known) < len(errors):
            log.exception("daemon.defect")
            return EX_SOFTWARE
        for each in known:
            _complain(each, loaded.config.log)
        is_fatal = any(each.disposition is Disposition.FATAL for each in known)
        return EX_IOERR if is_fatal else EX_TEMPFAIL
    return 0


def _complain(error: KitdError, config: LogConfig) -> None:
    if is_for_people(config):
        print(f"kitd: {printable(error.describe())}", file=sys.stderr)
    else:
        log.error("daemon.failed", code=error.code, error=error.message, hint=error.hint)


def _leaves(error: Exception) -> Iterator[Exception]:
    if isinstance(error, ExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


if __name__ == "__main__":
    sys.exit(main())
