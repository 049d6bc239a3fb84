"""Completion in the real shells, against a peer."""

import os
import pty
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kitd.ctl.completion import SCRIPTS

BIN = Path(sys.executable).parent
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
        '_kitctl kitctl "${COMP_LINE##* }"; printf "%s\\n" "${COMPREPLY[@]}"'
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
        "CURRENT=$#words; PREFIX=$words[CURRENT]; _kitctl"
    )
    found = run(["zsh", "-f", "-c", script], peer)
    return [each.replace("%", ":") for each in found.split()]


def run(command, peer, **environ):
    done = subprocess.run(
        command,
        env={
            **environ,
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
    bash = run([BIN / "kitctl", "__complete", "line", "kitctl push localhost:5", "5"], peer)
    assert bash.splitlines() == ["5000/m:v1\tabababababab, 2.0 KiB", ":none"]


RC = {
    "bash": (".bashrc", "PS1='ready> '\ntell() {{ printf '%s\\n' \"$@\" >told; }}\n{script}"),
    "zsh": (
        ".zshrc",
        (
            "PS1='ready> '\nautoload -Uz compinit; compinit -u -D\n"
            'tell() {{ print -rl -- "$@" >told }}\n{script}'
        ),
    ),
    "fish": (
        "config.fish",
        (
            "function fish_prompt; echo -n 'ready> '; end\n"
            "function tell; printf '%s\\n' $argv >told; end\n{script}"
        ),
    ),
}
START = {
    "bash": ["bash", "--rcfile", ".bashrc", "-i"],
    "zsh": ["zsh", "-d", "-i"],
    "fish": ["fish", "--no-config", "--init-command", "source config.fish", "-i"],
}


def typed_in(name, line, peer):
    """Return the words of a line after Tab was pressed at its end, in a shell on a terminal."""
    home = peer.path.parent / "home"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "kitctl").symlink_to(BIN / "kitctl")
    file, text = RC[name]
    (home / file).write_text(text.format(script=SCRIPTS[name]))
    outside, inside = pty.openpty()
    shell = subprocess.Popen(
        ["setsid", "--ctty", *START[name]],
        stdin=inside,
        stdout=inside,
        stderr=inside,
        cwd=home,
        env={
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(home),
            "ZDOTDIR": str(home),
            "TERM": "xterm",
            "LC_ALL": "C.UTF-8",
            "KITD_SOCKET": str(peer.path),
        },
    )
    os.close(inside)
    shown = b""
    try:
        while b"ready> " not in shown:
            assert select.select([outside], [], [], 30)[0], shown
            shown += os.read(outside, 65536)
        # Tab; then to the beginning of the line, to have its words told, and end.
        os.write(outside, f"{line}\t\x01tell \rexit\r".encode())
        while shell.poll() is None:
            assert select.select([outside], [], [], 30)[0], shown
            try:
                shown += os.read(outside, 65536)
            except OSError:
                # The shell has ended.
                break
        shell.wait(30)
    finally:
        shell.kill()
        shell.wait()
        os.close(outside)
    return (home / "told").read_text().splitlines()[1:]


@pytest.mark.parametrize(
    "line",
    [
        "kitctl push localhost:5",
        'kitctl push "localhost:5',
        "kitctl push 'localhost:5",
        "kitctl push localhost\\:5",
        "kitctl push localhost:5000/m\\:v",
        "~/bin/kitctl push localhost:5",
        "kitctl diff local://localhost:5",
    ],
)
@pytest.mark.parametrize("name", SHELLS)
def test_what_was_typed_stays_however_it_is_quoted(peer, name, line):
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    peer.on("kits.list", {"kits": [KIT]})
    typed = [word.removeprefix("local://") for word in typed_in(name, line, peer)]
    assert typed[1:] == ["localhost:5000/m:v1"]


def test_a_script_of_another_version_spoils_nothing(peer):
    asked = [BIN / "kitctl", "__complete", "line", "kitctl sta", " \t\n\"'@><=;|&(:"]
    assert run(asked, peer) == "\n"


def test_a_summary_that_the_encoding_does_not_have_is_no_error(peer):
    asked = [BIN / "kitctl", "__complete", "words", "import", "--inc"]
    said = run(asked, peer, PYTHONIOENCODING="latin-1")
    assert said.splitlines() == ["--include\tonly these: '*.json' ?", ":none"]


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
