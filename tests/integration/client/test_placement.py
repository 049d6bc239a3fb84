"""Giving files their names: what happens when that fails half-way."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kitd.client.placement import ConflictError, Placement, Replacement, WriteError, place
from kitd.client.tree import StagedFile

NOT_STAGED = StagedFile(99, 0, 0)


@pytest.fixture
def staged(tmp_path: Path) -> StagedFile:
    (tmp_path / "staging").mkdir()
    (tmp_path / "staging" / "1").write_text("theirs")
    return StagedFile(1, (tmp_path / "staging" / "1").stat().st_ino, 6)


@pytest.fixture
def handles(tmp_path: Path, staged: StagedFile) -> Iterator[tuple[int, int]]:
    (tmp_path / "root").mkdir()
    opened = tuple(os.open(tmp_path / name, os.O_RDONLY) for name in ("root", "staging"))
    yield opened
    for handle in opened:
        os.close(handle)


def names(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()
    }


def test_replaced_files_are_put_back(tmp_path, handles, staged):
    for name in "ab":
        (tmp_path / "root" / name).write_text("mine")
    inode = (tmp_path / "root" / "a").stat().st_ino
    replaced = {b"a": Replacement(staged, 0o600), b"b": Replacement(NOT_STAGED, 0o600)}
    with pytest.raises(WriteError, match="'b'"):
        place(*handles, Placement({}, {}, replaced))
    assert names(tmp_path / "root") == {"a": "mine", "b": "mine"}
    assert (tmp_path / "root" / "a").stat().st_ino == inode


def test_created_files_and_directories_are_removed(tmp_path, handles, staged):
    created = {b"d/e/a": staged, b"d/e/b": NOT_STAGED}
    with pytest.raises(WriteError):
        place(*handles, Placement({b"d": 0o755, b"d/e": 0o755}, created, {}))
    assert list((tmp_path / "root").iterdir()) == []


def test_a_file_that_appeared_meanwhile_is_nobodys_to_replace(tmp_path, handles, staged):
    (tmp_path / "root" / "a").write_text("mine")
    with pytest.raises(ConflictError, match="appeared"):
        place(*handles, Placement({}, {b"a": staged}, {}))
    assert names(tmp_path / "root") == {"a": "mine"}


def test_a_directory_that_became_a_link_is_not_gone_through(tmp_path, handles, staged):
    (tmp_path / "outside").mkdir()
    (tmp_path / "root" / "d").symlink_to(tmp_path / "outside")
    with pytest.raises(WriteError):
        place(*handles, Placement({}, {b"d/a": staged}, {}))
    assert list((tmp_path / "outside").iterdir()) == []


def test_backups_are_gone_after_success(tmp_path, handles, staged):
    (tmp_path / "root" / "a").write_text("mine")
    place(*handles, Placement({}, {}, {b"a": Replacement(staged, 0o600)}))
    assert names(tmp_path / "root") == {"a": "theirs"}
    assert list((tmp_path / "staging").iterdir()) == []
