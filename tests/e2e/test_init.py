"""`kitctl init`: from a directory without a Kitfile to one that packs."""

import yaml

FILES = {
    "weights/base.gguf": 50,
    "weights/config.json": 2,
    "train.py": 9,
    "src/lib.py": 9,
    "src/__pycache__/lib.pyc": 9,
}


def make_project(root):
    for name, size in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * size)
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("[core]\n")
    (root / "LICENSE").write_text("SPDX-License-Identifier: MIT\n")
    return root


def test_a_directory_gets_a_kitfile_that_packs(kitd, tmp_path):
    root = make_project(tmp_path / "project")
    daemon = kitd().start()
    made = daemon.kitctl("init", root, "--name", "demo", "--desc", "a try", "--author", "Ada")
    assert made.code == 0, made.err
    written = (root / "Kitfile").read_text()
    assert made.out == written
    assert yaml.safe_load(written) == {
        "manifestVersion": "1.0.0",
        "package": {"name": "demo", "description": "a try", "authors": ["Ada"]},
        "model": {
            "name": "weights/base",
            "path": "weights/base.gguf",
            "license": "MIT",
            "parts": [{"path": "weights/config.json"}],
        },
        "code": [{"path": "src/"}, {"path": "train.py"}],
        "docs": [{"path": "LICENSE", "description": "License file"}],
    }
    assert "left out, as tools keep it for themselves: .git" in made.err
    assert ".kitignore has: **/__pycache__" in made.err
    packed = daemon.json("pack", root, "-t", "demo:v1")
    assert len(packed["layers"]) == 5


def test_a_kitfile_is_replaced_only_if_somebody_says_so(kitd, tmp_path):
    root = make_project(tmp_path / "project")
    daemon = kitd().start()
    (root / "kitfile").write_text("mine")
    refused = daemon.kitctl("init", root)
    assert (refused.code, "kitfile exists" in refused.err) == (1, True)
    assert not (root / "Kitfile").exists()
    # Nothing is in the way of what is only printed, or written elsewhere.
    printed = daemon.kitctl("init", root, "-o", "-")
    assert printed.out.startswith("manifestVersion: 1.0.0\n")
    assert not (root / "Kitfile").exists()
    other = tmp_path / "draft.yaml"
    assert daemon.json("init", root, "-o", other)["path"] == str(other)
    assert other.read_text() == printed.out
    assert daemon.kitctl("init", root, "-o", other).code == 1
    assert daemon.kitctl("init", root, "--force").code == 0
    assert (root / "Kitfile").read_text() == printed.out
    assert sorted(path.name for path in root.iterdir()) == [
        ".git", "Kitfile", "LICENSE", "kitfile", "src", "train.py", "weights",
    ]  # fmt: skip


def test_names_that_are_none_are_refused(kitd, tmp_path):
    daemon = kitd().start()
    gone = daemon.kitctl("init", tmp_path / "absent")
    assert (gone.code, "cannot open" in gone.err) == (1, True)
    (tmp_path / "p").mkdir()
    nowhere = daemon.kitctl("init", tmp_path / "p", "-o", tmp_path / "no" / "Kitfile")
    assert (nowhere.code, "cannot write" in nowhere.err) == (1, True)
