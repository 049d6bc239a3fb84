"""A tool that is at work on a tree holds the projects in it back."""

import fcntl
import json
import os
import subprocess
import sys

import pytest

STALE_S = 700.0


@pytest.fixture
def git(tmp_path):
    """Run git with a configuration of its own."""
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "LC_ALL": "C"}
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")

    def git(directory, *arguments, check=True):
        command = ("git", "-C", str(directory), *identity, *arguments)
        subprocess.run(command, check=check, capture_output=True, env=environment)

    return git


@pytest.fixture
def repository(project, git):
    """A repository with two branches that changed the same file."""
    root = project({"a": "1", "models/x/Kitfile": ""})
    git(root, "init", "--initial-branch=main")
    git(root, "add", ".")
    git(root, "commit", "-m", "one")
    git(root, "checkout", "-b", "other")
    (root / "a").write_text("2")
    git(root, "commit", "-am", "two")
    git(root, "checkout", "main")
    (root / "a").write_text("3")
    git(root, "commit", "-am", "three")
    return root


def test_nobody_is_at_work_on_a_plain_directory(project, at_work):
    assert at_work(project({"a": ""})) == ([], [])


def test_nobody_is_at_work_on_a_repository_at_rest(repository, at_work):
    assert at_work(repository) == ([], [])


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("gone", path)])
def test_a_hold_file_holds_whatever_it_is_and_however_old(project, at_work, make):
    root = project({"sub/.kitd-hold": ""})
    assert at_work(root) == ([], [])
    make(root / ".kitd-hold")
    for later_s in (0, STALE_S):
        assert at_work(root, later_s) == ([("hold_file", ".kitd-hold")], [])


def test_an_old_lock_that_git_has_open_is_no_old_lock(repository, at_work):
    with (repository / ".git/index.lock").open("wb"):
        assert at_work(repository, STALE_S) == ([("git", ".git/index.lock")], [])
    assert at_work(repository, STALE_S)[0] == []


@pytest.mark.parametrize("name", ["index.lock", "HEAD.lock"])
def test_a_lock_of_git_holds_until_it_is_stale(repository, at_work, name):
    (repository / ".git" / name).write_bytes(b"")
    assert at_work(repository) == ([("git", f".git/{name}")], [])
    warning = f".git/{name} is older than 10 minutes and ignored"
    for later_s in (STALE_S, -STALE_S):
        assert at_work(repository, later_s) == ([], [warning])


@pytest.mark.parametrize(
    ("arguments", "sign"),
    [
        (("merge", "other"), "MERGE_HEAD"),
        (("cherry-pick", "other"), "CHERRY_PICK_HEAD"),
        (("rebase", "other"), "rebase-merge"),
        (("rebase", "--apply", "other"), "rebase-apply"),
        (("revert", "other"), "REVERT_HEAD"),
    ],
)
def test_what_git_could_not_finish_holds_until_it_is_done(
    repository, git, at_work, arguments, sign
):
    git(repository, *arguments, check=False)
    for later_s in (0, STALE_S):
        assert at_work(repository, later_s) == ([("git", f".git/{sign}")], [])
    git(repository, arguments[0], "--abort")
    assert at_work(repository) == ([], [])


def test_a_project_within_a_repository_is_held_by_the_path_of_the_lock(repository, at_work):
    lock = repository / ".git" / "index.lock"
    lock.write_bytes(b"")
    assert at_work(repository / "models" / "x") == ([("git", str(lock))], [])


def test_a_repository_within_the_repository_is_asked_alone(repository, git, at_work):
    (repository / ".git" / "index.lock").write_bytes(b"")
    git(repository / "models" / "x", "init")
    assert at_work(repository / "models" / "x") == ([], [])


def test_a_worktree_is_held_by_its_own_lock(repository, git, at_work, tmp_path):
    git(repository, "worktree", "add", str(tmp_path / "tree"), "other")
    (repository / ".git" / "index.lock").write_bytes(b"")
    assert at_work(tmp_path / "tree") == ([], [])
    lock = repository / ".git" / "worktrees" / "tree" / "index.lock"
    lock.write_bytes(b"")
    assert at_work(tmp_path / "tree") == ([("git", str(lock))], [])


def test_a_submodule_is_held_by_its_own_lock(repository, git, at_work, tmp_path):
    git(tmp_path, "init", "parent")
    git(
        tmp_path / "parent",
        *("-c", "protocol.file.allow=always", "submodule", "add", str(repository), "sub"),
    )
    assert (tmp_path / "parent/sub/.git").is_file()
    assert at_work(tmp_path / "parent/sub") == ([], [])
    lock = tmp_path / "parent/.git/modules/sub/index.lock"
    lock.write_bytes(b"")
    assert at_work(tmp_path / "parent/sub") == ([("git", str(lock))], [])


@pytest.mark.parametrize(
    "link", [b"", b"gitdir: ", b"gitdir: gone", b"gitdir: a\0b", b"gitdir: \xff", b"x" * 9000]
)
def test_a_git_file_that_leads_nowhere_holds_nothing(project, at_work, link):
    assert at_work(project({".git": link})) == ([], [])


def test_a_git_fifo_is_not_waited_for(project, at_work):
    root = project({})
    os.mkfifo(root / ".git")
    assert at_work(root) == ([], [])


def test_the_file_of_dvc_holds_while_it_is_locked(project, at_work):
    root = project({".dvc/tmp/lock": " 4711\n", "models/a": ""})
    assert at_work(root) == ([], [])
    with (root / ".dvc/tmp/lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for later_s in (0, STALE_S):
            assert at_work(root, later_s) == ([("dvc", ".dvc/tmp/lock")], [])
        assert at_work(root / "models") == ([("dvc", str(root / ".dvc/tmp/lock"))], [])
    assert at_work(root) == ([], [])


def test_looking_leaves_the_lock_of_dvc_free(project, at_work):
    root = project({".dvc/tmp/lock": ""})
    at_work(root)
    with (root / ".dvc/tmp/lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_hard_link_of_the_lock_of_dvc_holds_until_it_is_stale(project, at_work):
    root = project({".dvc/tmp/claim": ""})
    os.link(root / ".dvc/tmp/claim", root / ".dvc/tmp/lock")
    assert at_work(root) == ([("dvc", ".dvc/tmp/lock")], [])
    warning = ".dvc/tmp/lock is older than 10 minutes and ignored"
    assert at_work(root, STALE_S) == ([], [warning])


def test_a_stage_of_dvc_holds_while_its_process_runs(project, at_work):
    root = project({})
    (root / ".dvc/tmp").mkdir(parents=True)
    script = "import sys; print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, "dvc", "repro"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stage:
        stage.stdout.readline()
        owner = {"pid": stage.pid, "cmd": "dvc repro"}
        rwlock = {"write": {str(root / "model.bin"): owner}, "read": {"data": [owner]}}
        (root / ".dvc/tmp/rwlock").write_text(json.dumps(rwlock))
        assert at_work(root) == ([("dvc", ".dvc/tmp/rwlock")], [])
    assert at_work(root) == ([], [])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        '{"write": {"a": {"pid": 99999999999999, "cmd": "x"}}}',
        '{"write": {"a": {"pid": "1", "cmd": "x"}}}',
        '{"write": {"a": {"pid": 1, "cmd": "init"}}}',
        '{"read": {"a": [{"pid": 1, "cmd": "x"}]}}',
        '{"write": ' + "[" * 100_000,
        '{"write": {"\udcff": 1}}',
    ],
)
def test_an_rwlock_that_names_no_running_stage_holds_nothing(project, at_work, content):
    root = project({".dvc/tmp/rwlock": content.encode("utf-8", "surrogateescape")})
    assert at_work(root) == ([], [])
