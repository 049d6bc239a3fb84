"""What is looked at beside scrapes."""

import os
from pathlib import Path

from kitd.clock import SystemClock
from kitd.metrics.sight import Sources, sights_of


async def test_a_disk_that_is_gone_keeps_no_look_at_another(tmp_path):
    async def nothing(*_):
        """Nobody asks for it."""

    ledger = tmp_path / "ledger.sqlite3"
    ledger.write_bytes(bytes(700))
    sources = Sources(
        projects=nothing,
        reasons=nothing,
        places={"state": tmp_path, "cache": Path(tmp_path / "gone")},
        ledger=ledger,
        reserve=tmp_path / "reserve",
        store=None,
        evictable_bytes=nothing,
        mirrors=nothing,
    )
    sights = sights_of(sources, SystemClock())
    for look in (*sights.disks.values(), sights.files):
        await look.once()

    disk = os.statvfs(tmp_path)
    assert sights.disks["state"].seen.size_bytes == disk.f_blocks * disk.f_frsize
    assert sights.disks["cache"].seen is None
    assert (sights.files.seen.ledger_bytes, sights.files.seen.reserve_bytes) == (700, 0)
    names = [look.name for look in sights.all]
    assert len(set(names)) == len(names)
