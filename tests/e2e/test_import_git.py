"""`kitctl import` from git: commits with LFS, whatever the repository or its server is like."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest
import yaml

from git_server import PASSWORD, SIGNED, USER, git, make_repository, publish, serve_git
from kitd.modelkit.generate import CROWD
from tests.conftest import require
from tests.e2e.conftest import wait_until

MODEL = bytes(range(256)) * 32000
"""Half of it is more than a broken connection can take along of what was received and not read."""
FOREIGN = "#!/bin/sh\ntouch {}\n"


@pytest.fixture
def work(tmp_path):
    """A repository as its author has it."""
    root = tmp_path / "work"
    (root / "src").mkdir(parents=True)
    (root / "model.safetensors").write_bytes(MODEL)
    (root / "src" / "train.py").write_text("print('train')\n")
    (root / "src" / "run").write_text("#!/bin/sh\n")
    (root / "src" / "run").chmod(0o755)
    (root / "README.md").write_text("# A model\n")
    (root / ".gitignore").write_text("*.tmp\n")
    return root


@pytest.fixture
def bare(work, tmp_path):
    for program in ("git", "git-lfs"):
        require(program)
    make_repository(work, tmp_path / "served" / "Org" / "Name.git")
    return tmp_path / "served" / "Org" / "Name.git"


@pytest.fixture
def server(bare, tmp_path):
    with serve_git(tmp_path / "served") as server:
        yield server


@pytest.fixture
def daemon(kitd):
    """A daemon with a home of its own."""
    return kitd().start()


def commit(work, bare):
    git(work, "add", "-A")
    git(work, "commit", "--quiet", "-m", "more")
    publish(work, bare)


def nothing_left(daemon):
    """Wait until what imports have fetched is gone."""
    places = daemon.cache / "imports"
    wait_until("the import's files to go", lambda: not list(places.iterdir()))


def unpacked(daemon, reference, target):
    daemon.json("unpack", reference, "-d", target)
    return {
        str(path.relative_to(target)): (path.read_bytes(), bool(path.stat().st_mode & 0o100))
        for path in target.rglob("*")
        if path.is_file()
    }


def test_a_repository_becomes_a_kit_as_git_with_lfs_has_it(daemon, server, work, bare, tmp_path):
    """The same files with the same content and rights that a clone has, but for git's own."""
    made = daemon.json("import", server.address())
    assert made["reference"] == "org/name:latest"
    assert made["source"] == server.address()
    assert made["revision"] == git(work, "rev-parse", "HEAD").strip()
    assert len(MODEL) < made["received"] < len(MODEL) + 10_000
    found = unpacked(daemon, "org/name", tmp_path / "target")
    kitfile = yaml.safe_load(found.pop("Kitfile")[0])
    assert kitfile["package"] == {"name": "Name", "authors": ["Org"]}
    assert kitfile["model"] == {"name": "model", "path": "model.safetensors"}
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(bare), str(clone), GIT_LFS_SKIP_SMUDGE="1")
    shutil.copyfile(work / "model.safetensors", clone / "model.safetensors")
    expected = {
        str(path.relative_to(clone)): (path.read_bytes(), bool(path.stat().st_mode & 0o100))
        for path in clone.rglob("*")
        if path.is_file() and ".git" not in path.parts and not path.name.startswith(".git")
    }
    assert found == expected
    assert found["src/run"][1]
    nothing_left(daemon)
    again = daemon.json("import", server.address(), "-t", "org/name:v2")
    assert (again["digest"], again["unchanged"]) == (made["digest"], True)


def test_storage_is_shown_what_belongs_there_and_nothing_is_told(daemon, server, tmp_path):
    """Who asks is known from ~/.netrc; neither password nor link is kept anywhere."""
    server.quirks.private = True
    refused = daemon.kitctl("import", server.address(), "--json")
    assert refused.json["error"]["code"] == "git_denied"
    (daemon.place / ".netrc").write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    server.asked.clear()
    daemon.json("import", server.address())
    assert {shown for name, _, _, shown, _ in server.asked if name == "storage"} == {SIGNED}
    told = daemon.log.read_text() + daemon.kitctl("events", "--json").out
    kept = b"".join(
        path.read_bytes() for path in (daemon.place / "state").rglob("*") if path.is_file()
    )
    for secret in (PASSWORD, SIGNED.split()[1]):
        assert secret not in told
        assert secret.encode() not in kept


@pytest.mark.parametrize(
    "address",
    [
        "https://ada:{secret}@git.example.com/org/name.git",
        "https://{secret}@git.example.com/org/name.git",
        "http://git.example.com/org/{secret}",
        "ext::sh -c {secret}",
        "--upload-pack={secret}",
        "ssh://-oProxyCommand={secret}/org/name",
        "git@-oProxyCommand={secret}:org/name",
        "git://git.example.com/org/{secret}",
        "https://git.example.com/org/../{secret}",
        "file://elsewhere/{secret}",
        "fd::17/{secret}",
    ],
)
def test_addresses_that_lead_astray_are_refused_and_forgotten(daemon, address):
    secret = "canary-that-must-not-be-repeated"
    refused = daemon.kitctl("import", "--tool", "git", "--", address.format(secret=secret))
    assert (refused.code, secret in refused.err, "Traceback" in refused.err) == (1, False, False)
    assert daemon.json("jobs", "list") == []
    assert secret not in daemon.log.read_text()


def test_revisions_patterns_and_a_kitfile_of_the_repository(daemon, server, work, bare, tmp_path):
    first = git(work, "rev-parse", "HEAD").strip()
    git(work, "tag", "-a", "v1", "-m", "one")
    kitfile = "manifestVersion: 1.0.0\nmodel: {name: m, path: model.safetensors}\n"
    (work / "Kitfile").write_text(kitfile)
    git(work, "checkout", "--quiet", "-b", "with/kitfile")
    commit(work, bare)
    git(work, "checkout", "--quiet", "main")
    by_tag = daemon.json("import", server.address(), "-t", "one", "--ref", "v1")
    by_commit = daemon.json("import", server.address(), "-t", "one:v2", "--ref", first)
    assert by_tag["revision"] == by_commit["revision"] == first
    branch = daemon.json("import", server.address(), "-t", "two", "--ref", "with/kitfile")
    assert (branch["files"], branch["received"] >= len(MODEL)) == (1, True)
    assert set(unpacked(daemon, "two", tmp_path / "two")) == {"Kitfile", "model.safetensors"}
    server.asked.clear()
    small = daemon.json("import", server.address(), "-t", "three", "--include", "src/")
    assert small["files"] == 2
    assert [name for name, *_ in server.asked if name == "storage"] == []
    for revision in ("nowhere", "0" * 40):
        refused = daemon.kitctl("import", server.address(), "--ref", revision, "--json")
        assert refused.json["error"]["code"] == "git_not_found"
    gone = daemon.kitctl("import", server.address("Org/Other.git"), "--json")
    assert gone.json["error"]["code"] == "git_not_found"
    nothing_left(daemon)


def test_what_its_kitignore_leaves_out_is_not_had_from_lfs(daemon, server, work, bare, tmp_path):
    """With a Kitfile of its own, and with a generated one, which does not name it."""
    (work / ".kitignore").write_text("*.safetensors\nsrc/run\n")
    commit(work, bare)
    made = daemon.json("import", server.address(), "-t", "one")
    assert (made["files"], made["received"] < len(MODEL)) == (3, True)
    found = unpacked(daemon, "one", tmp_path / "one")
    assert set(found) == {"Kitfile", "README.md", "src/train.py"}
    assert b"safetensors" not in found["Kitfile"][0]
    (work / "Kitfile").write_text("manifestVersion: 1.0.0\ncode: [{path: .}]\n")
    commit(work, bare)
    daemon.json("import", server.address(), "-t", "two")
    found = unpacked(daemon, "two", tmp_path / "two")
    assert {"Kitfile", "README.md", "src/train.py"} <= set(found)
    assert not {"model.safetensors", "src/run"} & set(found)
    assert [name for name, *_ in server.asked if name == "storage"] == []


def test_a_kitfile_of_a_repository_sends_kitd_to_no_registry(
    daemon, server, work, bare, docker_registry
):
    base = f"{docker_registry.host}/team/base:v1"
    daemon.json("import", server.address(), "-t", base, "--push")
    daemon.json("remove", base)
    kitfile = f"manifestVersion: 1.0.0\nmodel: {{path: '{base}'}}\ncode: [{{path: .}}]\n"
    (work / "Kitfile").write_text(kitfile)
    commit(work, bare)
    refused = daemon.kitctl("import", server.address(), "--json")
    assert refused.json["error"]["hint"] == f"kitctl pull {base}"
    daemon.json("pull", base)
    assert daemon.json("import", server.address())["reference"] == "org/name:latest"


@pytest.mark.parametrize(
    "paths", [("Kitfile/a.json",), tuple(f"{number}.json" for number in range(CROWD))]
)
def test_what_no_kitfile_can_be_put_into_is_refused(daemon, server, work, bare, paths):
    for path in paths:
        (work / path).parent.mkdir(exist_ok=True)
        (work / path).touch()
    commit(work, bare)
    refused = daemon.kitctl("import", server.address(), "--json")
    assert refused.json["error"]["code"] == "invalid_hub_tree"
    assert [name for name, *_ in server.asked if name == "storage"] == []
    nothing_left(daemon)


def test_what_a_repository_would_have_run_or_written_is_data(daemon, server, work, bare, tmp_path):
    """Hooks, filters, submodules, links out and a server of LFS of its own choice."""
    mark = tmp_path / "mark"
    (work / "escape").symlink_to("/etc/passwd")
    (work / "dir").symlink_to("/tmp")
    (work / ".lfsconfig").write_text(f"[lfs]\n\turl = {server.storage}/elsewhere\n")
    (work / ".gitattributes").write_text(
        "*.safetensors filter=lfs\n*.md filter=evil ident eol=crlf\n"
    )
    (work / ".gitmodules").write_text(f'[submodule "s"]\n\tpath = s\n\turl = ext::touch {mark}\n')
    git(work, "add", "-A")
    git(work, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},s")
    git(work, "commit", "--quiet", "-m", "more")
    publish(work, bare)
    for hook in ("post-checkout", "post-merge", "reference-transaction"):
        (bare / "hooks").mkdir(exist_ok=True)
        (bare / "hooks" / hook).write_text(FOREIGN.format(mark))
        (bare / "hooks" / hook).chmod(0o755)
    git(bare, "config", "filter.evil.smudge", f"touch {mark}")
    made = daemon.json("import", server.address())
    told = "\n".join(made["warnings"])
    assert "symbolic links: dir, escape" in told
    assert "other repositories: s" in told
    found = unpacked(daemon, "org/name", tmp_path / "target")
    assert found["README.md"] == (b"# A model\n", False)
    assert set(found) == {"Kitfile", "README.md", "model.safetensors", "src/train.py", "src/run"}
    assert not mark.exists()
    assert not any("elsewhere" in path for _, _, path, _, _ in server.asked)


@pytest.mark.parametrize("name", [".git/config", "a/.GIT/hooks/x", "a/\x1bb", "..\\x"])
def test_names_that_no_file_should_have_are_refused(daemon, server, work, bare, name):
    """Git itself would not make such trees; who serves one can."""
    tree = None
    blob = git(work, "rev-parse", "HEAD:README.md").strip()
    mode, entry = b"100644", bytes.fromhex(blob)
    for part in reversed(name.split("/")):
        content = mode + b" " + part.encode() + b"\0" + entry
        raw = b"tree %d\0" % len(content) + content
        tree = hashlib.sha1(raw).hexdigest()
        (work.parent / "raw").write_bytes(content)
        written = git(
            bare, "hash-object", "-t", "tree", "-w", "--literally", str(work.parent / "raw")
        )
        assert written.strip() == tree
        mode, entry = b"40000", bytes.fromhex(tree)
    head = git(bare, "commit-tree", "-m", "hostile", tree).strip()
    git(bare, "update-ref", "refs/heads/main", head)
    refused = daemon.kitctl("import", server.address(), "--json")
    assert refused.json["error"]["code"] == "invalid_hub_tree"
    nothing_left(daemon)


def test_a_tree_that_unfolds_without_end_is_refused(daemon, server, bare, work):
    """Ten names for the same tree, twelve times: 10^12 files in a few hundred bytes."""
    entry, mode = bytes.fromhex(git(work, "rev-parse", "HEAD:README.md").strip()), b"100644"
    tree = ""
    for _ in range(12):
        content = b"".join(mode + b" d%d\0" % number + entry for number in range(10))
        (work.parent / "raw").write_bytes(content)
        tree = git(bare, "hash-object", "-t", "tree", "-w", str(work.parent / "raw")).strip()
        entry, mode = bytes.fromhex(tree), b"40000"
    head = git(bare, "commit-tree", "-m", "bomb", tree).strip()
    git(bare, "update-ref", "refs/heads/main", head)
    refused = daemon.kitctl("import", server.address(), "--json")
    assert refused.json["error"]["code"] == "invalid_hub_tree"
    nothing_left(daemon)


def test_lfs_that_hiccups_is_gone_on_with(daemon, server, tmp_path):
    server.quirks.busy, server.quirks.cut = 1, 1
    made = daemon.json("import", server.address())
    ranges = [wanted for name, *_, wanted in server.asked if name == "storage"]
    assert (len(ranges), ranges[0]) == (2, None)
    assert int(ranges[1].removeprefix("bytes=")[:-1]) > 0, "it began from nothing"
    assert made["received"] < len(MODEL) + 10_000
    assert unpacked(daemon, "org/name", tmp_path / "t")["model.safetensors"][0] == MODEL


def test_what_lfs_does_not_have_or_gets_wrong_is_told(daemon, server):
    server.quirks.missing = True
    refused = daemon.kitctl("import", server.address(), "--json")
    assert refused.json["error"]["code"] == "hub_not_found"
    assert "git lfs push" in refused.json["error"]["hint"]
    server.quirks.missing, server.quirks.wrong = False, True
    job = str(daemon.json("import", server.address(), "--detach")["job"])
    wait_until("a failure", lambda: daemon.json("jobs", "show", job)["error"])
    assert daemon.json("jobs", "show", job)["error"]["code"] == "hub_content"
    assert daemon.json("list") == []


def test_a_killed_daemon_goes_on_with_lfs_and_leaves_nothing(daemon, server, tmp_path):
    server.quirks.stall = True
    job = str(daemon.json("import", server.address(), "--detach")["job"])
    parts = daemon.cache / "imports" / job / "blobs"
    wait_until(
        "half of the file", lambda: any(p.stat().st_size > 400_000 for p in parts.glob("*.part"))
    )
    daemon.kill()
    server.quirks.stall = False
    server.asked.clear()
    daemon.start()
    ended = daemon.json("jobs", "wait", job, "--timeout", "30s")
    assert ended["state"] == "succeeded"
    assert [wanted for name, *_, wanted in server.asked if name == "storage"] != [None]
    assert unpacked(daemon, "org/name", tmp_path / "t")["model.safetensors"][0] == MODEL
    nothing_left(daemon)


def git_processes(daemon):
    """Return the processes that work in a daemon's cache."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if str(daemon.cache).encode() in command and b"git" in command:
            found.append(path)
    return found


def test_a_cancelled_import_leaves_no_process_and_no_file(daemon, server):
    server.quirks.silent = True
    job = str(daemon.json("import", server.address(), "--detach")["job"])
    wait_until("a server that says nothing", server.stalled.is_set)
    assert git_processes(daemon)
    daemon.json("jobs", "cancel", job)
    wait_until("the end", lambda: daemon.json("jobs", "show", job)["state"] == "cancelled")
    wait_until("git to end", lambda: not git_processes(daemon))
    nothing_left(daemon)


def test_a_directory_of_this_machine(daemon, work, bare, tmp_path):
    by_path = daemon.json("import", bare, "-t", "one")
    by_url = daemon.json("import", f"file://{work}", "-t", "two")
    assert by_path["revision"] == by_url["revision"]
    one, two = (unpacked(daemon, name, tmp_path / name) for name in ("one", "two"))
    assert one.pop("Kitfile") != two.pop("Kitfile")
    assert one == two
    assert daemon.json("import", work)["reference"] == "work:latest"
    model = next(path for path in (bare / "lfs").rglob("*") if path.is_file())
    model.unlink()
    refused = daemon.kitctl("import", bare, "-t", "three", "--json")
    assert refused.json["error"]["code"] == "hub_not_found"


def test_without_git_it_is_told_what_to_do(kitd, bare, tmp_path):
    daemon = kitd()
    empty = tmp_path / "empty"
    empty.mkdir()
    daemon.environ["PATH"] = str(empty)
    daemon.start()
    refused = daemon.kitctl("import", bare, "--json")
    assert refused.json["error"]["code"] == "no_git"
    assert "install" in refused.json["error"]["hint"]


def test_by_ssh_with_an_lfs_server_that_is_named_there(kitd, server, bare, tmp_path):
    """What stands for ssh runs here what it is asked for."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "ssh").write_text(
        "#!/bin/sh\n"
        'echo "$*" >> ' + str(tmp_path / "asked") + "\n"
        'while [ "${1#-}" != "$1" ]; do [ "$1" = -- ] && { shift; break; }; '
        '[ "$1" = -p ] && shift; [ "$1" = -o ] && shift; shift; done\n'
        'shift\nexport PATH="' + str(programs) + ':$PATH"\nexec sh -c "$*"\n'
    )
    (programs / "git-lfs-authenticate").write_text(
        f'#!/bin/sh\n[ "$2" = download ] || exit 1\n'
        f'echo \'{{"href": "{server.url}/Org/Name.git/info/lfs", "header": {{}}}}\'\n'
    )
    for name in ("ssh", "git-lfs-authenticate"):
        (programs / name).chmod(0o755)
    daemon = kitd()
    daemon.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
    daemon.start()
    made = daemon.json("import", f"git@localhost:{bare}", "-t", "one")
    assert unpacked(daemon, "one", tmp_path / "one")["model.safetensors"][0] == MODEL
    again = daemon.json("import", f"ssh://git@localhost:2222{bare}", "-t", "one:v2")
    assert again["digest"] == made["digest"]
    asked = (tmp_path / "asked").read_text()
    assert "BatchMode=yes" in asked
    assert "-p 2222" in asked


def test_the_kit_is_pushed_where_that_is_asked_for(daemon, server, docker_registry, tmp_path):
    reference = f"{docker_registry.host}/team/name:v1"
    made = daemon.json("import", server.address(), "-t", reference, "--push")
    assert (made["push"]["reference"], made["push"]["digest"]) == (reference, made["digest"])
    assert daemon.json("inspect", "--remote", reference)["digest"] == made["digest"]
    local = daemon.kitctl("import", server.address(), "--push")
    assert (local.code, "names no registry" in local.err) == (1, True)
