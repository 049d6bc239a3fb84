"""Giving files their names: what happens when that fails half-way."""

import ctypes
import errno
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
    assert list((tmp_path / "staging").iterdir()) == []


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


@pytest.fixture
def another(tmp_path: Path) -> Path:
    """A file of the caller that another user has put into the place of the staged one."""
    path = tmp_path / "another"
    path.write_text("secret")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("exchange", ["symlink_to", "hardlink_to"])
@pytest.mark.parametrize("mine", [None, "mine"])
def test_what_was_put_in_the_place_of_a_staged_file_is_not_placed(
    tmp_path, handles, staged, another, exchange, mine
):
    (tmp_path / "staging" / "1").rename(tmp_path / "taken")
    getattr(tmp_path / "staging" / "1", exchange)(another)
    placement = Placement({}, {b"a": staged}, {})
    if mine is not None:
        (tmp_path / "root" / "a").write_text(mine)
        placement = Placement({}, {}, {b"a": Replacement(staged, 0o666)})
    with pytest.raises(WriteError, match="'a' was exchanged"):
        place(*handles, placement)
    assert another.stat().st_mode & 0o777 == 0o600
    assert names(tmp_path / "root") == ({} if mine is None else {"a": mine})
    assert os.listdir(tmp_path / "root") == list(names(tmp_path / "root"))


@pytest.fixture(params=["renameat2", "without it"])
def without_links(request, monkeypatch):
    """As on vfat; there are systems and C libraries without renameat2 as well."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    if request.param != "renameat2":
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())


@pytest.mark.usefixtures("without_links")
def test_without_links_a_file_that_appeared_meanwhile_stays(tmp_path, handles, staged):
    (tmp_path / "root" / "a").write_text("mine")
    with pytest.raises(ConflictError, match="appeared"):
        place(*handles, Placement({}, {b"a": staged}, {}))
    assert names(tmp_path / "root") == {"a": "mine"}


@pytest.mark.usefixtures("without_links")
def test_without_links_files_are_moved(tmp_path, handles, staged):
    (tmp_path / "staging" / "2").write_text("new")
    (tmp_path / "root" / "a").write_text("mine")
    new = StagedFile(2, (tmp_path / "staging" / "2").stat().st_ino, 3)
    place(*handles, Placement({}, {b"b": new}, {b"a": Replacement(staged, 0o600)}))
    assert names(tmp_path / "root") == {"a": "theirs", "b": "new"}
    assert list((tmp_path / "staging").iterdir()) == []


@pytest.mark.usefixtures("without_links")
def test_without_links_a_failure_is_undone(tmp_path, handles, staged):
    (tmp_path / "root" / "a").write_text("mine")
    replaced = {b"a": Replacement(staged, 0o600), b"b": Replacement(NOT_STAGED, 0o600)}
    with pytest.raises(WriteError):
        place(*handles, Placement({}, {b"c": NOT_STAGED}, {}))
    with pytest.raises(WriteError):
        place(*handles, Placement({}, {}, replaced))
    assert names(tmp_path / "root") == {"a": "mine"}
    assert os.listdir(tmp_path / "root") == ["a"]


def test_a_file_that_nobody_may_open_is_replaced(tmp_path, handles, staged):
    (tmp_path / "staging" / "1").chmod(0)
    (tmp_path / "root" / "a").write_text("mine")
    place(*handles, Placement({}, {}, {b"a": Replacement(staged, 0o640)}))
    assert (tmp_path / "root" / "a").stat().st_mode & 0o777 == 0o640
