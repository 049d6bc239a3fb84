"""Projects that are not finished: nothing is packed, and `kitctl why` says what holds them."""

import json
import struct
from contextlib import contextmanager

import pytest

KITFILE = """\
manifestVersion: 1.0.0
package: {name: demo, version: 0.1.0}
model: {name: weights, path: model.safetensors}
datasets: [{name: reviews, path: data}]
"""


def safetensors(size):
    """Return a file of one tensor of so many bytes."""
    header = json.dumps({"weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}})
    return struct.pack("<Q", len(header)) + header.encode() + bytes(size)


@pytest.fixture
def unfinished(project):
    """The project, with a model of a format that tells how long it is."""
    (project / "Kitfile").write_text(KITFILE)
    (project / "model.bin").unlink()
    (project / "model.safetensors").write_bytes(safetensors(100_000))
    return project


@contextmanager
def open_writer(project):
    """A program goes on writing; in the end it only closes the file, which changes no time."""
    with (project / "model.safetensors").open("ab"):
        yield "writer", "model.safetensors"


@contextmanager
def half_a_download(project):
    """Bytes are missing at the end."""
    file = project / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    yield "truncated", "model.safetensors"
    file.write_bytes(content)


@contextmanager
def hold_file(project):
    """A person leaves a note."""
    (project / ".kitd-hold").touch()
    yield "hold_file", ".kitd-hold"
    (project / ".kitd-hold").unlink()


@contextmanager
def git_at_work(project):
    """git holds its lock."""
    (project / ".git").mkdir()
    (project / ".git/index.lock").touch()
    yield "git", ".git/index.lock"
    (project / ".git/index.lock").unlink()


REASONS = pytest.mark.parametrize(
    "reason", [open_writer, half_a_download, hold_file, git_at_work], ids=lambda f: f.__name__
)


def holds(daemon):
    """Return what `kitctl why` says of the gates that hold the project."""
    return [reason for reason in daemon.json("why", "demo")["reasons"] if "gate" in reason]


@REASONS
def test_a_project_is_held_back_for_as_long_as_there_is_a_reason(
    kitd, watched, unfinished, eventually, reason
):
    """The gate and the file are named, to people and to programs; then it is packed by itself."""
    with reason(unfinished) as (gate, path):
        daemon = kitd(watched("demo", push=False)).start()
        (hold,) = eventually("a gate to hold the project", lambda: holds(daemon))
        said = daemon.kitctl("why", "demo").out
        held = daemon.project()
        assert daemon.jobs() == []

    assert (hold["gate"], hold["path"]) == (gate, path)
    assert hold["text"].startswith(f"{path}: ")
    assert hold["text"] in said
    assert held["state"] == ("held" if gate == "hold_file" else "settling")
    assert held["reason"] == hold["text"]
    assert [(each["gate"], each["path"]) for each in held["holds"]] == [(gate, path)]

    assert daemon.quiet()["holds"] == []
    assert holds(daemon) == []
    assert [job["state"] for job in daemon.jobs()] == ["succeeded"]


def test_a_project_that_is_held_back_keeps_the_kit_it_has(kitd, watched, unfinished, eventually):
    """What changes meanwhile is packed once, in the end."""
    daemon = kitd(watched("demo", push=False)).start()
    first = daemon.quiet()["last_digest"]
    with half_a_download(unfinished):
        (hold,) = eventually("a gate to hold the project", lambda: holds(daemon))
        (unfinished / "data/b.csv").write_text("more\n")
        assert daemon.project()["last_digest"] == first
    assert hold["gate"] == "truncated"

    eventually("the change to be packed", lambda: daemon.project()["last_digest"] != first)
    assert len(daemon.jobs()) == 2


def test_looking_again_at_what_is_packed_makes_no_job(kitd, watched, project, eventually):
    """A file in no layer came, and a person's hold ended: both ask for a look, and for no more."""
    daemon = kitd(watched("demo", push=False)).start()
    kit = daemon.quiet()["last_digest"]
    assert daemon.kitctl("projects", "hold", "demo").code == 0
    (project / "notes.txt").touch()
    # It is dirty when this answers, and idle only once it has been looked at.
    assert daemon.kitctl("projects", "release", "demo").code == 0
    eventually("the project to be at rest", lambda: daemon.project()["state"] == "idle")

    assert daemon.project()["last_digest"] == kit
    assert [job["state"] for job in daemon.jobs()] == ["succeeded"]
