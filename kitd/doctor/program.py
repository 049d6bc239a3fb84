"""The program itself: its version, what watches over it, and whether it runs what is configured."""

import asyncio
import platform
from collections.abc import AsyncIterator

from kitd import __version__
from kitd.config.diff import compare_configs
from kitd.config.problem import ConfigError
from kitd.doctor.check import sound, wrong
from kitd.doctor.patient import Patient
from kitd.ledger.schema import SQLITE_VERSION, has_sound_wal
from kitd.rpc.methods.wire import WireCheck


async def versions(_patient: Patient) -> AsyncIterator[WireCheck]:
    """Tell what runs."""
    detail = f"kitd {__version__}, Python {platform.python_version()}, SQLite {SQLITE_VERSION}"
    if not has_sound_wal():
        detail += " (before 3.51.3 two writers could damage a ledger; kitd has one)"
    yield sound("versions", detail)


async def service(patient: Patient) -> AsyncIterator[WireCheck]:
    """Look whether kitd would be restarted if it hung."""
    if patient.watchdog_s is None:
        yield sound("service", "no watchdog: whoever started kitd does not restart it if it hangs")
    else:
        yield sound("service", f"the service manager restarts it after {patient.watchdog_s:g} s")


async def configuration(patient: Patient) -> AsyncIterator[WireCheck]:
    """Look whether the configuration file says what kitd runs with."""
    name = "configuration"
    if patient.load is None:
        yield sound(name, "the defaults")
        return
    try:
        # Not waited for beyond what a check may take: the file may be on a disk that hangs.
        loaded = await asyncio.to_thread(patient.load)
    except ConfigError as error:
        yield wrong(name, "; ".join(error.lines[:3]), "mend it: kitd check-config")
        return
    place = "the defaults" if loaded.path is None else str(loaded.path)
    difference = compare_configs(patient.config(), loaded.config)
    if difference.changed:
        fix = "systemctl restart kitd" if difference.restart else "kitctl reload"
        yield wrong(name, f"{place} is newer than what runs: {', '.join(difference.changed)}", fix)
    elif loaded.warnings:
        yield wrong(name, "; ".join(loaded.warnings), "see there")
    else:
        yield sound(name, place)
