"""kill -9 at any moment loses nothing."""

import hashlib
import json
import random
import sqlite3
import time

import pytest

KILLS = 12


@pytest.mark.timeout(300)
def test_kill_9_at_random_moments_loses_nothing(
    kitd, watched, project, docker_registry, skopeo, tmp_path, eventually
):
    """Saves and kills in turn: every tag ends up complete and the last kit is the last tree."""
    draw = random.Random(20261120)
    name = f"{docker_registry.host}/team/demo"
    daemon = kitd(watched(name, tags=["latest", "{digest:12}"], settle={"quiet": "100ms"}))
    acknowledged = []
    for number in range(KILLS):
        daemon.start()
        (project / "data" / "a.csv").write_text(f"version {number}\n")
        answer = daemon.kitctl("pack", project, "-t", f"by-hand:{number}", "--detach")
        if answer.code == 0:
            acknowledged.append(int(answer.out))
        time.sleep(draw.uniform(0, 1.0))
        daemon.kill()
    daemon.start()
    packed = daemon.quiet()
    for job in acknowledged:
        if daemon.kitctl("jobs", "wait", job).code != 0:
            # Three deaths while it ran set it aside, which is not lost.
            assert daemon.json("jobs", "show", job)["error"]["code"] == "poison"
            daemon.json("jobs", "retry", job)
            assert daemon.kitctl("jobs", "wait", job).code == 0

    # The last kit is the tree as it is.
    target = tmp_path / "target"
    assert daemon.kitctl("unpack", f"{name}:latest", "-d", target).code == 0
    assert (target / "data" / "a.csv").read_text() == f"version {KILLS - 1}\n"
    assert packed["last_digest"] == daemon.json("inspect", f"{name}:latest")["digest"]
    # Every tag in the registry is complete: skopeo copies all of each.
    listed = json.loads(skopeo("list-tags", "--tls-verify=false", f"docker://{name}"))["Tags"]
    for tag in listed:
        source = f"docker://{name}:{tag}"
        skopeo("copy", "--src-tls-verify=false", source, f"dir:{tmp_path / tag}")
    assert daemon.stop() == 0
    # Every blob has the content of its name, nothing half written is left, the ledger is sound.
    for blob in (daemon.cache / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    assert list((daemon.cache / "ingest").iterdir()) == []
    with sqlite3.connect(daemon.place / "state" / "ledger.sqlite3") as ledger:
        assert ledger.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        running = "SELECT count(*) FROM jobs WHERE state = 'running'"
        assert ledger.execute(running).fetchone() == (0,)
    ledger.close()
