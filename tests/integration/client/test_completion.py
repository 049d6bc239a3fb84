"""Completion in the real shells, against a peer."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kitd.ctl.completion import SCRIPTS

BIN = Path(sys.executable).parent
BREAKS = " \t\n\"'@><=;|&(:"

PROJECT = {
    "name": "sentiment",
    "path": "/srv/models/sentiment",
    "reference": "registry.example.com/team/sentiment",
    "state": "idle",
    "reason": None,
    "last_digest": None,
    "last_packed": None,
    "last_job": None,
}
KIT = {"repo": "localhost:5000/m", "digest": "sha256:" + "ab" * 32, "tags": ["v1"], "size": 2048}


def in_bash(line, peer):
    quoted = "'" + line.replace("'", "'\\''") + "'"
    script = (
        f"{SCRIPTS['bash']}\nCOMP_LINE={quoted}; COMP_POINT={len(line)}; COMP_WORDS=(kitctl)\n"
        '_kitctl; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return run(["bash", "-c", script], peer).split()


def in_fish(line, peer):
    script = f"{SCRIPTS['fish']}\ncomplete -C '{line}'"
    return [each.partition("\t")[0] for each in run(["fish", "-c", script], peer).splitlines()]


def in_zsh(line, peer):
    """Have zsh's own functions print what they would add."""
    script = (
        "compdef() { :; }\n_files() { print files; }\n"
        "_describe() { for each in $described; do print -r -- ${${each//\\\\:/%}%%:*}; done }\n"
        f"{SCRIPTS['zsh']}\nwords=(${{(z):-{line}}}); [[ '{line}' = *' ' ]] && words+=('')\n"
        "CURRENT=$#words; _kitctl"
    )
    found = run(["zsh", "-f", "-c", script], peer)
    return [each.replace("%", ":") for each in found.split()]


def run(command, peer):
    done = subprocess.run(
        command,
        env={
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(peer.path.parent),
            "KITD_SOCKET": str(peer.path),
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


SHELLS = {"bash": in_bash, "zsh": in_zsh, "fish": in_fish}


@pytest.fixture(params=SHELLS)
def shell(request):
    """Complete a line in a shell: `shell(line, peer)`."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return SHELLS[request.param]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("kitctl sta", ["status"]),
        ("kitctl jobs w", ["wait"]),
        ("kitctl pack --comp", ["--compression"]),
    ],
)
def test_commands_and_options_are_completed(shell, peer, line, words):
    assert shell(line, peer) == words


def test_what_the_daemon_knows_is_completed(shell, peer, job):
    peer.on("projects.list", {"projects": [PROJECT]})
    peer.on("jobs.list", {"jobs": [job(id=12), job(id=7)]})
    assert shell("kitctl projects hold se", peer) == ["sentiment"]
    assert shell("kitctl jobs show ", peer) == ["12", "7"]


def test_references_have_colons(peer):
    peer.on("kits.list", {"kits": [KIT]})
    if shutil.which("fish"):
        assert in_fish("kitctl push localhost:5", peer) == ["localhost:5000/m:v1"]
    if shutil.which("zsh"):
        assert in_zsh("kitctl push localhost:5", peer) == ["localhost:5000/m:v1"]
    # Of what bash takes for a break it wants what comes after it.
    bash = run([BIN / "kitctl", "__complete", "line", "kitctl push localhost:5", BREAKS], peer)
    assert bash.splitlines() == ["5000/m:v1\tabababababab, 2.0 KiB", ":none"]


def test_a_daemon_that_is_not_there_or_hangs_is_no_word(shell, peer, answer, tmp_path):
    peer.on("projects.list", answer(silent=True))
    assert shell("kitctl projects hold ", peer) == []
    peer.path.unlink()
    assert shell("kitctl projects hold ", peer) == []


def test_names_that_drive_a_terminal_or_a_shell_are_left_out(shell, peer):
    names = ["good", "a$(id)", "b c", "\x1b[2J", "d'"]
    peer.on("projects.list", {"projects": [PROJECT | {"name": name} for name in names]})
    assert shell("kitctl projects hold ", peer) == ["good"]


@pytest.mark.parametrize("name", SHELLS)
def test_the_scripts_are_read_by_their_shells(name):
    if (program := shutil.which(name)) is None:
        pytest.skip(f"{name} is not installed")
    checked = subprocess.run(
        [program, "-n"], input=SCRIPTS[name], text=True, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")
