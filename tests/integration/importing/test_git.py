"""Commits over real git, where they end otherwise than they should."""

import asyncio
import os

import pytest

from git_server import git, make_repository, serve_git
from kitd.errors import KitdError
from kitd.hub.error import (
    GitError,
    GitNotFoundError,
    GitUnavailableError,
    HubError,
    InvalidHubTreeError,
    NoGitError,
)
from kitd.hub.git_source import git_source
from kitd.importing.git import GitClient
from kitd.importing.git_program import GitProgram, failure_of
from kitd.importing.web import Web
from kitd.secret import Secrets
from tests.conftest import require

MODEL = bytes(range(256)) * 4000


@pytest.fixture
def server(tmp_path):
    for program in ("git", "git-lfs"):
        require(program)
    work = tmp_path / "work"
    work.mkdir()
    (work / "model.safetensors").write_bytes(MODEL)
    (work / "noise.bin").write_bytes(os.urandom(1 << 20))
    make_repository(work, tmp_path / "served" / "Org" / "Name.git")
    with serve_git(tmp_path / "served") as server:
        yield server


@pytest.fixture
async def client(stack, tmp_path):
    web = await stack.enter_async_context(Web(silence_s=5.0))
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    return GitClient(web, Secrets(), environ)


async def unlimited(_size):
    """Have room for everything."""


async def test_who_has_no_room_ends_git_and_leaves_nothing(client, server, tmp_path):
    class FullError(KitdError):
        code = "full"

    async def received(size):
        if size > 500_000:
            raise FullError("no room")

    with pytest.raises(FullError):
        async with client.open(git_source(server.address(), None), tmp_path / "git", received):
            pytest.fail("it was opened")
    assert not (tmp_path / "git").exists()


async def test_a_server_that_says_nothing_is_not_waited_for(server, tmp_path):
    server.quirks.silent = True
    program = GitProgram({"PATH": os.environ["PATH"], "HOME": str(tmp_path)})

    async def looked():
        return 0

    with pytest.raises(GitUnavailableError, match="said nothing"):
        await program.fetch(
            git_source(server.address(), None), tmp_path / "git", looked, silence_s=0.5
        )


async def test_empty_directories_that_unfold_without_end_are_not_waited_for(tmp_path):
    """Ten names for the same tree, ten times, and nothing in the last: git prints nothing of it."""
    require("git")
    bare, raw = tmp_path / "bare.git", tmp_path / "raw"
    git(tmp_path, "init", "--quiet", "--bare", "-b", "main", str(bare))
    tree, content = "", b""
    for _ in range(11):
        raw.write_bytes(content)
        tree = git(bare, "hash-object", "-t", "tree", "-w", str(raw)).strip()
        entry = bytes.fromhex(tree)
        content = b"".join(b"40000 d%d\0" % number + entry for number in range(10))
    head = git(bare, "commit-tree", "-m", "bomb", tree).strip()
    program = GitProgram({"PATH": os.environ["PATH"], "HOME": str(tmp_path)})
    with pytest.raises(InvalidHubTreeError, match=r"more than 0\.5 s") as caught:
        await program.tree(bare, head, deadline_s=0.5)
    assert caught.value.hint


async def test_a_fetch_that_goes_on_and_on_has_a_bound_however_much_it_says(tmp_path):
    """What unpacks a bomb of deltas tells its progress all the time."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "git").write_text(
        '#!/bin/sh\ncase "$*" in *" init "*) exit 0;; esac\nwhile :; do echo "Resolving"; done\n'
    )
    (programs / "git").chmod(0o755)
    program = GitProgram({"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path)})

    async def looked():
        return 0

    source = git_source("https://git.example.com/org/name", None)
    with pytest.raises(InvalidHubTreeError, match="more than 1 s") as caught:
        await program.fetch(source, tmp_path / "git", looked, cpu_s=1)
    assert caught.value.hint


async def test_a_git_that_died_is_noticed_though_what_it_started_goes_on(tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "git").write_text(
        '#!/bin/sh\ncase "$*" in *" init "*) exit 0;; esac\n'
        'sleep 1000 &\necho "fatal: couldn\'t find remote ref x"\nexit 128\n'
    )
    (programs / "git").chmod(0o755)
    program = GitProgram({"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path)})

    async def looked():
        return 0

    async with asyncio.timeout(20):
        with pytest.raises(GitNotFoundError):
            await program.fetch(
                git_source("https://git.example.com/org/name", None), tmp_path / "git", looked
            )


async def test_a_tag_of_no_commit_is_told(client, server, tmp_path):
    bare = server.root / "Org" / "Name.git"
    git(bare, "tag", "listing", "main^{tree}")
    for address in (server.address(), f"file://{bare}"):
        with pytest.raises(GitNotFoundError, match=r"listing of .* names no commit") as caught:
            async with client.open(git_source(address, "listing"), tmp_path / "git", unlimited):
                pytest.fail("it was opened")
        assert "--ref" in (caught.value.hint or "")


async def test_why_a_commit_cannot_be_listed_is_told(server, tmp_path):
    bare = server.root / "Org" / "Name.git"
    (tmp_path / "raw").write_bytes(b"40000 gone\0" + bytes(range(20)))
    tree = git(bare, "hash-object", "-t", "tree", "-w", str(tmp_path / "raw")).strip()
    head = git(bare, "commit-tree", "-m", "torn", tree).strip()
    program = GitProgram({"PATH": os.environ["PATH"], "HOME": str(tmp_path)})
    with pytest.raises(GitError, match=bytes(range(20)).hex()) as caught:
        await program.tree(bare, head)
    assert caught.value.hint


async def test_what_a_killed_attempt_left_is_begun_anew(client, server, tmp_path):
    left = tmp_path / "git"
    (left / "objects").mkdir(parents=True)
    (left / "config").write_text("[core]\n\trepositoryformatversion = 99\n")
    async with client.open(git_source(server.address(), None), left, unlimited) as origin:
        assert {file.path for file in origin.snapshot.files} == {"model.safetensors", "noise.bin"}
        assert origin.received > 1 << 20
    assert not left.exists()


async def test_several_files_are_read_at_once(client, server, tmp_path):
    async with client.open(
        git_source(server.address(), None), tmp_path / "git", unlimited
    ) as origin:
        (tmp_path / "blobs").mkdir()
        files = origin.snapshot.files
        await asyncio.gather(
            *(origin.fetch(file, tmp_path / "blobs", lambda _: None) for file in files)
        )
        assert sorted(path.name for path in (tmp_path / "blobs").iterdir()) == sorted(
            file.identity for file in files
        )


@pytest.mark.parametrize("href", ["file:///etc/passwd", "https://ada:x@storage.example.com/x", ""])
async def test_an_lfs_server_that_leads_astray_is_not_followed(client, server, tmp_path, href):
    async with client.open(
        git_source(server.address(), None), tmp_path / "git", unlimited
    ) as origin:
        (model,) = [file for file in origin.snapshot.files if file.sha256]
        download = {"download": {"href": href}}
        server.quirks.batch = {"objects": [{"oid": model.sha256, "size": 1, "actions": download}]}
        (tmp_path / "blobs").mkdir()
        with pytest.raises(HubError):
            await origin.fetch(model, tmp_path / "blobs", lambda _: None)


async def test_git_is_not_sent_on_to_where_kitd_may_have_another_login(client, server, tmp_path):
    """A rule lets callers use kitd at one host; curl would show ~/.netrc to the next as well."""
    with serve_git(server.root) as other:
        server.quirks.redirect = other.url
        with pytest.raises(GitError) as caught:
            async with client.open(git_source(server.address(), None), tmp_path / "git", unlimited):
                pytest.fail("it was opened")
        assert ".git" in (caught.value.hint or "")
        assert other.asked == []


@pytest.mark.parametrize("line", ["machine 127.0.0.1", "default"])
@pytest.mark.parametrize("filler", [0, 250])
async def test_a_login_that_curl_shows_and_the_server_repeats_is_not_told(
    client, server, tmp_path, line, filler
):
    """Wherever it stands in what the server says, of which an error holds only so much."""
    password = "netrc-canary-that-must-not-be-repeated"
    (tmp_path / ".netrc").write_text(f"{line} login robot password {password}\n")
    server.quirks.private, server.quirks.repeat = True, "x" * filler
    with pytest.raises(KitdError) as caught:
        async with client.open(git_source(server.address(), None), tmp_path / "git", unlimited):
            pytest.fail("it was opened")
    assert "redacted" in caught.value.message
    assert "netrc-c" not in caught.value.message


async def test_objects_that_are_named_by_sha256_are_told(client, tmp_path):
    work = tmp_path / "new"
    work.mkdir()
    git(work, "init", "--quiet", "--object-format=sha256", "-b", "main")
    (work / "x").write_text("x")
    git(work, "add", "-A")
    git(work, "commit", "--quiet", "-m", "first")
    with pytest.raises(GitError):
        async with client.open(git_source(f"file://{work}", None), tmp_path / "git", unlimited):
            pytest.fail("it was opened")


async def test_a_machine_without_git_is_told_what_to_install(tmp_path):
    async with Web() as web:
        client = GitClient(web, Secrets(), {"PATH": str(tmp_path)})
        source = git_source("https://git.example.com/org/name", None)
        with pytest.raises(NoGitError) as caught:
            async with client.open(source, tmp_path / "git", unlimited):
                pytest.fail("it was opened")
        assert "install" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("fatal: couldn't find remote ref v9", "git_not_found"),
        (
            "remote: Repository not found.\nfatal: repository 'https://x/' not found",
            "git_not_found",
        ),
        ("fatal: could not read Username for 'https://x': terminal prompts disabled", "git_denied"),
        ("git@x: Permission denied (publickey).\nfatal: Could not read from it", "git_denied"),
        ("Host key verification failed.\nfatal: Could not read from remote", "git_denied"),
        ("fatal: detected dubious ownership in repository at '/srv/x'", "git_denied"),
        ("fatal: transport 'ext' not allowed", "git"),
        ("fatal: unable to access 'https://x/': Could not resolve host: x", "git_unavailable"),
        ("", "git_unavailable"),
        ("remote: \x1b[2Jlook at me\r\nfatal: the remote end hung up", "git_unavailable"),
    ],
)
def test_why_git_failed(said, code):
    error = failure_of(said, git_source("https://git.example.com/org/name", "v9"))
    assert error.code == code
    assert error.hint or code == "git"
    assert error.message.isprintable()
