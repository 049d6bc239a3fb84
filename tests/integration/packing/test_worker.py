"""Whole packs, without the process around them."""

import json
import os
import subprocess
import sys
import zipfile

import msgspec
import pytest

from kitd.errors import Disposition, KitdError
from kitd.modelkit.media_type import CONFIG
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import digest_of
from kitd.packing.order import Advanced, Built, PackOrder, Project
from kitd.packing.scan import InputChangedError
from kitd.packing.worker import run_pack

EVERYTHING = "manifestVersion: 1.0.0\ncode: [{path: .}]\n"


@pytest.fixture
def pack(store, daemon):
    def run(root, *, known=None, expected=None, **settings):
        project = Project(root=str(root), **settings)
        order = PackOrder(
            project=project,
            cache=str(store.root),
            label="x-",
            known=known,
            expected=expected,
        )
        return run_pack(order, daemon)

    return run


def nothing_in_flight(store):
    return list(store.ingest_dir.iterdir()) == []


def test_a_kit_is_described_by_its_kitfile(pack, project, store):
    root = project(
        {
            "Kitfile": "manifestVersion: 1.0.0\n"
            "package: {name: tiny, version: 1.2.3, authors: [Ada, Grace]}\n"
            "model: {name: m, path: w}\n",
            "w": "weights",
        }
    )
    packed = pack(root)
    assert (packed.model_name, packed.author) == ("tiny", "Ada")
    assert (packed.package_version, packed.git_commit) == ("1.2.3", None)
    assert packed.warnings == ()
    config = Descriptor(CONFIG, packed.config_digest, packed.config_size)
    document = json.loads(store.read(config, max_bytes=config.size))
    assert document["model"]["digest"] == packed.layers[0].digest
    assert nothing_in_flight(store)


def test_the_model_lends_a_kit_without_a_package_its_name(pack, project):
    packed = pack(project({"Kitfile": "model: {name: m, path: w}", "w": ""}))
    assert (packed.model_name, packed.author, packed.package_version) == ("m", "", None)


def test_a_commit_is_noted(pack, project):
    commit = "0123456789abcdef" * 2 + "01234567"
    root = project({"Kitfile": "model: {path: w}", "w": "", ".git/HEAD": commit})
    assert pack(root).git_commit == commit


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "new").write_text("x"),
        lambda root: (root / "a").write_text("changed after it was read"),
        lambda root: (root / "a").unlink(),
        lambda root: (root / "Kitfile").write_text("docs: [{path: .}]"),
        lambda root: (root / ".kitignore").write_text("a"),
    ],
    ids=["new file", "changed", "gone", "Kitfile", ".kitignore"],
)
def test_a_tree_that_moved_after_it_was_read_gives_no_kit(pack, project, store, daemon, change):
    """A layer is told of when it has been read, and before the tree is looked at again."""
    root = project({"Kitfile": EVERYTHING, "a": "a", "b": bytes(100_000)})
    daemon.on(Built, lambda _: change(root))
    with pytest.raises(InputChangedError) as caught:
        pack(root)
    assert any(isinstance(notice, Built) for notice in daemon.notices)
    assert caught.value.disposition is Disposition.SNOOZE
    assert nothing_in_flight(store)


def test_links_are_named_and_the_rest_counted(pack, project):
    root = project({"Kitfile": EVERYTHING})
    for number in range(25):
        (root / f"{number:02}").symlink_to("Kitfile")
    *named, rest = pack(root).warnings
    assert named == [f"{number:02} is a symbolic link and stays out" for number in range(20)]
    assert rest == "5 more symbolic links stay out"


@pytest.mark.parametrize(
    ("dialect", "warned"), [("current", ["a..b"]), ("kit-1.7", ["a..b", "model-card.md"])]
)
def test_what_kit_would_do_otherwise_is_said(pack, project, dialect, warned):
    files = {"model/w": "", "model-card.md": "", "a..b": ""}
    root = project({"Kitfile": EVERYTHING + "model: {path: model}", **files})
    packed = pack(root, dialect=dialect)
    assert [line.partition(":")[0] for line in packed.warnings] == warned
    assert len(packed.layers) == 2


def test_what_kit_would_do_otherwise_is_named_and_the_rest_counted(pack, project):
    root = project({"Kitfile": EVERYTHING, **{f"a..{n:02}": "" for n in range(22)}})
    warnings = pack(root).warnings
    assert len(warnings) == 21
    assert warnings[-1].startswith("2 more paths: kit leaves out names")


BUNDLE = "mcpServers: [{name: tool, path: tool.mcpb}]"


def test_an_mcp_bundle_is_stored_as_it_is(pack, project, store):
    root = project({"Kitfile": BUNDLE})
    with zipfile.ZipFile(root / "tool.mcpb", "w") as archive:
        archive.writestr("manifest.json", "{}")
    (layer,) = pack(root, compression="gzip").layers
    assert layer.media_type == "application/vnd.kitops.modelkit.mcpb.v1.raw"
    assert layer.digest == layer.diff_id == digest_of((root / "tool.mcpb").read_bytes())


@pytest.mark.parametrize("content", ["", "no archive"])
def test_what_is_no_mcp_bundle_is_refused_by_name(pack, project, store, content):
    root = project({"Kitfile": BUNDLE, "tool.mcpb": content})
    with pytest.raises(KitdError) as caught:
        pack(root)
    assert caught.value.code == "unreadable_input"
    assert caught.value.message.startswith("tool.mcpb is not an MCP bundle: it is not a readable")
    assert nothing_in_flight(store)


def test_a_bundle_without_a_manifest_is_refused_by_name(pack, project):
    root = project({"Kitfile": BUNDLE})
    with zipfile.ZipFile(root / "tool.mcpb", "w") as archive:
        archive.writestr("server.py", "")
    with pytest.raises(KitdError, match=r"tool\.mcpb .* no manifest\.json at its root"):
        pack(root)


def test_twenty_thousand_small_files_are_packed(pack, daemon, tmp_path):
    root = tmp_path / "many"
    for directory in range(200):
        (root / f"{directory:03}").mkdir(parents=True)
        for number in range(100):
            handle = os.open(root / f"{directory:03}/{number:02}", os.O_CREAT | os.O_WRONLY)
            os.write(handle, b"x")
            os.close(handle)
    (root / "Kitfile").write_text("code: [{path: .}]")
    (layer,) = pack(root).layers
    assert layer.size == 512 * (200 + 2 * 20_000) + 1024
    progress = [notice for notice in daemon.notices if isinstance(notice, Advanced)]
    assert progress[-1].total_bytes == 20_000


def test_a_worker_whose_daemon_is_gone_ends_without_a_word(project, store):
    order = PackOrder(
        project=Project(root=str(project({"a": ""}))), cache=str(store.root), label="x-"
    )
    reading, answers = os.pipe()
    os.close(reading)
    with subprocess.Popen(
        [sys.executable, "-m", "kitd.packing.worker"],
        stdin=subprocess.PIPE,
        stdout=answers,
        stderr=subprocess.PIPE,
    ) as worker:
        os.close(answers)
        worker.stdin.write(msgspec.json.encode(order) + b"\n")
        worker.stdin.flush()
        # Its orders have not ended: it is by telling that it finds out.
        assert worker.wait(timeout=20) == 0
        assert worker.stderr.read() == b""
