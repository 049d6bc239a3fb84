"""The `kitd` command: the daemon in the foreground, and the check of its configuration.

Exit codes follow sysexits.h: 78 for a configuration that is wrong, 70 for a defect, 75 for
circumstances that may pass, such as another kitd in the same state directory.
"""

import argparse
import asyncio
import os
import platform
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from kitd import __version__
from kitd.config.load import Loaded, load_config
from kitd.config.places import find_places
from kitd.config.problem import ConfigError
from kitd.daemon.compose import serve
from kitd.daemon.log import configure_logs
from kitd.daemon.notify import inherited_socket, notify, watchdog_interval_s
from kitd.errors import KitdError

EX_SOFTWARE, EX_TEMPFAIL, EX_CONFIG = 70, 75, 78


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="kitd", description="Watch AI/ML projects, pack them as ModelKits, push them."
    )
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
            print(f"kitd {__version__} (Python {platform.python_version()}, {platform.platform()})")
            return 0


def _complain(error: KitdError) -> None:
    print(f"kitd: {error.describe()}", file=sys.stderr)


def _load(config: Path | None, socket: Path | None) -> Loaded | None:
    """Return the configuration, or None after saying what is wrong with it."""
    try:
        places = find_places(
            os.environ,
            os.geteuid(),
            config=None if config is None else str(config.absolute()),
            socket=None if socket is None else str(socket.absolute()),
        )
        return load_config(places)
    except ConfigError as error:
        for line in error.lines:
            print(line, file=sys.stderr)
    except KitdError as error:
        _complain(error)
    return None


def _check(file: Path | None) -> int:
    loaded = _load(file, None)
    if loaded is None:
        return EX_CONFIG
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{loaded.path or 'no configuration file: the defaults'}: ok")
    return 0


def _serve(config: Path | None, socket: Path | None) -> int:
    loaded = _load(config, socket)
    if loaded is None:
        return EX_CONFIG
    configure_logs(loaded.config.log)
    return asyncio.run(_run(loaded))


async def _run(loaded: Loaded) -> int:
    log = structlog.get_logger("kitd")
    for warning in loaded.warnings:
        log.warning("config.warning", warning=warning)
    if loaded.path is None:
        log.info("config.none", hint="kitctl projects add NAME PATH -t REFERENCE watches a project")
    loop = asyncio.get_running_loop()

    def beat(interval_s: float) -> None:
        # A timer of the loop itself: a loop that hangs goes silent.
        notify(os.environ, "WATCHDOG=1")
        loop.call_later(interval_s, beat, interval_s)

    def started(stop_serving: Callable[[], None]) -> None:
        def stop() -> None:
            notify(os.environ, "STOPPING=1")
            stop_serving()
            for number in (signal.SIGTERM, signal.SIGINT):
                # The second one means it: whatever is running is put back at the next start.
                loop.add_signal_handler(number, os._exit, 128 + number)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        # Unhandled it would end the daemon, which is the last thing that whoever sends it wants.
        loop.add_signal_handler(
            signal.SIGHUP, lambda: log.warning("config.not_reloaded", hint="restart kitd")
        )
        notify(os.environ, "READY=1")
        if (interval_s := watchdog_interval_s(os.environ, os.getpid())) is not None:
            beat(interval_s)

    try:
        await serve(
            loaded.config,
            os.environ,
            inherited=inherited_socket(os.environ, os.getpid()),
            started=started,
        )
    except KitdError as error:
        _complain(error)
        return EX_TEMPFAIL
    except Exception:
        log.exception("daemon.defect")
        return EX_SOFTWARE
    return 0


if __name__ == "__main__":
    sys.exit(main())
