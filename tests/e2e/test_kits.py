"""What a person does with kits by hand: pack, push, pull, unpack, look."""

import hashlib
import json
import socket
import time
from pathlib import Path

import pytest

COMPRESSED = {"modelkit": {"compression": "gzip"}}
"""For large files without content: no room is demanded for all that they hold."""


def tree(root: Path) -> dict[str, tuple[int, str]]:
    """Return every file below a directory: its permission bits and the digest of its content."""
    return {
        str(path.relative_to(root)): (
            path.stat().st_mode & 0o777,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_pack_push_pull_unpack_gives_the_project_back(kitd, project, docker_registry, tmp_path):
    """Across two machines' worth of state: every packed file equal, modes included."""
    (project / "data" / "run.sh").write_text("#!/bin/sh\n")
    (project / "data" / "run.sh").chmod(0o755)
    (project / "data" / "empty").mkdir()
    (project / "notes.txt").write_text("in no layer\n")
    reference = f"{docker_registry.host}/team/demo:v1"
    here = kitd().start()
    packed = here.json("pack", project, "-t", f"{reference},stable", "--push")
    there = kitd().start()
    target = tmp_path / "unpacked"
    unpacked = there.json("unpack", f"{docker_registry.host}/team/demo:stable", "-d", target)

    expected = tree(project)
    del expected["notes.txt"]
    found = tree(target)
    # The Kitfile is written anew and says the same.
    assert found.pop("Kitfile")
    assert expected.pop("Kitfile")
    assert found == expected
    assert (target / "data" / "empty").is_dir()
    assert unpacked["digest"] == packed["digest"]
    assert unpacked["files"] == len(found) + 1


def test_unpack_takes_only_what_filters_select(kitd, project, tmp_path):
    """By type, and by type and name."""
    daemon = kitd().start()
    daemon.json("pack", project, "-t", "demo:v1")
    model, reviews = tmp_path / "model", tmp_path / "reviews"
    daemon.json("unpack", "demo:v1", "-f", "model", "-d", model)
    daemon.json("unpack", "demo:v1", "-f", "datasets:reviews", "-d", reviews)

    assert set(tree(model)) == {"model.bin"}
    assert set(tree(reviews)) == {"data/a.csv"}


def test_unpack_leaves_what_is_there_alone(kitd, project, tmp_path):
    """Without -o an existing file stops it before anything is written; with -o it is replaced."""
    daemon = kitd().start()
    daemon.json("pack", project, "-t", "demo:v1")
    target = tmp_path / "target"
    target.mkdir()
    (target / "model.bin").write_text("mine")
    refused = daemon.kitctl("unpack", "demo:v1", "-d", target)

    assert refused.code == 1
    assert "model.bin" in refused.err
    assert set(tree(target)) == {"model.bin"}
    assert (target / "model.bin").read_text() == "mine"

    assert daemon.kitctl("unpack", "demo:v1", "-d", target, "-o").code == 0
    assert (target / "model.bin").read_bytes() == (project / "model.bin").read_bytes()


def test_unpack_refuses_a_damaged_blob_and_writes_nothing(kitd, project, tmp_path):
    """One flipped byte in the cache is named by its digest."""
    daemon = kitd().start()
    packed = daemon.json("pack", project, "-t", "demo:v1")
    digest = packed["layers"][0]["digest"]
    blob = daemon.cache / "blobs" / "sha256" / digest.removeprefix("sha256:")
    blob.chmod(0o600)
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)
    target = tmp_path / "target"
    answer = daemon.kitctl("unpack", "demo:v1", "-d", target)

    assert answer.code == 1
    assert digest in answer.err
    assert not target.exists() or list(target.iterdir()) == []


def test_list_inspect_and_info_tell_the_same_kit(kitd, project):
    """By tag and by digest."""
    daemon = kitd().start()
    packed = daemon.json("pack", project, "-t", "demo:v1")
    (listed,) = daemon.json("list")
    inspected = daemon.json("inspect", f"demo@{packed['digest']}")
    info = daemon.kitctl("info", "demo:v1")

    assert listed["digest"] == inspected["digest"] == packed["digest"]
    assert (listed["repo"], listed["tags"], listed["author"]) == ("demo", ["v1"], "Ada")
    assert listed["modelName"] == "demo"
    assert inspected["kitfile"]["model"]["path"] == "model.bin"
    assert inspected["cliVersion"] == "1.16.0"
    assert "path: model.bin" in info.out


def test_packing_the_same_directory_again_makes_no_second_kit(kitd, project):
    """Another tag for the same kit; every layer was there."""
    daemon = kitd().start()
    first = daemon.json("pack", project, "-t", "demo:v1")
    second = daemon.json("pack", project, "-t", "demo:v2")

    assert second["digest"] == first["digest"]
    assert [layer["reused"] for layer in second["layers"]] == [True, True]
    (listed,) = daemon.json("list")
    assert listed["tags"] == ["v1", "v2"]


def test_the_kit_1_7_dialect_packs_what_kit_packs(kitd, project):
    """Manifest and all, whatever the time: nothing in it depends on when it was made."""
    config = {"modelkit": {"dialect": "kit-1.7", "cli_version": "1.7.0"}}
    digests = set()
    for _ in range(2):
        daemon = kitd(config).start()
        digests.add(daemon.json("pack", project, "-t", "demo:v1")["digest"])
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("compression", "suffix"), [("gzip", "+gzip"), ("gzip-fastest", "+gzip"), ("zstd", "+zstd")]
)
def test_compressed_layers_unpack_to_the_same_files(kitd, project, tmp_path, compression, suffix):
    """The compression of one pack, asked for on the command line."""
    daemon = kitd().start()
    packed = daemon.json("pack", project, "-t", "demo:small", "--compression", compression)
    target = tmp_path / "target"
    daemon.json("unpack", "demo:small", "-d", target)

    assert all(layer["mediaType"].endswith(suffix) for layer in packed["layers"])
    assert tree(target)["model.bin"] == tree(project)["model.bin"]


def test_zstd_by_configuration_crosses_a_registry(kitd, project, docker_registry, skopeo, tmp_path):
    """Packed and pushed by one kitd, copied by skopeo, unpacked by one that has nothing yet."""
    here = kitd({"modelkit": {"compression": "zstd"}}).start()
    here.json("pack", project, "-t", f"{docker_registry.host}/team/demo:v1", "--push")
    pair = [f"docker://{docker_registry.host}/team/{name}:v1" for name in ("demo", "copy")]
    skopeo("copy", "--src-tls-verify=false", "--dest-tls-verify=false", *pair)
    target = tmp_path / "target"
    kitd().start().json("unpack", f"{docker_registry.host}/team/copy:v1", "-d", target)

    found, expected = tree(target), tree(project)
    assert found.pop("Kitfile")
    assert found.items() <= expected.items()
    assert "model.bin" in found


def test_what_kit_1_7_cannot_read_is_not_packed_for_it(kitd, project):
    """It says what to do instead."""
    daemon = kitd({"modelkit": {"dialect": "kit-1.7"}}).start()
    refused = daemon.kitctl("pack", project, "-t", "demo:v1", "--compression", "zstd")
    assert refused.code == 1
    assert "kit 1.7 cannot read tar layers with compression zstd" in refused.err
    assert "set modelkit.dialect to current" in refused.err


def test_a_held_project_is_not_packed_until_released(
    kitd, watched, project, docker_registry, eventually
):
    """Also across a restart."""
    daemon = kitd(watched(f"{docker_registry.host}/team/demo")).start()
    first = daemon.quiet()["last_digest"]
    assert daemon.kitctl("projects", "hold", "demo").code == 0
    (project / "data" / "b.csv").write_text("more\n")
    daemon.stop()
    daemon.start()

    assert daemon.project()["state"] == "held"
    assert daemon.kitctl("projects", "release", "demo").code == 0
    eventually("the change", lambda: daemon.quiet()["last_digest"] != first)


def test_projects_are_added_and_removed_at_run_time(kitd, project, docker_registry, eventually):
    """An added project survives a restart; a removed one leaves its kits."""
    daemon = kitd().start()
    assert "projects add" in daemon.kitctl("projects", "list").out
    reference = f"{docker_registry.host}/team/added:latest"
    assert daemon.kitctl("projects", "add", "added", project, "-t", reference).code == 0
    kit = daemon.quiet("added")["last_digest"]
    daemon.stop()
    daemon.start()
    assert daemon.quiet("added")["last_digest"] == kit
    assert daemon.kitctl("projects", "remove", "added").code == 0
    assert daemon.json("projects", "list") == []
    assert daemon.json("list")[0]["digest"] == kit


def test_a_running_pack_is_cancelled_with_everything_it_made(kitd, project, eventually):
    """The worker is gone and its temporary file too."""
    with (project / "model.bin").open("r+b") as file:
        file.truncate(8 << 30)
    daemon = kitd(COMPRESSED).start()
    job = int(daemon.kitctl("pack", project, "-t", "demo:big", "--detach").out)
    ingest = daemon.cache / "ingest"
    eventually("the pack to write", lambda: list(ingest.iterdir()))
    assert daemon.kitctl("jobs", "cancel", job).code == 0
    ended = eventually(
        "the end",
        lambda: (j := daemon.json("jobs", "show", job))["state"] not in ("running", "ready") and j,
    )

    assert ended["state"] == "cancelled"
    assert list(ingest.iterdir()) == []
    assert daemon.json("list") == []


def test_a_cancellation_whose_call_is_taken_back_is_none_or_a_whole_one(kitd, project, eventually):
    """The ledger never says of a job that it is being cancelled while nobody stops it."""
    with (project / "model.bin").open("r+b") as file:
        file.truncate(8 << 30)
    daemon = kitd(COMPRESSED).start()
    job = int(daemon.kitctl("pack", project, "-t", "demo:big", "--detach").out)
    eventually("the pack", lambda: daemon.json("jobs", "show", job)["state"] == "running")
    call = {"jsonrpc": "2.0", "id": 1, "method": "jobs.cancel", "params": {"id": job}}
    back = {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 1}}
    with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rb") as answers:
        sock.connect(str(daemon.socket))
        # Later each time, until the ledger has begun to write it.
        for tenths_ms in range(100):
            sock.sendall(json.dumps(call).encode() + b"\n")
            time.sleep(tenths_ms / 10_000)
            sock.sendall(json.dumps(back).encode() + b"\n")
            answers.readline()
            if "job.cancelling" in daemon.kitctl("--json", "events").out:
                break
    eventually("the end", lambda: daemon.json("jobs", "show", job)["state"] == "cancelled")


def test_what_kitctl_sees_depends_on_the_daemon_running(kitd):
    """Exit code 4 and the command that starts it."""
    daemon = kitd()
    answer = daemon.kitctl("status")

    assert answer.code == 4
    assert "kitd serve" in answer.err
