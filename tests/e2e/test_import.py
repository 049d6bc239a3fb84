"""`kitctl import`: from a hub to a kit, whatever happens on the way."""

import asyncio
import threading

import pytest
import yaml

from hub_server import HubServer, Quirks
from tests.e2e.conftest import wait_until
from tests.e2e.test_kits import tree

TOKEN = "hf_canary-that-must-not-be-repeated"


@pytest.fixture
def content(tmp_path):
    """The files of a model of the hub."""
    root = tmp_path / "content"
    (root / "onnx").mkdir(parents=True)
    (root / "model.safetensors").write_bytes(bytes(range(256)) * 4000)
    (root / "onnx" / "model.onnx").write_bytes(b"o" * 5000)
    (root / "config.json").write_text("{}")
    (root / "README.md").write_text("---\nlicense: mit\n---\n")
    (root / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    return root


@pytest.fixture
def hub(content):
    """A hub in a thread of its own; `hub.quirks` says how it is."""
    server = HubServer(content, Quirks(page=2, token=TOKEN, tags=("license:mit",)))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result()
    server.call = loop.call_soon_threadsafe
    yield server
    asyncio.run_coroutine_threadsafe(server.__aexit__(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def daemon(kitd, hub, tmp_path):
    """A daemon that imports from the hub."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    config = {"hub": {"endpoint": hub.endpoint, "token_file": str(tmp_path / "token")}}
    return kitd(config).start()


def nothing_left(daemon):
    """Wait until what imports have fetched is gone."""
    places = daemon.cache / "imports"
    wait_until("the import's files to go", lambda: not list(places.iterdir()))


def begin(daemon, hub, *arguments):
    """Begin an import that comes to a stop in the middle of the model; return its job."""
    hub.quirks.stall.add("model.safetensors")
    job = daemon.json("import", "Org/Name", "--detach", *arguments)["job"]
    wait_until("the download to stall", hub.stalled.is_set)
    return str(job)


def test_a_model_becomes_a_kit(daemon, hub, content, tmp_path):
    made = daemon.json("import", "Org/Name")
    assert (made["reference"], made["source"]) == ("org/name:latest", "Org/Name")
    assert (made["files"], len(made["revision"])) == (4, 40)
    assert made["received"] == sum(
        path.stat().st_size for path in hub.files() if path.name != ".gitattributes"
    )
    assert any(".gitattributes" in warning for warning in made["warnings"])
    target = tmp_path / "unpacked"
    daemon.json("unpack", "org/name", "-d", target)
    kitfile = yaml.safe_load((target / "Kitfile").read_text())
    assert kitfile == {
        "manifestVersion": "1.0.0",
        "package": {"name": "Name", "authors": ["Org"]},
        "model": {
            "name": "model",
            "path": "model.safetensors",
            "license": "mit",
            "parts": [{"path": "onnx/model.onnx"}, {"path": "config.json"}],
        },
        "docs": [{"path": "README.md", "description": "Readme file"}],
    }
    (target / "Kitfile").unlink()
    found, expected = tree(target), tree(content)
    assert {path: digest for path, (_, digest) in found.items()} == {
        path: digest for path, (_, digest) in expected.items() if path != ".gitattributes"
    }
    nothing_left(daemon)
    again = daemon.json("import", f"{hub.endpoint}/Org/Name/tree/main", "-t", "org/name:v2")
    assert (again["digest"], again["unchanged"]) == (made["digest"], True)
    assert TOKEN not in daemon.log.read_text()


def test_patterns_and_a_kitfile_of_ones_own(daemon, hub, tmp_path):
    kitfile = tmp_path / "mine.yaml"
    kitfile.write_text("manifestVersion: 1.0.0\nmodel: {name: m, path: onnx}\n")
    made = daemon.json("import", "Org/Name", "-t", "mine:v1,stable", "-f", kitfile)
    assert (made["tags"], made["files"], made["received"]) == (["v1", "stable"], 1, 5000)
    assert daemon.kitctl("info", "mine:stable").out.count("path:") == 1
    part = daemon.json("import", "Org/Name", "-t", "part", "--include", "*.json", "--exclude", "x")
    assert part["files"] == 1
    none = daemon.kitctl("import", "Org/Name", "-t", "none", "--include", "*.gguf")
    assert (none.code, "no files that the patterns leave" in none.err) == (1, True)
    missing = daemon.kitctl("import", "Org/Other", "-t", "other")
    assert (missing.code, "no such repository" in missing.err) == (1, True)
    nothing_left(daemon)


@pytest.mark.parametrize("source", ["../x/y", "http://elsewhere.example.com/a/b", "a/b/c"])
def test_what_is_no_repository_of_the_hub_is_refused(daemon, source):
    refused = daemon.kitctl("import", source)
    assert (refused.code, "Traceback" in refused.err) == (1, False)
    assert daemon.json("jobs", "list") == []


def test_a_killed_daemon_goes_on_where_it_stopped(daemon, hub):
    job = begin(daemon, hub)
    # What is sent before the stall is on its way to the disk.
    parts = daemon.cache / "imports" / job / "blobs"
    wait_until(
        "half of the file", lambda: any(p.stat().st_size > 400_000 for p in parts.glob("*.part"))
    )
    daemon.kill()
    hub.quirks.stall.clear()
    hub.asked.clear()
    daemon.start()
    ended = daemon.json("jobs", "wait", job, "--timeout", "30s")
    assert ended["state"] == "succeeded"
    begun = [wanted for name, _, _, wanted in hub.asked if name == "storage"]
    assert any(wanted is not None for wanted in begun), "it began from nothing"
    assert ended["result"]["received"] < 1_030_000
    nothing_left(daemon)


def test_a_cancelled_import_leaves_nothing(daemon, hub):
    job = begin(daemon, hub)
    daemon.json("jobs", "cancel", job)
    wait_until("the end", lambda: daemon.json("jobs", "show", job)["state"] == "cancelled")
    nothing_left(daemon)
    assert daemon.json("list") == []


def test_wrong_content_fails_in_the_end_and_is_told(daemon, hub):
    hub.quirks.wrong.add("config.json")
    job = str(daemon.json("import", "Org/Name", "--detach")["job"])
    wait_until("a failure", lambda: daemon.json("jobs", "show", job)["error"])
    shown = daemon.json("jobs", "show", job)
    assert shown["error"]["code"] == "hub_content"
    assert daemon.json("list") == []


def test_what_the_disk_has_no_room_for_is_not_begun(daemon, hub):
    lfs = {"oid": "a" * 64, "size": 2**45}
    hub.quirks.listed = [{"type": "file", "path": "model.gguf", "size": 2**45, "lfs": lfs}]
    refused = daemon.kitctl("import", "Org/Name")
    assert (refused.code, "has no room for" in refused.err) == (1, True)
    assert [name for name, *_ in hub.asked if name == "storage"] == []
    nothing_left(daemon)


@pytest.mark.parametrize("name", ["Kitfile", ".kitignore"])
def test_a_directory_in_the_place_of_a_kitfile_fails_at_once(daemon, content, name):
    (content / name).mkdir()
    (content / name / "a.json").write_text("[]")
    refused = daemon.kitctl("import", "Org/Name")
    assert (refused.code, f"leave it out with --exclude '{name}/*'" in refused.err) == (1, True)
    nothing_left(daemon)
    daemon.json("import", "Org/Name", "--exclude", f"{name}/*")


def test_what_kitignore_leaves_out_is_neither_fetched_nor_named(daemon, hub, content, tmp_path):
    (content / ".kitignore").write_text("onnx\n*.json\n")
    made = daemon.json("import", "Org/Name")
    assert made["files"] == 3
    assert {path for path, times in hub.counts().items() if times} == {
        ".kitignore",
        "README.md",
        "model.safetensors",
    }
    daemon.json("unpack", "org/name", "-d", tmp_path / "unpacked")
    kitfile = yaml.safe_load((tmp_path / "unpacked" / "Kitfile").read_text())
    assert kitfile["model"].get("parts") is None
    nothing_left(daemon)
    kitfile = tmp_path / "mine.yaml"
    kitfile.write_text("manifestVersion: 1.0.0\ncode: [{path: onnx}, {path: README.md}]\n")
    mine = daemon.json("import", "Org/Name", "-t", "mine", "-f", kitfile)
    assert (mine["files"], mine["received"]) == (3, 5000 + 21 + 12)
