"""The cache over the life of a machine: what goes, what stays and why, and what is mended."""

import json
from pathlib import Path

import pytest

CROWDED = {"cache": {"use_at_most": "0B", "leave_free": "0B", "keep_recent": "0s"}}


def blob(kitd, digest: str) -> Path:
    """Return where a blob is in the cache."""
    return kitd.cache / "blobs" / "sha256" / digest.removeprefix("sha256:")


def damage(path: Path) -> None:
    """Flip a byte."""
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


def tags(kitd) -> set[str]:
    """Return every tag of the cache."""
    return {f"{kit['repo']}:{tag}" for kit in kitd.json("list") for tag in kit["tags"]}


@pytest.fixture
def crowded(kitd):
    """A daemon whose limits have no room for anything."""
    return kitd(CROWDED).start()


def test_what_a_registry_holds_goes_and_the_only_copy_of_a_name_stays(
    crowded, project, docker_registry, tmp_path, eventually
):
    """And what went comes back with a pull, equal to the last byte."""
    away = f"{docker_registry.host}/team/demo:v1"
    packed = crowded.json("pack", project, "-t", away, "--push")
    (project / "model.bin").write_bytes(b"better weights" * 1000)
    crowded.json("pack", project, "-t", "demo:v2")

    plan = crowded.json("cache", "gc", "--dry-run")
    said = {d["name"]: (d["action"], d["why"]) for d in plan["decisions"] if d["kind"] == "kit"}
    assert said[away][0] == "remove"
    assert said["demo:v2"] == ("keep", "demo:v2 is in no registry that kitd knows of")
    shared = packed["layers"][1]["digest"]
    blobs = {d["digest"]: (d["action"], d["why"]) for d in plan["decisions"] if d["kind"] == "blob"}
    assert blobs[shared] == ("keep", "part of demo:v2")
    assert blobs[packed["layers"][0]["digest"]] == ("remove", f"only part of {away}")
    assert tags(crowded) == {away, "demo:v2"}

    collected = crowded.json("cache", "gc")
    assert (collected["kits"], collected["freed_bytes"]) == ([away], plan["freed_bytes"])
    # What is just on its way in counts as well, such as a new index.json.
    assert abs(collected["over_bytes"] - plan["over_bytes"]) < 4096
    assert plan["over_bytes"] > 0
    assert tags(crowded) == {"demo:v2"}
    assert not blob(crowded, packed["layers"][0]["digest"]).exists()
    assert blob(crowded, shared).exists()
    index = crowded.cache / "index.json"
    eventually("the layout to forget it", lambda: f'"{away}"' not in index.read_text())

    assert crowded.json("pull", away)["digest"] == packed["digest"]
    crowded.json("unpack", away, "-d", tmp_path / "out")
    assert (tmp_path / "out" / "model.bin").read_bytes() == bytes(range(256)) * 400


def test_a_pin_keeps_a_kit_until_it_is_taken_back(crowded, project, docker_registry):
    reference = f"{docker_registry.host}/team/demo:v1"
    crowded.json("pack", project, "-t", reference, "--push")
    assert crowded.json("cache", "pin", reference)["reference"] == reference
    assert crowded.json("cache", "gc")["kits"] == []
    (kit, *_) = crowded.json("cache", "gc", "--dry-run")["decisions"]
    assert (kit["action"], kit["why"]) == ("keep", f"pinned as {reference}")
    reasons = crowded.json("why", kit["digest"])["reasons"]
    # Tables show so much of it.
    short = kit["digest"].removeprefix("sha256:")[:12]
    assert crowded.json("why", short)["reasons"] == reasons
    for nothing in ("0" * 12, "9" * 30, short[:11], short.upper() + "x"):
        answer = crowded.kitctl("--json", "why", nothing)
        assert (answer.code, answer.json["error"]["code"]) == (1, "not_found")
    told = f"a collection would keep it: pinned as {reference}"
    assert told in [reason["text"] for reason in reasons]
    crowded.json("cache", "unpin", reference)
    assert crowded.kitctl("cache", "unpin", reference).code == 1
    assert crowded.json("cache", "gc")["kits"] == [reference]
    assert crowded.stop() == 0
    assert list((crowded.cache / "blobs" / "sha256").iterdir()) == []
    assert json.loads((crowded.cache / "index.json").read_text())["manifests"] == []


def test_a_registry_that_is_away_proves_nothing(crowded, project, start_docker_registry):
    registry = start_docker_registry()
    reference = f"{registry.host}/team/demo:v1"
    crowded.json("pack", project, "-t", reference, "--push")
    (registry.root / "docker").rename(registry.root / "gone")
    collected = crowded.json("cache", "gc")
    assert collected["kits"] == []
    assert "push those that are only here" in collected["advice"]
    assert tags(crowded) == {reference}
    # It said so itself, and is not asked again.
    (kit, *_) = crowded.json("cache", "gc", "--dry-run")["decisions"]
    assert kit["why"] == f"{reference} is in no registry that kitd knows of"


def test_kitds_own_registry_is_no_proof(kitd, project, free_address):
    """It answers from the very cache: believing it would lose the only copy."""
    daemon = kitd({**CROWDED, "registry": {"listen": free_address, "writable": True}}).start()
    daemon.json("pack", project, "-t", "demo:v1")
    daemon.json("push", "demo:v1", f"{free_address}/copy:v1")
    assert daemon.json("cache", "gc")["kits"] == []
    assert tags(daemon) == {"demo:v1", "copy:v1"}


def test_the_last_kit_of_a_project_stays_and_the_ones_before_it_go(
    kitd, watched, project, docker_registry, eventually
):
    daemon = kitd({**CROWDED, **watched(f"{docker_registry.host}/team/demo")}).start()
    first = daemon.quiet()["last_digest"]
    (project / "model.bin").write_bytes(b"better weights")
    eventually("a second kit", lambda: daemon.quiet()["last_digest"] != first)
    second = daemon.quiet()["last_digest"]
    collected = daemon.json("cache", "gc")
    assert [first in name for name in collected["kits"]] == [True]
    assert [kit["digest"] for kit in daemon.json("list")] == [second]
    reasons = {d["digest"]: d["why"] for d in daemon.json("cache", "gc", "--dry-run")["decisions"]}
    assert reasons[second] == "the last kit of project demo"


def test_damage_is_found_put_aside_and_mended_from_a_registry(
    kitd, project, docker_registry, tmp_path
):
    daemon = kitd().start()
    reference = f"{docker_registry.host}/team/demo:v1"
    packed = daemon.json("pack", project, "-t", reference, "--push")
    assert daemon.kitctl("cache", "verify").code == 0
    bad, lost = packed["layers"][0]["digest"], packed["config"]["digest"]
    damage(blob(daemon, bad))
    blob(daemon, lost).unlink()

    found = daemon.kitctl("--json", "cache", "verify")
    assert found.code == 1
    assert {d["digest"]: (d["why"], d["kits"]) for d in found.json["damaged"]} == {
        bad: ("has other content", [reference]),
        lost: ("is missing", [reference]),
    }
    assert set(found.json["unrepaired"]) == {bad, lost}
    assert not blob(daemon, bad).exists()
    aside = {path.name: path.stat().st_size for path in (daemon.cache / "quarantine").iterdir()}
    assert sorted(size > 0 for size in aside.values()) == [False, True]

    mended = daemon.json("cache", "verify", "--repair")
    assert (set(mended["repaired"]), mended["unrepaired"]) == ({bad, lost}, [])
    assert list((daemon.cache / "quarantine").iterdir()) == []
    daemon.json("unpack", reference, "-d", tmp_path / "out")
    assert (tmp_path / "out" / "model.bin").read_bytes() == (project / "model.bin").read_bytes()
    kinds = [event["type"] for event in daemon_events(daemon)]
    assert ("blob.quarantined" in kinds, "blob.missing" in kinds) == (True, True)


def test_damage_that_no_registry_can_mend_is_mended_by_the_next_pack(kitd, project):
    daemon = kitd().start()
    packed = daemon.json("pack", project, "-t", "demo:v1")
    digest = packed["layers"][0]["digest"]
    damage(blob(daemon, digest))
    answer = daemon.kitctl("cache", "verify", "--repair")
    assert answer.code == 1
    assert "needed by demo:v1" in answer.out
    assert daemon.json("pack", project, "-t", "demo:v1")["digest"] == packed["digest"]
    assert daemon.kitctl("cache", "verify").code == 0


def daemon_events(daemon):
    """Return everything that happened."""
    return [json.loads(line) for line in daemon.kitctl("--json", "events").out.splitlines()]
