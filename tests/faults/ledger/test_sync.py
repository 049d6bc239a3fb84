"""A sync that fails: nothing is answered as durable any more, and the next start finds out."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from kitd.ledger.database import Database

WRITING_LIFE = Path(__file__).with_name("writing_life.py")


def lines_of_a_life(strace: str, ledger: Path, inject: str) -> list[str]:
    """Let a life write while a system call fails, and return what it said."""
    done = subprocess.run(
        [
            strace,
            "-f",
            "-qq",
            "-o",
            os.devnull,
            "-e",
            f"trace={inject.partition(':')[0]}",
            "-e",
            f"inject={inject}",
            sys.executable,
            WRITING_LIFE,
            ledger,
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stdout.splitlines()


@pytest.fixture
async def ledger(tmp_path: Path) -> Path:
    """A ledger that exists, so that a life has nothing to do but write."""
    path = tmp_path / "ledger.sqlite3"
    async with Database(path):
        return path


@pytest.mark.parametrize("nth", [9, 17])
def test_a_failed_sync_ends_all_writing(strace: str, ledger: Path, nth: int) -> None:
    """All who wait are told, all who come are refused, and what was answered is there."""
    said = lines_of_a_life(strace, ledger, f"fdatasync:error=EIO:when={nth}")
    written = [line.removeprefix("written ") for line in said if line.startswith("written ")]
    refused = [line for line in said if line.startswith("refused ")]
    assert len(written) > 0
    assert refused == ["refused fsync_failed fatal"] * len(refused)
    assert len(refused) > 3
    assert "guard fsync_failed" in said
    # The first refusal is the last word: no write succeeds on the same descriptors.
    assert said.index(refused[0]) > max(said.index(f"written {key}") for key in written)
    with closing(sqlite3.connect(ledger)) as connection:
        kept = {key for (key,) in connection.execute("SELECT key FROM meta")}
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert set(written) <= kept


@pytest.mark.parametrize(("error", "code"), [("EIO", "ledger_io"), ("ENOSPC", "ledger_full")])
def test_a_failed_write_costs_what_was_not_answered(
    strace: str, ledger: Path, error: str, code: str
) -> None:
    """The transaction is undone, and the next one is written."""
    said = lines_of_a_life(strace, ledger, f"pwrite64:error={error}:when=20")
    written = [line.removeprefix("written ") for line in said if line.startswith("written ")]
    refused = [line for line in said if line.startswith("refused ")]
    assert len(refused) == 1
    assert refused[0].startswith(f"refused {code} ")
    assert said.index(refused[0]) < said.index(f"written {written[-1]}")
    with closing(sqlite3.connect(ledger)) as connection:
        kept = {key for (key,) in connection.execute("SELECT key FROM meta")}
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert kept == set(written)
