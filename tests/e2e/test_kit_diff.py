"""What two kits share, and what only one has: by layer, and by file where the cache has both."""

import hashlib
import json
import urllib.request

from kitd.oci.media_type import OCI_MANIFEST


def pack(daemon, project, name):
    return daemon.json("pack", project, "-t", name)["digest"]


def test_files_that_were_added_removed_and_changed_are_told(kitd, project):
    """Of the layers that are not shared; the model's is, and is not read."""
    daemon = kitd().start()
    (project / "data/same.csv").write_text("same\n")
    (project / "data/gone.csv").write_text("gone\n")
    (project / "data/run.sh").write_text("#!/bin/sh\n")
    first = pack(daemon, project, "demo:v1")
    (project / "data/gone.csv").unlink()
    (project / "data/new\nname.csv").write_text("new\n")
    (project / "data/a.csv").write_text("text,label\nbad,0\n")
    (project / "data/run.sh").chmod(0o755)
    second = pack(daemon, project, "demo:v2")
    diff = daemon.json("diff", "demo:v1", f"local://demo@{second}")

    assert (diff["identical"], diff["a"]["digest"], diff["b"]["digest"]) == (False, first, second)
    assert [layer["path"] for layer in diff["shared"]] == ["model.bin"]
    assert [layer["path"] for layer in diff["only_a"]] == ["data"]
    assert [layer["kind"] for layer in diff["only_b"]] == ["dataset"]
    files = diff["files"]
    assert [file["path"] for file in files["added"]] == ["data/new\\nname.csv"]
    (removed,) = files["removed"]
    digest = f"sha256:{hashlib.sha256(b'gone' + bytes([10])).hexdigest()}"
    assert removed == {"path": "data/gone.csv", "size": 5, "mode": "0644", "digest": digest}
    assert [file["path"] for file in files["changed"]] == ["data/a.csv", "data/run.sh"]
    assert [file["b"]["mode"] for file in files["changed"]] == ["0644", "0755"]
    assert files["unchanged"] == 1

    said = daemon.kitctl("diff", "demo:v1", "demo:v2").out.splitlines()
    assert said[0] == f"a: demo:v1 ({first[7:19]}, in the cache)"
    assert "~ data/run.sh  10 B, mode 0644 -> 0755" in said
    assert said[-1] == "files of layers that differ: 1 removed, 1 added, 2 changed, 1 unchanged"
    assert daemon.json("diff", "demo:v1", "demo:v2", "--layers")["files"] is None


def test_equal_kits_are_identical(kitd, project):
    daemon = kitd().start()
    digest = pack(daemon, project, "demo:v1,v2")
    said = daemon.kitctl("diff", "demo:v1", "demo:v2")
    assert said.out == f"the kits are identical: {digest}\n"
    assert daemon.kitctl("diff", "demo:v1", "demo:absent").code == 1
    assert daemon.kitctl("diff", "remote://demo:v1", "demo:v1").code == 1


def test_a_kit_of_a_registry_is_compared_by_layers_until_it_is_here(kitd, project, docker_registry):
    """Without a prefix the cache is asked first, and the registry then."""
    there = f"{docker_registry.host}/team/demo"
    other = kitd().start()
    daemon = kitd().start()
    pack(daemon, project, "demo:v1")
    (project / "data/b.csv").write_text("more\n")
    other.json("pack", project, "-t", f"{there}:v2", "--push")
    said = daemon.kitctl("--json", "diff", "demo:v1", f"{there}:v2")

    assert (said.json["a"]["remote"], said.json["b"]["remote"]) == (False, True)
    assert [layer["here"] for layer in said.json["only_b"]] == [False]
    assert said.json["files"] is None
    assert f"would have to come first: kitctl pull {there}:v2" in said.err
    daemon.json("pull", f"{there}:v2")
    for prefix in ("", "remote://", "local://"):
        diff = daemon.json("diff", "demo:v1", f"{prefix}{there}:v2")
        assert diff["b"]["remote"] is (prefix == "remote://")
        assert [file["path"] for file in diff["files"]["added"]] == ["data/b.csv"]


def test_a_damaged_layer_is_not_compared(kitd, project):
    """It is named, as by unpack."""
    daemon = kitd().start()
    pack(daemon, project, "demo:v1")
    (project / "data/a.csv").write_text("text,label\nbad,0\n")
    pack(daemon, project, "demo:v2")
    digest = daemon.json("diff", "demo:v1", "demo:v2", "--layers")["only_b"][0]["digest"]
    blob = daemon.cache / "blobs/sha256" / digest.removeprefix("sha256:")
    blob.chmod(0o600)
    content = bytearray(blob.read_bytes())
    # In what a file holds, and not in what the archive says of it.
    content[content.index(b"bad,0")] ^= 1
    blob.write_bytes(content)
    answer = daemon.kitctl("diff", "demo:v1", "demo:v2")
    assert (answer.code, digest in answer.err) == (1, True)


def test_a_modelpack_is_compared_with_a_modelkit(kitd, project):
    """From the same files: they share every layer."""
    daemon = kitd().start()
    daemon.json("pack", project, "-t", "demo:kit")
    daemon.json("pack", project, "-t", "demo:pack", "--model-pack")
    diff = daemon.json("diff", "demo:kit", "demo:pack")
    assert not diff["identical"]
    assert (diff["only_a"], diff["only_b"]) == ([], [])
    assert len(diff["shared"]) == 2


def test_one_blob_at_two_paths_is_two_layers_whatever_the_config_says_of_them(
    kitd, project, docker_registry
):
    """Equal files that no entry names are told apart by what the manifest says of their paths."""
    daemon = kitd().start()
    there = f"{docker_registry.host}/team/demo"
    (project / "Kitfile").write_text("manifestVersion: 1.0.0\nmodel: {path: model.bin}\n")
    daemon.json("pack", project, "-t", f"{there}:few", "--layer-format", "raw", "--push")
    code = "code: [{path: a/empty}, {path: b/empty}]\n"
    for name in ("a", "b"):
        (project / name).mkdir()
        (project / name / "empty").touch()
    (project / "Kitfile").write_text(f"manifestVersion: 1.0.0\nmodel: {{path: model.bin}}\n{code}")
    daemon.json("pack", project, "-t", f"{there}:all", "--layer-format", "raw", "--push")
    manifest = {
        **daemon.json("inspect", f"{there}:all")["manifest"],
        "config": daemon.json("inspect", f"{there}:few")["manifest"]["config"],
    }
    text = json.dumps(manifest)
    for tag, content in (("ab", text), ("cb", text.replace("a/empty", "c/empty"))):
        put = urllib.request.Request(
            f"http://{docker_registry.host}/v2/team/demo/manifests/{tag}",
            content.encode(),
            {"Content-Type": OCI_MANIFEST},
            method="PUT",
        )
        with urllib.request.urlopen(put, timeout=10):
            pass

    def paths(one, other):
        diff = daemon.json(
            "diff", "--layers", f"remote://{there}:{one}", f"remote://{there}:{other}"
        )
        return [[layer["path"] for layer in diff[side]] for side in ("shared", "only_a", "only_b")]

    assert paths("ab", "ab") == [["model.bin", "a/empty", "b/empty"], [], []]
    assert paths("ab", "cb") == [["model.bin", "b/empty"], ["a/empty"], ["c/empty"]]
    assert paths("few", "ab") == [["model.bin"], [], ["a/empty", "b/empty"]]


def test_a_tar_is_the_same_at_whatever_path_and_a_file_is_not(kitd, tmp_path):
    """The names are in the tar; of a file that is stored as it is the Kitfile has the name."""
    daemon = kitd().start()
    kitfiles = {"whole": "code: [{path: .}]", "part": "code: [{path: src}]"}
    for name, entries in kitfiles.items():
        root = tmp_path / name
        (root / "src").mkdir(parents=True)
        (root / "src" / "train.py").write_text("train")
        (root / "Kitfile").write_text(f"manifestVersion: 1.0.0\n{entries}\n")
        daemon.json("pack", root, "-t", f"{name}:v1")
    same = daemon.json("diff", "whole:v1", "part:v1")
    assert [layer["path"] for layer in same["shared"]] == ["."]
    assert same["only_a"] == same["only_b"] == []

    for name in ("a.bin", "b.bin"):
        root = tmp_path / name
        root.mkdir()
        (root / name).write_text("weights")
        (root / "Kitfile").write_text(f"manifestVersion: 1.0.0\nmodel: {{path: {name}}}\n")
        daemon.json("pack", root, "-t", f"{name}:v1", "--layer-format", "raw")
    moved = daemon.json("diff", "a.bin:v1", "b.bin:v1")
    assert moved["shared"] == []
    assert [layer["path"] for layer in (*moved["only_a"], *moved["only_b"])] == ["a.bin", "b.bin"]
