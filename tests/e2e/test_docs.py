"""What the README and the pages tell people to do works as it is written there."""

import hashlib
import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MIRRORS = (ROOT / "docs" / "mirrors.md").read_text(encoding="utf-8")
PYTHON = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
RPC = (ROOT / "docs" / "rpc.md").read_text(encoding="utf-8")
REGISTRY = "registry.example.com"
BIN = Path(sys.executable).parent


def blocks(page, language):
    """Return the fenced blocks of one language, in the order of the page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)


def block_with(page, language, text):
    """Return the only block that contains a text."""
    (found,) = [block for block in blocks(page, language) if text in block]
    return found


def commands(page):
    """Return the commands at the prompts of a page."""
    return re.findall(r"^\$ (.+)$", "".join(blocks(page, "console")), flags=re.MULTILINE)


@pytest.fixture
def home(tmp_path):
    """A person's home with the README's project in it."""
    project = tmp_path / "home" / "models" / "sentiment"
    for name in ("model/weights.safetensors", "data/a.csv", "src/train.py"):
        (project / name).parent.mkdir(parents=True)
        (project / name).write_text(name)
    (project / "Kitfile").write_text(block_with(README, "yaml", "manifestVersion"))
    return tmp_path / "home"


@pytest.fixture
def shell(home):
    """Type a command as the README has it; it must succeed. Returns what it prints."""

    def run(daemon, command, cwd=home):
        done = subprocess.run(
            ["sh", "-c", command],
            env={"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(home), "KITD_SOCKET": daemon.socket},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    return run


def test_the_first_kit_and_every_day(kitd, docker_registry, skopeo, home, shell):
    """The Kitfile, `projects add`, and each command of the table, in the README's order."""
    daemon = kitd().start()

    def at_hand(command):
        at_mirror = command.replace("mirror.example.com/", f"{docker_registry.host}/mirror/")
        return at_mirror.replace(REGISTRY, docker_registry.host)

    first = [command for command in commands(README) if command.startswith("kitctl")]
    assert [command.split()[1] for command in first] == ["projects", "status"]
    for command in first:
        shell(daemon, at_hand(command))
    packed = daemon.quiet("sentiment")
    place = f"docker://{docker_registry.host}/team/sentiment:latest"
    manifest = skopeo("inspect", "--raw", "--tls-verify=false", place)
    assert packed["last_digest"] == f"sha256:{hashlib.sha256(manifest).hexdigest()}"

    job = str(daemon.jobs("pack")[0]["id"])
    rows = re.findall(r"^\| .+ \| (`kitctl .+`) \|$", README, flags=re.MULTILINE)
    daily = [command for row in rows for command in re.findall(r"`([^`]+)`", row)]
    assert len(daily) > len(rows) > 5
    for command in daily:
        # Nobody is there to press Ctrl-C.
        typed = re.sub(" 12$", f" {job}", command).replace("events -f", "events")
        assert shell(daemon, at_hand(typed), home / "models" / "sentiment")
    unpacked = home / "models" / "sentiment" / "out"
    assert [path.name for path in unpacked.rglob("*") if path.is_file()] == ["weights.safetensors"]
    assert daemon.project("sentiment")["state"] == "held"


def test_no_registry_at_hand(kitd, skopeo, home, shell, free_address):
    """`--no-push` keeps kits in the cache, and two lines make kitd a registry."""
    (option,) = re.findall(r"`(-t sentiment:latest\s+--no-push)`", README)
    lines = block_with(README, "yaml", "registry:\n").replace("127.0.0.1:5055", free_address)
    daemon = kitd(yaml.safe_load(lines)).start()

    shell(daemon, f"kitctl projects add sentiment ~/models/sentiment {' '.join(option.split())}")
    packed = daemon.quiet("sentiment")

    place = f"docker://{free_address}/sentiment:latest"
    manifest = skopeo("inspect", "--raw", "--tls-verify=false", place)
    assert packed["last_digest"] == f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def test_the_python_program(kitd, home):
    """It packs, waits and prints the result."""
    daemon = kitd().start()
    (program,) = blocks(README, "python")
    done = subprocess.run(
        [sys.executable, "-c", program.replace("/srv/models", str(home / "models"))],
        env={"KITD_SOCKET": str(daemon.socket)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert daemon.json("list")[0]["digest"] in done.stdout


def test_the_programs_of_the_python_page(kitd, home, docker_registry):
    """They pack, push, unpack and pull, one after the other."""
    daemon = kitd().start()
    for program in blocks(PYTHON, "python"):
        done = subprocess.run(
            [sys.executable, "-c", program.replace("registry.example.com", docker_registry.host)],
            env={"KITD_SOCKET": str(daemon.socket)},
            cwd=home / "models",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("sha256:")
    assert (home / "models" / "only-the-model").is_dir()


def test_the_configuration_is_valid(kitd, tmp_path):
    """`kitd check-config` takes every YAML block that is not a Kitfile."""
    shown = [block for block in blocks(README, "yaml") if "manifestVersion" not in block]
    assert len(shown) == 2
    for number, block in enumerate(shown):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block)
        done = subprocess.run(
            [BIN / "kitd", "check-config", path], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_the_line_to_try_the_socket_with(kitd):
    """The request at the prompt gets the answer below it."""
    daemon = kitd().start()
    snippet = block_with(RPC, "console", "system.ping")
    (request,) = re.findall(r"echo '(.+)' \| nc", snippet)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(daemon.socket))
        sock.sendall(f"{request}\n".encode())
        answer = sock.makefile().readline()
    assert answer == snippet.splitlines(keepends=True)[-1]
    assert json.loads(answer)["id"] == json.loads(request)["id"]


def test_mirrors_are_run_and_looked_at(kitd, start_docker_registry, home, shell):
    """The first rule of the page, each command at its prompts, and its program."""
    hosts = {name: start_docker_registry().host for name in (REGISTRY, "mirror-a", "mirror-b")}
    source = hosts[REGISTRY]

    def at_hand(text):
        for name, host in hosts.items():
            text = text.replace(f"{name.removesuffix('.example.com')}.example.com", host)
        return text

    project = home / "models" / "sentiment"
    pushing = kitd().start()
    for tag in ("v1", "v2", "latest"):
        (project / "src" / "train.py").write_text(tag)
        pushing.json("pack", project, "-t", f"{source}/team/sentiment:{tag}", "--push")
    daemon = kitd(yaml.safe_load(at_hand(blocks(MIRRORS, "yaml")[0]))).start()

    typed = [command for command in commands(MIRRORS) if command.startswith("kitctl mirror")]
    assert len(typed) == 7
    printed = {command: shell(daemon, at_hand(command)) for command in typed}
    assert "6 copied" in printed["kitctl mirror run prod"]
    assert "6 copied" in printed["kitctl mirror run prod --dry-run"]
    assert printed["kitctl mirror edges prod"].count("equal") == 6

    (program,) = blocks(MIRRORS, "python")
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"KITD_SOCKET": str(daemon.socket)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("unchanged") == 6
