"""Ledgers that cannot be used as they are: said in words, and mended as docs/recovery.md says."""

import contextlib
import json
import sqlite3
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from damage import break_table
from kitd.ledger.schema import APPLICATION_ID, migrations

DOCS = Path(__file__).parents[2] / "docs"
LEDGER = ("ledger.sqlite3", "ledger.sqlite3-wal", "ledger.sqlite3-shm")


def last_words(daemon, code):
    """Start a daemon that cannot, and return what it says."""
    daemon.start(ready=False)
    assert daemon.process.wait(timeout=20) == code, daemon.log.read_text()
    assert "Traceback" not in daemon.log.read_text()
    said = json.loads(daemon.log.read_text().splitlines()[-1])
    assert said["event"] == "daemon.failed"
    return f"{said['error']} ({said['hint']})"


def damage(state):
    """Overwrite most of the ledger, as a disk that forgets would."""
    path = state / "ledger.sqlite3"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * (size - 8192))


@pytest.fixture
def backed_up(kitd, watched, project):
    """A daemon that packed something, a backup of its ledger, and the daemon was killed."""
    daemon = kitd(watched("localhost:1/team/demo", push=False)).start()
    daemon.quiet()
    state = daemon.place / "state"
    with closing(sqlite3.connect(f"file:{state}/ledger.sqlite3?mode=ro", uri=True)) as ledger:
        ledger.execute("VACUUM INTO ?", (str(state / "backup"),))
    assert daemon.stop() == 0
    daemon.start().kill()
    return daemon


def test_a_damaged_ledger_is_refused_and_a_backup_takes_its_place(backed_up):
    state = backed_up.place / "state"
    for name in LEDGER[1:]:
        (state / name).unlink(missing_ok=True)
    damage(state)
    said = last_words(backed_up, 74)
    assert "is damaged" in said
    assert "docs/recovery.md" in said

    for name in LEDGER:
        (state / name).unlink(missing_ok=True)
    (state / "backup").rename(state / "ledger.sqlite3")
    backed_up.start()
    assert len(backed_up.json("list")) == 1
    assert backed_up.kitctl("doctor", "--audit").code == 0


def test_damage_that_a_scrape_meets_ends_kitd(kitd, free_address):
    """Nothing was written that would have met it, and the life before ended in good order."""
    daemon = kitd({"metrics": {"listen": free_address}}).start()
    assert daemon.stop() == 0
    path = daemon.place / "state" / "ledger.sqlite3"
    break_table(path, "tallies")
    daemon.start()
    with contextlib.suppress(OSError):
        urllib.request.urlopen(f"http://{free_address}/metrics", timeout=10).close()
    assert daemon.process.wait(timeout=20) == 74
    said = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    assert {"metrics.ledger_not_read", "daemon.failed"} <= {line["event"] for line in said}
    assert said[-1]["code"] == "ledger_damaged"
    assert "is damaged" in last_words(daemon, 74)


def test_without_any_backup_a_daemon_begins_anew(backed_up):
    """The cache and the projects are there; what was packed is packed again."""
    state = backed_up.place / "state"
    for name in LEDGER:
        (state / name).unlink(missing_ok=True)
    backed_up.start()
    backed_up.quiet()
    assert len(backed_up.json("list")) == 1
    assert backed_up.kitctl("doctor", "--audit").code == 0


def test_a_newer_ledger_is_refused_and_left_alone(backed_up):
    path = backed_up.place / "state" / "ledger.sqlite3"
    with closing(sqlite3.connect(path)) as ledger:
        ledger.execute(f"PRAGMA user_version = {len(migrations()) + 1}")
    before = path.read_bytes()
    said = last_words(backed_up, 75)
    assert f"has schema {len(migrations()) + 1}" in said
    assert path.read_bytes() == before


def test_an_upgrade_says_where_the_backup_is(kitd):
    daemon = kitd()
    state = daemon.place / "state"
    state.mkdir(mode=0o700)
    with closing(sqlite3.connect(state / "ledger.sqlite3")) as ledger:
        ledger.executescript(migrations()[0])
        ledger.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        ledger.execute("PRAGMA user_version = 1")
    daemon.start()
    lines = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    (upgrade,) = [line for line in lines if line.get("event") == "ledger.upgraded"]
    assert Path(upgrade["backup"]).exists()
    assert Path(upgrade["backup"]).name in (DOCS / "recovery.md").read_text().replace("N", "1")
