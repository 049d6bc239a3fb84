"""An unpack that is ended in the middle: at every line by Ctrl-C, in the middle by `kill -9`."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from kitd.client import extract as module
from kitd.client.extract import Extraction, LooseFile, extract
from kitd.client.placement import Existing, WriteError
from kitd.client.staging import STAGING_PREFIX, mark

CLIENT = str(Path(module.__file__).parent)
DONE = {"a/b/c": "new", "old": "new", "old2": "new", "z": "z", "Kitfile": "k"}


def files_of(root: Path) -> dict[str, str | None]:
    """Return everything below a directory; None stands for a directory."""
    return {
        str(path.relative_to(root)): path.read_text() if path.is_file() else None
        for path in root.rglob("*")
    }


def unpack(target: Path) -> Extraction:
    files = [
        LooseFile("a/b/c", 3, [b"new"]),
        LooseFile("old", 3, [b"new"]),
        LooseFile("old2", 3, [b"new"]),
        LooseFile("z", 1, [b"z"]),
    ]
    return extract(
        target,
        [],
        kitfile="k",
        files=files,
        existing=Existing.OVERWRITE,
        progress=lambda _: None,
    )


def interrupted_at(line: int, target: Path) -> bool | None:
    """Unpack with Ctrl-C at the so-manieth line that runs; return whether it was interrupted.

    None if fewer lines run.
    """
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(CLIENT):
            return None
        if event == "line":
            count += 1
            if count == line:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return trace

    sys.settrace(trace)
    try:
        unpack(target)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return None if count < line else False


@pytest.mark.parametrize("is_there", [True, False])
def test_ctrl_c_at_any_line_leaves_all_or_nothing(tmp_path, is_there):
    ends = set()
    before = {"old": "old", "old2": "old2"} if is_there else {}
    handler = signal.getsignal(signal.SIGINT)
    for line in range(1, 10_000):
        base = tmp_path / str(line)
        target = base / "on" / "the" / "way"
        if is_there:
            target.mkdir(parents=True)
            for name, content in before.items():
                (target / name).write_text(content)
        else:
            base.mkdir()
        was_interrupted = interrupted_at(line, target)
        assert signal.getsignal(signal.SIGINT) is handler
        found = files_of(target)
        done = {name: text for name, text in found.items() if text is not None} == DONE
        ends.add((was_interrupted, done))
        assert done or found == before
        assert done or is_there or list(base.iterdir()) == []
        assert done or was_interrupted
        if was_interrupted is None:
            break
    # Ctrl-C is heard: at first nothing is there, and only once all is in place everything is.
    assert ends == {(True, False), (True, True), (None, True)}


def killed(target: Path, event: str, number: int) -> None:
    """Unpack in a process that is killed when it does something for the so-manieth time."""
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_interrupted import unpack
left = {number}
def hook(event, _):
    global left
    if event == {event!r}:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
unpack({str(target)!r} and __import__("pathlib").Path({str(target)!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL


def staging_in(target: Path) -> list[Path]:
    return [path for path in target.iterdir() if path.name.startswith(STAGING_PREFIX)]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    for name in ("old", "old2"):
        (path / name).write_text(name)
    return path


def test_what_a_killed_unpack_has_left_is_swept_by_the_next(target):
    killed(target, "os.link", 1)
    assert len(staging_in(target)) == 1
    assert unpack(target).backups == ()
    assert staging_in(target) == []
    assert {name: text for name, text in files_of(target).items() if text is not None} == DONE


def test_files_that_a_killed_unpack_had_replaced_stay_and_are_told(target):
    killed(target, "os.rename", 2)
    (left,) = staging_in(target)
    assert (target / "old").read_text() == "new"
    assert unpack(target).backups == (left.name,)
    assert sorted(path.read_text() for path in left.glob("old-*")) == ["old", "old2"]


def test_an_unpack_that_goes_on_is_left_alone(target):
    seen = []

    def chunks() -> Iterator[bytes]:
        assert len(staging_in(target)) == 1
        extract(
            target, [], kitfile=None, files=[LooseFile("b", 1, [b"b"])], progress=lambda _: None
        )
        seen.extend(staging_in(target))
        yield b"a"

    extract(target, [], kitfile=None, files=[LooseFile("a", 1, chunks())], progress=lambda _: None)
    assert len(seen) == 1
    assert set(files_of(target)) == {"a", "b", "old", "old2"}


@pytest.mark.parametrize(
    "names",
    [[], ["1"], ["1", "2"], ["notes.txt"], ["unpack"], ["1", "unpack"], ["old-1", "unpack"]],
)
def test_a_directory_that_is_only_called_so_stays(target, names):
    path = target / (STAGING_PREFIX + "0" * 16)
    path.mkdir(mode=0o700)
    for name in names:
        (path / name).touch()
    assert unpack(target).backups == ()
    assert sorted(os.listdir(path)) == names


def test_a_copy_of_one_that_was_left_behind_stays(target):
    """Its inode is another, whatever it says of itself."""
    killed(target, "os.link", 1)
    (left,) = staging_in(target)
    copy = target / (STAGING_PREFIX + "0" * 16)
    copy.mkdir(mode=0o700)
    (copy / "unpack").write_bytes(
        (left / "unpack").read_bytes().replace(left.name.encode(), copy.name.encode())
    )
    (copy / "1").touch()
    unpack(target)
    assert staging_in(target) == [copy]
    assert sorted(os.listdir(copy)) == ["1", "unpack"]


def test_a_mark_is_not_read_through_a_link(target, tmp_path):
    path = target / (STAGING_PREFIX + "0" * 16)
    path.mkdir(mode=0o700)
    (tmp_path / "mark").write_bytes(mark(path.name, path.stat()))
    (path / "unpack").symlink_to(tmp_path / "mark")
    (path / "1").touch()
    unpack(target)
    assert sorted(os.listdir(path)) == ["1", "unpack"]
    (path / "unpack").unlink()
    (path / "unpack").write_bytes((tmp_path / "mark").read_bytes())
    unpack(target)
    assert staging_in(target) == []


@pytest.mark.parametrize("names", [[], ["unpack"]])
def test_one_that_was_killed_before_it_had_its_mark_is_swept_once_it_is_old(target, names):
    path = target / (STAGING_PREFIX + "0" * 16)
    path.mkdir(mode=0o700)
    for name in names:
        (path / name).touch()
    os.utime(path, (0, 0))
    unpack(target)
    assert staging_in(target) == []


def test_a_staging_directory_that_others_put_there_is_not_written_to(target, monkeypatch):
    """They take away the one that was made, before it is opened."""
    open_ = os.open

    def exchange(path: Any, *rest: Any, **options: Any) -> int:
        if isinstance(path, str) and path.startswith(STAGING_PREFIX):
            os.rename(target / path, target / "taken")
            (target / path).mkdir()
            (target / path).chmod(0o777)
        return open_(path, *rest, **options)

    monkeypatch.setattr(os, "open", exchange)
    with pytest.raises(WriteError, match="can be written to by others"):
        unpack(target)
    assert files_of(target) == {"old": "old", "old2": "old2", "taken": None}
