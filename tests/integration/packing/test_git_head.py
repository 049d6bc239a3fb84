"""The commit of a project, compared with what git says."""

import os
import subprocess
from pathlib import Path

import pytest

from kitd.packing.git_head import head_commit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def git(tmp_path):
    """Run git in an empty directory with nobody's configuration."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_NAME": "Ada" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": "ada@example.com" for who in ("AUTHOR", "COMMITTER")},
    }

    def run(*arguments):
        command = ["git", "-C", str(tmp_path), *arguments]
        done = subprocess.run(command, capture_output=True, check=True, env=environment)
        return done.stdout.decode().strip()

    try:
        run("init", "--quiet", "--initial-branch", "feature/one.two_3")
    except FileNotFoundError:
        pytest.skip("git is not installed")
    return run


def head(root):
    handle = os.open(root, os.O_RDONLY)
    try:
        return head_commit(handle, None)
    finally:
        os.close(handle)


def test_a_repository_without_commits_has_none(git, tmp_path):
    assert head(tmp_path) is None


def test_the_head_is_what_git_says_however_it_is_stored(git, tmp_path):
    git("commit", "--quiet", "--allow-empty", "--message", "one")
    first = git("rev-parse", "HEAD")
    assert head(tmp_path) == first
    git("pack-refs", "--all")
    assert not (tmp_path / ".git/refs/heads/feature/one.two_3").exists()
    assert head(tmp_path) == first
    git("commit", "--quiet", "--allow-empty", "--message", "two")
    assert head(tmp_path) == git("rev-parse", "HEAD") != first
    git("checkout", "--quiet", "--detach", first)
    assert head(tmp_path) == first


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"HEAD": ""},
        {"HEAD": "ref: refs/heads/main\n"},
        {"HEAD": "ref: refs/heads/main\n", "refs/heads/main": "not a commit"},
        {"HEAD": "ref: refs/heads/main\n", "packed-refs": f"{COMMIT} refs/heads/maine\n"},
        {"HEAD": "ref: refs/../../secret\n"},
        {"HEAD": "ref: /etc/hostname\n"},
        {"HEAD": COMMIT.upper()},
        {"HEAD": COMMIT + "0"},
        {"HEAD": "\ufffd" * 100},
        {"HEAD/x": ""},
    ],
)
def test_anything_else_is_no_commit_and_no_error(tmp_path, files):
    (tmp_path / "secret").write_text(COMMIT)
    for name, content in files.items():
        path: Path = tmp_path / ".git" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    open_files = len(os.listdir("/proc/self/fd"))
    assert head(tmp_path) is None
    assert len(os.listdir("/proc/self/fd")) == open_files


def test_a_worktrees_git_file_is_not_followed(tmp_path):
    (tmp_path / ".git").write_text("gitdir: /elsewhere\n")
    assert head(tmp_path) is None


def test_a_head_that_is_a_fifo_holds_nothing_up(tmp_path):
    (tmp_path / ".git").mkdir()
    os.mkfifo(tmp_path / ".git/HEAD")
    assert head(tmp_path) is None


def test_a_link_in_place_of_the_head_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").write_text(COMMIT)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/HEAD").symlink_to("../elsewhere")
    assert head(tmp_path) is None
