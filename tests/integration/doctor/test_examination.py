"""The examination as a whole: whatever is wrong with a check, the others are made."""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace

from kitd.config.model import RegistryConfig
from kitd.doctor import registry
from kitd.doctor.examination import STEPS, Doctor
from kitd.errors import UnavailableError


async def wrong(patient, *, audit=False):
    checks = await Doctor(patient).examine(audit=audit)
    assert all((check.fix is None) is check.ok for check in checks)
    assert len(checks) >= len(STEPS)
    return {check.name: check for check in checks if not check.ok}


async def test_who_is_well_passes_everything(patient):
    assert await wrong(patient, audit=True) == {}


async def test_a_check_that_cannot_be_made_is_not_passed(but, patient, tmp_path):
    config = replace(patient.config(), state_dir=tmp_path / "nowhere")
    found = await wrong(but(config=lambda: config))
    assert {"state directory", "cache directory"} <= set(found)
    assert "nowhere" in found["state directory"].detail


async def test_registries_are_asked_together_and_not_for_ever(but, patient):
    names = [f"r{number}.example" for number in range(registry.MAX_REGISTRIES + 5)]
    asked = []

    async def ping(host):
        asked.append(host)
        if host == names[1]:
            raise UnavailableError(f"{host} is away", hint="wait for it")
        if host == names[2]:
            await asyncio.Event().wait()
        return

    config = replace(patient.config(), registries=dict.fromkeys(names, RegistryConfig()))
    async with asyncio.timeout(registry.PING_S + 10):
        found = await wrong(but(config=lambda: config, ping=ping))
    assert asked == names[: registry.MAX_REGISTRIES]
    assert set(found) == {f"registry {names[1]}", f"registry {names[2]}"}
    assert found[f"registry {names[1]}"].fix == "wait for it"
    assert "within 5 s" in found[f"registry {names[2]}"].detail


async def test_a_clock_that_was_never_set(patient, clock):
    clock.ahead_s = -clock.now_us() / 1_000_000
    assert (await wrong(patient))["clock"].detail == "the clock was never set"


async def test_a_date_that_is_none_is_not_believed(but, patient):
    async def ping(_host):
        return "yesterday, or so"

    config = replace(patient.config(), registries={"r.example": RegistryConfig()})
    assert await wrong(but(config=lambda: config, ping=ping)) == {}


async def test_a_damaged_ledger_is_found_while_it_is_in_use(but, database, tmp_path):
    await database.write(
        lambda c: c.execute("INSERT INTO packed VALUES ('large', zeroblob(900000), 0)").rowcount
    )
    copy = tmp_path / "copy.sqlite3"
    with closing(sqlite3.connect(database.path)) as ledger:
        ledger.execute("VACUUM INTO ?", (str(copy),))
    assert await wrong(but(ledger=copy)) == {}
    with copy.open("r+b") as file:
        file.seek(copy.stat().st_size - 20 * 4096)
        file.write(b"\xff" * 4096)
    found = await wrong(but(ledger=copy))
    assert "is damaged" in found["ledger"].detail
    assert "recovery" in found["ledger"].fix
