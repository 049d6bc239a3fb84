"""What a client tells of a directory: what is really there, and nothing through a link."""

import os

import pytest

from kitd.client.listing import CROWD, TELLING_NAMES, ListingError, list_directory
from kitd.modelkit.generate import AGENT_FILES, TOOL_FILES


def test_two_levels_are_told_without_links_and_special_files(tmp_path):
    (tmp_path / "b.csv").write_text("12")
    (tmp_path / "a.csv").write_text("1")
    (tmp_path / "data" / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "data" / "x.pt").write_bytes(b"x" * 5)
    (tmp_path / "link.csv").symlink_to("a.csv")
    (tmp_path / "linked").symlink_to("data")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / ".kitd-unpack-0123456789abcdef").mkdir()
    (tmp_path / "data" / ".kitd-unpack-0123456789abcdef").mkdir()
    (tmp_path / "data" / ".kitd-unpack-notes.md").write_text("123")
    (tmp_path / "data" / "up").symlink_to("..")
    seen = list_directory(tmp_path)
    assert seen.document == {
        "files": [{"name": "a.csv", "size": 1}, {"name": "b.csv", "size": 2}],
        "directories": [
            {
                "name": "data",
                "files": [
                    {"name": ".kitd-unpack-notes.md", "size": 3},
                    {"name": "x.pt", "size": 5},
                ],
                "directories": ["deep"],
                "count": 2,
            }
        ],
        "licences": {},
    }


def test_licences_and_what_is_ignored_come_along(tmp_path):
    (tmp_path / "LICENSE").write_text("free")
    (tmp_path / "license-pipe").symlink_to("LICENSE")
    (tmp_path / "Licence.bin").write_bytes(b"\0\1")
    (tmp_path / ".kitignore").write_text("*.tmp\n")
    document = list_directory(tmp_path).document
    assert document["licences"] == {"LICENSE": "free", "Licence.bin": ""}
    assert document["ignore"] == "*.tmp\n"


def test_a_crowd_is_told_by_one_of_each_kind(tmp_path):
    (tmp_path / "many").mkdir()
    for number in range(CROWD + 1):
        (tmp_path / "many" / f"{number}.npy").touch()
    (tmp_path / "many" / "index.json").touch()
    (directory,) = list_directory(tmp_path).document["directories"]
    assert sorted(os.path.splitext(file["name"])[1] for file in directory["files"]) == [
        ".json",
        ".npy",
    ]
    assert directory["count"] == CROWD + 2


def test_names_that_mean_something_are_told_of_any_crowd(tmp_path):
    (tmp_path / "many").mkdir()
    telling = (".env", "LICENSE", "Makefile", "SKILL.md", "a.prompt.md", "Thumbs.db", ".gitignore")
    for name in (*telling, "z", "zz.md", "zz.db", ".zz", *(f"{n}.npy" for n in range(CROWD))):
        (tmp_path / "many" / name).touch()
    (directory,) = list_directory(tmp_path).document["directories"]
    told = {file["name"] for file in directory["files"]}
    assert told >= {".env", "SKILL.md", "a.prompt.md", "Thumbs.db", ".gitignore"}
    assert len(told) < 15


def test_the_client_knows_the_names_that_kitd_knows():
    assert {name.lower() for name in TOOL_FILES} | AGENT_FILES == TELLING_NAMES


def test_what_cannot_be_told_is_counted(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.csv")).touch()
    seen = list_directory(tmp_path)
    assert (seen.document["files"], seen.unnamed) == ([], 1)


def test_too_much_is_an_error(tmp_path):
    with pytest.raises(ListingError, match="cannot open"):
        list_directory(tmp_path / "absent")
    for number in range(CROWD + 1):
        (tmp_path / f"{number}.csv").touch()
    with pytest.raises(ListingError, match="holds 1001 files"):
        list_directory(tmp_path)


def test_a_listing_is_no_larger_than_a_request(tmp_path):
    for number in range(6):
        directory = tmp_path / f"d{number}"
        directory.mkdir()
        for inner in range(CROWD):
            (directory / (f"{inner}" + "x" * 180)).touch()
    with pytest.raises(ListingError, match="more names"):
        list_directory(tmp_path)
