"""Kits that build on other kits: packed, pushed, pulled and unpacked."""

import json
import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType

import pytest

from kitd.modelkit.chain import MAX_PARENTS
from kitd.modelkit.plan import FILE_PATH
from tests.e2e.conftest import wait_until


def write(root: Path, kitfile: str, files: Mapping[str, str] = MappingProxyType({})) -> Path:
    """Write a project."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "Kitfile").write_text(f"manifestVersion: 1.0.0\n{kitfile}")
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def files(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text()
        for path in root.rglob("*")
        if path.is_file() and path.name != "Kitfile"
    }


def tuned(base: str) -> str:
    """Return the Kitfile of a kit that builds on another."""
    return (
        f"model: {{name: tuned, path: '{base}', parts: [{{path: adapter}}]}}\n"
        "code: [{path: .}]\ndatasets: [{name: fresh, path: data/fresh}]\n"
    )


@pytest.fixture
def family(tmp_path):
    """Write a base kit and one that builds on it, and pack both."""

    def pack(daemon, base, child):
        root = write(
            tmp_path / "base",
            "model: {name: base, path: model/w.bin, parts: [{path: model/head}]}\n"
            "datasets: [{name: old, path: data/old}]\ndocs: [{path: README.md}]\n",
            {"model/w.bin": "weights", "model/head": "head", "README.md": "b", "data/old": "old"},
        )
        daemon.json("pack", root, "-t", base)
        names = ("model/w.bin", "model/head", "data/fresh", "data/old", "train.py")
        content = {name: f"of the child: {name}" for name in names} | {"adapter": "adapter"}
        project = write(tmp_path / "tuned", tuned(base), content)
        return daemon.json("pack", project, "-t", child)

    return pack


def test_each_of_three_kits_adds_to_what_the_one_before_has(kitd, tmp_path):
    """Every kit is unpacked into the next one's directory, and has nothing of the others in it."""
    daemon = kitd().start()
    kitfiles = (
        "model: {name: one, path: dir1, parts: [{name: p1, path: dir2/part1}]}\n",
        "model: {path: 'one:latest', parts: [{name: p2, path: dir1/part2}, {path: dir2/sub2}]}\n",
        "model: {path: 'two:latest', parts: [{name: p3, path: dir3}, {path: dir2/sub2/p}]}\n",
    )
    own = (
        ["dir1", "dir2/part1"],
        ["dir1/part2", "dir2/sub2"],
        ["dir3", "dir2/sub2/p"],
    )
    added = (
        {"dir1/a": "1", "dir1/b": "1", "dir2/part1": "1"},
        {"dir1/part2/x": "2", "dir2/sub2/x": "2"},
        {"dir3/x": "3", "dir2/sub2/p": "3"},
    )
    expected: dict[str, str] = {}
    for number, name in enumerate(("one", "two", "three")):
        root = write(tmp_path / f"kit-{number}", kitfiles[number], added[number])
        daemon.json("pack", root, "-t", f"{name}:latest")
        expected |= added[number]
        target = tmp_path / f"kit-{number + 1}"
        daemon.json("unpack", f"{name}:latest", "-d", target)
        assert files(target) == expected
        layers = daemon.json("inspect", f"{name}:latest")["manifest"]["layers"]
        assert [layer["annotations"][FILE_PATH] for layer in layers] == own[number]


def test_ten_parents_are_fine_and_eleven_too_many(kitd, tmp_path):
    """As with kit: the twelfth kit of a chain is refused."""
    daemon = kitd().start()
    root = tmp_path / "kit"
    for number in range(MAX_PARENTS + 1):
        parent = f"'chain:v{number - 1}'" if number else "f0"
        kitfile = f"model: {{path: {parent}, parts: [{{path: f{number + 100}}}]}}\n"
        write(root, kitfile, {"f0": "model", f"f{number + 100}": str(number)})
        daemon.json("pack", root, "-t", f"chain:v{number}")
    target = tmp_path / "target"
    daemon.json("unpack", f"chain:v{MAX_PARENTS}", "-d", target)
    assert len(files(target)) == MAX_PARENTS + 2

    write(root, f"model: {{path: 'chain:v{MAX_PARENTS}'}}\n")
    refused = daemon.kitctl("pack", root, "-t", "chain:last", "--json")
    assert refused.code == 1
    assert refused.json["error"]["code"] == "too_many_parents"


def test_a_kit_cannot_build_on_itself(kitd, tmp_path):
    """Neither at once nor by way of others, and the kit that had the name keeps it."""
    daemon = kitd().start()
    root = write(tmp_path / "kit", "model: {path: m}\n", {"m": "m"})
    first = daemon.json("pack", root, "-t", "model-1:v1")
    write(root, "model: {path: 'model-1:v1', parts: [{path: p}]}\n", {"p": "p"})
    daemon.json("pack", root, "-t", "model-2:v1")
    write(root, "model: {path: 'model-2:v1', parts: [{path: q}]}\n", {"q": "q"})
    refused = daemon.kitctl("pack", root, "-t", "model-1:v1", "--json")

    assert refused.json["error"]["code"] == "reference_cycle"
    assert "model-1:v1 => model-2:v1 => model-1:v1" in refused.json["error"]["message"]
    assert daemon.json("inspect", "model-1:v1")["digest"] == first["digest"]


def test_a_parent_that_is_nowhere_is_named(kitd, tmp_path):
    """At pack, with what to do."""
    daemon = kitd().start()
    root = write(tmp_path / "kit", "model: {path: 'nobody/base:v1'}\n")
    refused = daemon.kitctl("pack", root, "-t", "kit:v1")

    assert refused.code == 1
    assert "nobody/base:v1" in refused.err


def test_a_child_has_nothing_of_its_parent_and_unpacks_with_its_model(kitd, family, tmp_path):
    """Filters reach the parent as far as they select models."""
    daemon = kitd().start()
    packed = family(daemon, "base:v1", "tuned:v1")
    inspected = daemon.json("inspect", "tuned:v1")
    target, model, code = (tmp_path / name for name in ("all", "model", "code"))
    unpacked = daemon.json("unpack", "tuned:v1", "-d", target)
    daemon.json("unpack", "tuned:v1", "-f", "model", "-d", model)
    daemon.json("unpack", "tuned:v1", "-f", "code,datasets", "-d", code)

    assert inspected["kitfile"]["model"]["path"] == "base:v1"
    assert len(packed["layers"]) == 3
    # The parent's dataset is no part of what is unpacked, and not of the child's code either.
    assert files(target) == {
        "model/w.bin": "weights",
        "model/head": "head",
        "adapter": "adapter",
        "data/fresh": "of the child: data/fresh",
        "train.py": "of the child: train.py",
    }
    assert unpacked["digest"] == packed["digest"]
    assert "base:v1" in (target / "Kitfile").read_text()
    assert set(files(model)) == {"model/w.bin", "model/head", "adapter"}
    assert set(files(code)) == {"data/fresh", "train.py"}


def test_a_push_takes_its_parents_along_if_asked_to(kitd, family, docker_registry, tmp_path):
    """And else says which are missing; each kit is pulled to its own repository, by one pull."""
    base, child = (f"{docker_registry.host}/{name}:v1" for name in ("team/base", "app/tuned"))
    here = kitd().start()
    family(here, base, child)
    alone = here.json("push", child)
    assert alone["parents"] == []
    assert [base in note and "--with-parents" in note for note in alone["notes"]] == [True]
    together = here.json("push", child, "--with-parents")
    assert together["parents"] == [base]
    again = here.json("push", child, "--with-parents")
    assert (again["parents"], again["notes"], again["bytes"]["sent"]) == ([], [], 0)

    there = kitd().start()
    pulled = there.json("pull", child)
    assert pulled["parents"] == [base]
    assert {kit["repo"] for kit in there.json("list")} == {
        f"{docker_registry.host}/team/base",
        f"{docker_registry.host}/app/tuned",
    }
    target = tmp_path / "target"
    there.json("unpack", child, "-d", target)
    assert files(target)["model/w.bin"] == "weights"


def test_an_unpack_fetches_of_a_parent_only_the_model(kitd, family, docker_registry, tmp_path):
    """From the registry at once, where the cache knows neither kit."""
    base, child = (f"{docker_registry.host}/{name}:v1" for name in ("team/base", "app/tuned"))
    here = kitd().start()
    family(here, base, child)
    here.json("push", child, "--with-parents")
    there = kitd().start()
    target = tmp_path / "target"
    there.json("unpack", child, "-d", target)
    old = [
        layer["digest"]
        for layer in there.json("inspect", base)["manifest"]["layers"]
        if "dataset" in layer["mediaType"]
    ]

    assert set(files(target)) == {
        *("model/w.bin", "model/head", "adapter"),
        *("data/fresh", "train.py"),
    }
    assert len(old) == 1
    for digest in old:
        assert not (there.cache / "blobs" / "sha256" / digest.removeprefix("sha256:")).exists()


def test_a_pack_asks_the_registry_for_a_parent_that_the_cache_does_not_know(
    kitd, family, docker_registry, tmp_path
):
    """And leaves out of the child what that has."""
    base = f"{docker_registry.host}/team/base:v1"
    here = kitd().start()
    family(here, base, "tuned:v1")
    here.json("push", base)
    there = kitd().start()
    packed = there.json("pack", tmp_path / "tuned", "-t", "tuned:v1")

    assert len(packed["layers"]) == 3
    config = json.dumps(there.json("inspect", "tuned:v1")["kitfile"])
    assert config == json.dumps(here.json("inspect", "tuned:v1")["kitfile"])
    assert [kit["repo"] for kit in there.json("list")] == ["tuned"]


def test_the_same_tag_in_child_and_parent_stays_two_kits(kitd, family, docker_registry):
    """A pull of the child does not make it its parent."""
    base, child = (f"{docker_registry.host}/{name}:latest" for name in ("team/base", "app/tuned"))
    here = kitd().start()
    packed = family(here, base, child)
    here.json("push", child, "--with-parents")
    there = kitd().start()
    there.json("pull", child)

    assert there.json("inspect", child)["digest"] == packed["digest"]
    assert there.json("inspect", base)["digest"] != packed["digest"]


def test_a_child_is_what_kit_makes_of_it(kitd, tmp_path):
    """The digests are those of kit 1.7.0, which packed these files one after the other."""
    settings = {"dialect": "kit-1.7", "cli_version": "1.7.0"}
    daemon = kitd({"modelkit": settings}).start()
    base = write(
        tmp_path / "base",
        "package: {name: base}\nmodel: {name: m, path: model, parts: [{path: head}]}\n"
        "code: [{path: lib}]\n",
        {"model/w": "w\n", "head": "h\n", "lib/l.py": "l\n"},
    )
    child = write(
        tmp_path / "child",
        "package: {name: child}\nmodel: {name: c, path: 'base:v1'}\ncode: [{path: .}]\n",
        {"lib/x.py": "x\n", "model/x": "x\n", "sub/s": "s\n"},
    )
    digests = [
        daemon.json("pack", root, "-t", f"{root.name}:v1")["digest"] for root in (base, child)
    ]

    assert digests == [
        "sha256:33510c05f3d1eb0b2e7b10dfb55346ecf2cb93b292557e42c04ade8f7220fd98",
        "sha256:e3912a966da074b833c605eebe7c99aec4ce2d5ca566940461d05f9ca7979010",
    ]


@pytest.mark.parametrize("by_digest", [False, True], ids=["tag", "digest"])
def test_parents_without_a_registry_go_where_the_child_goes(
    kitd, family, docker_registry, tmp_path, by_digest
):
    """Under their own names. The child does not say where: what the note says makes it whole."""
    daemon = kitd().start()
    family(daemon, "team/base:v1", "tuned:v1")
    if by_digest:
        parent = f"team/base@{daemon.json('inspect', 'team/base:v1')['digest']}"
        write(tmp_path / "tuned", tuned(parent))
        daemon.json("pack", tmp_path / "tuned", "-t", "tuned:v1")
    else:
        parent = "team/base:v1"
    target = f"{docker_registry.host}/app/tuned:v1"
    pushed = daemon.json("push", "tuned:v1", target, "--with-parents")
    assert pushed["parents"] == [f"{docker_registry.host}/{parent}"]

    there = kitd().start()
    pulled = there.json("pull", target)
    assert [parent in note for note in pulled["notes"]] == [True]
    refused = there.kitctl("unpack", target, "-d", tmp_path / "out")
    assert (refused.code, "kitctl tag" in refused.err) == (1, True)
    (note,) = (note for note in pushed["notes"] if "names no registry" in note)
    for command in re.findall("kitctl ([^,]+)", note):
        there.json(*command.split())
    there.json("unpack", target, "-d", tmp_path / "out")
    assert files(tmp_path / "out")["model/w.bin"] == "weights"


def test_a_parents_tag_that_is_another_kit_is_left_alone(
    kitd, family, new_project, docker_registry, tmp_path
):
    """A push of the child moves nobody else's tag."""
    base, child = (f"{docker_registry.host}/{name}:v1" for name in ("team/base", "app/tuned"))
    other = kitd().start()
    there = other.json("pack", new_project(tmp_path / "other"), "-t", base, "--push")["digest"]
    here = kitd().start()
    family(here, base, child)
    pushed = here.json("push", child, "--with-parents")

    assert pushed["parents"] == []
    assert any(there in note for note in pushed["notes"])
    assert here.json("inspect", base, "--remote")["digest"] == there


def test_a_parent_that_is_newer_here_stays_so_when_its_child_is_pulled(
    kitd, tmp_path, start_docker_registry
):
    home = start_docker_registry()
    daemon = kitd().start()
    base, child = f"{home.host}/team/base:v1", f"{home.host}/team/child:v1"
    root = write(tmp_path / "base", "model: {path: w.bin}\n", {"w.bin": "old"})
    daemon.json("pack", root, "-t", base, "--push")
    write(tmp_path / "child", tuned(base), {"adapter": "a", "data/fresh": "f"})
    daemon.json("pack", tmp_path / "child", "-t", child, "--push")
    (root / "w.bin").write_text("new")
    new = daemon.json("pack", root, "-t", base)["digest"]
    pulled = daemon.json("pull", child)
    assert daemon.json("inspect", base)["digest"] == new
    assert any(new in note for note in pulled["notes"])


def test_a_parent_by_digest_is_there_as_long_as_its_child(kitd, tmp_path):
    """Though nothing names it any more: neither a removal of all such kits nor a collection."""
    daemon = kitd({"cache": {"use_at_most": "1B", "keep_recent": "0s"}}).start()
    root = write(tmp_path / "base", "model: {path: w.bin}\n", {"w.bin": "old"})
    parent = daemon.json("pack", root, "-t", "base:v1")["digest"]
    write(tmp_path / "child", tuned(f"base@{parent}"), {"adapter": "a", "data/fresh": "f"})
    daemon.json("pack", tmp_path / "child", "-t", "child:v1")
    (root / "w.bin").write_text("new")
    daemon.json("pack", root, "-t", "base:v1")

    assert daemon.json("remove", "--all")["removed"] == []
    refused = daemon.kitctl("remove", f"base@{parent}")
    assert (refused.code, "child:v1 builds on" in refused.err) == (1, True)
    daemon.json("cache", "gc")
    daemon.json("unpack", "child:v1", "-d", tmp_path / "target")
    assert files(tmp_path / "target")["w.bin"] == "old"
    daemon.json("remove", "child:v1")
    gone = daemon.json("remove", "--all")["removed"]
    assert [kit["digest"] for kit in gone] == [parent]


def test_a_parent_by_digest_survives_the_upgrade_of_a_ledger_that_did_not_note_it(kitd, tmp_path):
    """The ledger is as the migration leaves one in which parents have no table."""
    daemon = kitd({"cache": {"use_at_most": "1B", "keep_recent": "0s"}}).start()
    root = write(tmp_path / "base", "model: {path: w.bin}\n", {"w.bin": "old"})
    parent = daemon.json("pack", root, "-t", "base:v1")["digest"]
    write(tmp_path / "child", tuned(f"base@{parent}"), {"adapter": "a", "data/fresh": "f"})
    daemon.json("pack", tmp_path / "child", "-t", "child:v1")
    daemon.stop()
    with closing(sqlite3.connect(daemon.place / "state/ledger.sqlite3")) as ledger:
        ledger.executescript(
            "DELETE FROM tags WHERE name = 'base';"
            "DELETE FROM kit_parents; UPDATE manifests SET parent_noted = 0;"
        )
    daemon.start()

    wait_until("kits to be looked at", lambda: not daemon.json("remove", "--all")["kept"])
    daemon.json("cache", "gc")
    daemon.json("unpack", "child:v1", "-d", tmp_path / "target")
    assert files(tmp_path / "target")["w.bin"] == "old"
    daemon.json("remove", "child:v1")
    gone = daemon.json("remove", "--all")["removed"]
    assert [kit["digest"] for kit in gone] == [parent]
