"""What the README and the pages tell people to do works as it is written there.

Every block of every page is run by `test_a_page`, in the order of its page, but for those that a
comment in the page excepts; `tests/unit/docs/test_pages.py` lists these.
"""

import asyncio
import hashlib
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from docs_runner.page import PAGES, RUN, run_elsewhere
from docs_runner.page import blocks as blocks_of
from docs_runner.tour import Tour
from git_server import git, make_repository, serve_git
from hub_server import HubServer
from kitd.ledger.event_type import EVENT_TYPES
from tests.conftest import require

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
REGISTRY = "registry.example.com"
BIN = Path(sys.executable).parent
KITFILE = """\
manifestVersion: 1.0.0
package:
  name: sentiment
  version: 0.1.0
model:
  name: weights
  path: model/weights.safetensors
datasets:
  - name: reviews
    path: data
code:
  - path: src
"""
PAGES_RUN = [page for page in PAGES if any(block.marker is None for block in blocks_of(page))]


def blocks(page, language):
    """Return the fenced blocks of one language, in the order of the page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)


def commands(page):
    """Return the commands at the prompts of a page."""
    return re.findall(r"^\$ (.+)$", "".join(blocks(page, "console")), flags=re.MULTILINE)


def typed(page, beginning):
    """Return the command that begins so, with all its lines; if there are several, the first."""
    return next(
        step.command
        for block in blocks_of(page)
        if block.language == "console"
        for step in block.steps
        if step.command.startswith(beginning)
    )


@pytest.fixture
def home(tmp_path):
    """A person's home with the README's project in it, as yet without a Kitfile."""
    project = tmp_path / "home" / "models" / "sentiment"
    for name in ("model/weights.safetensors", "data/a.csv", "src/train.py"):
        (project / name).parent.mkdir(parents=True)
        (project / name).write_text(name)
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


def test_the_first_kit_and_every_day(kitd, docker_registry, skopeo, home, shell, free_address):
    """What is typed for a first kit, and each command of the table, in the README's order.

    Nothing but what the README says has to be known or to be there: the kit is in the registry
    that its configuration makes of kitd.
    """

    def at_hand(command):
        here = command.replace("127.0.0.1:5055", free_address)
        at_mirror = here.replace("mirror.example.com/", f"{docker_registry.host}/mirror/")
        return at_mirror.replace(REGISTRY, docker_registry.host)

    typed = commands(README[README.index("## Your first kit") : README.index("## Every day")])
    serve = typed.index("kitd serve --config ~/kitd.yaml")
    for command in typed[:serve]:
        done = subprocess.run(
            ["sh", "-c", at_hand(command)], env={"PATH": "/usr/bin:/bin", "HOME": home}, check=False
        )
        assert done.returncode == 0, command
    config = (home / "kitd.yaml").read_text()
    daemon = kitd(yaml.safe_load(config)).start()
    (enter, *first), elsewhere = typed[serve + 1 : -1], typed[-1]
    assert enter == "cd ~/models/sentiment"
    for command in first:
        if command.startswith("kitctl list"):
            packed = daemon.quiet("sentiment")
        assert shell(daemon, at_hand(command), home / "models" / "sentiment")
    for command, place in (
        (None, f"{free_address}/sentiment:latest"),
        (elsewhere, f"{docker_registry.host}/team/sentiment:latest"),
    ):
        if command is not None:
            shell(daemon, at_hand(command), home / "models" / "sentiment")
            packed = daemon.quiet("sentiment")
        manifest = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{place}")
        assert packed["last_digest"] == f"sha256:{hashlib.sha256(manifest).hexdigest()}"

    job = str(daemon.jobs("pack")[0]["id"])
    rows = re.findall(r"^\| .+ \| (`kitctl .+`) \|$", README, flags=re.MULTILINE)
    daily = [command for row in rows for command in re.findall(r"`([^`]+)`", row)]
    assert len(daily) > len(rows) > 5
    for command in daily:
        # Nobody is there to press Ctrl-C, and the Kitfile is there already.
        once = re.sub(" 12$", f" {job}", command).replace("events -f", "events")
        once = once.replace("init .", "init . --force")
        assert shell(daemon, at_hand(once), home / "models" / "sentiment")
    unpacked = home / "models" / "sentiment" / "out"
    assert [path.name for path in unpacked.rglob("*") if path.is_file()] == ["weights.safetensors"]
    assert daemon.project("sentiment")["state"] == "held"


def test_no_registry_at_all(kitd, home, shell):
    """`--no-push` keeps kits in the cache."""
    (option,) = re.findall(r"`(-t sentiment:latest\s+--no-push)`", README)
    daemon = kitd().start()
    project = home / "models" / "sentiment"
    (project / "Kitfile").write_text(KITFILE)

    shell(daemon, f"kitctl projects add sentiment . {option}", project)

    assert daemon.quiet("sentiment")["last_digest"] is not None
    assert daemon.jobs("push") == []


def test_the_demo():
    """What `make demo` runs once everything is installed."""
    (make,) = run_elsewhere("README.md", "console").steps
    (target,) = re.findall(r"^make (\w+)$", make.command)
    makefile = (ROOT / "Makefile").read_text()
    (recipe,) = re.findall(rf"^{target}:.*\n\t@(.+)$", makefile, re.MULTILINE)
    assert recipe == "$(BIN)/python -I tests/e2e/demo.py"
    done = subprocess.run(
        [sys.executable, "-I", ROOT / "tests" / "e2e" / "demo.py"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


NETCAT = """\
#!{python}
# `nc -U -q1 PATH`, whichever netcat there is: sends its input, and prints one line of the answer.
import socket, sys

with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[-1])
    sock.sendall(sys.stdin.buffer.read())
    sys.stdout.write(sock.makefile().readline())
"""

SECRET = "correct-horse-battery-staple"


class Setting:
    """What there is before a person begins with a page, and happens around him meanwhile."""

    def __init__(self, tour, request):
        self.tour = tour
        self.request = request
        self.sentiment = tour.home / "models" / "sentiment"

    def project(self):
        """The README's project, without its Kitfile."""
        for name in ("model/weights.safetensors", "data/a.csv", "src/train.py", "adapter/a.bin"):
            (self.sentiment / name).parent.mkdir(parents=True, exist_ok=True)
            (self.sentiment / name).write_text(name)

    def with_kitfile(self):
        self.project()
        (self.sentiment / "Kitfile").write_text(KITFILE)

    def at(self, place, config=None):
        """A daemon, and a person in the directory of his project."""
        self.with_kitfile()
        self.tour.serve(config)
        self.tour.type(f"cd {place}")

    def versions(self, *tags):
        """Kits of the project in their registry."""
        for tag in tags:
            (self.sentiment / "src" / "train.py").write_text(tag)
            reference = f"registry.example.com/team/sentiment:{tag}"
            self.tour.json(f"pack {self.sentiment} -t {reference} --push")


def readme(setting):
    setting.project()
    shutil.rmtree(setting.sentiment / "adapter")
    address = setting.request.getfixturevalue("free_address")
    served = setting.tour.place / "srv"
    served.symlink_to(setting.tour.home / "models")
    setting.tour.words |= {"127.0.0.1:5055": address, "/srv/models": str(served)}


def tutorial(setting):
    address = setting.request.getfixturevalue("free_address")
    setting.tour.words["127.0.0.1:5055"] = address


def doctor(setting):
    config = setting.tour.home / ".config" / "kitd" / "kitd.yaml"
    setting.tour.words["/etc/kitd"] = str(config.parent)
    setting.tour.serve({"workers": {"pack": 1}})
    config.write_text("workers: {pack: 2}")


def importing(setting):
    """A hub with a model, which is one of datasets for the second command, and the same in git."""
    root = setting.tour.place / "hub"
    root.mkdir()
    for name in ("model.safetensors", "config.json", "train.parquet"):
        (root / name).write_bytes(name.encode() * 500)
    hub = HubServer(root)
    hub.repository = "org/name"
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(hub.__aenter__(), loop).result()

    def end():
        asyncio.run_coroutine_threadsafe(hub.__aexit__(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    setting.request.addfinalizer(end)
    for program in ("git", "git-lfs"):
        require(program)
    served = setting.tour.place / "served"
    work = shutil.copytree(root, setting.tour.place / "work")
    make_repository(work, served / "org" / "name.git")
    git(served / "org" / "name.git", "tag", "v2")
    shutil.copytree(work, setting.tour.home / "name")
    server = setting.request.getfixturevalue("stack").enter_context(serve_git(served))
    setting.tour.words["https://git.example.com"] = server.url

    second = commands((ROOT / "docs" / "import.md").read_text())[1]
    setting.tour.before[second] = lambda: setattr(hub, "kind", "datasets")
    setting.tour.serve({"hub": {"endpoint": hub.endpoint}})


def init(setting):
    setting.project()
    setting.tour.serve()
    setting.tour.type("cd models/sentiment")


def mirrors(setting):
    setting.with_kitfile()
    rule = next(b.text for b in blocks_of("docs/mirrors.md") if b.language == "yaml")
    setting.tour.serve(rule)
    setting.versions("v1", "v2", "latest")


def python(setting):
    setting.at("models")


def in_project(setting):
    setting.at("models/sentiment")


def recovery(setting):
    """A ledger to back up; then one to rescue what can be read of."""
    require("sqlite3")
    tour = setting.tour
    state, backup = tour.home / ".local" / "state" / "kitd", tour.place / "backup"
    backup.mkdir()
    tour.words |= {"/var/lib/kitd": str(state), "/backup": str(backup)}
    setting.at(".")
    setting.tour.json(f"pack {setting.sentiment} -t team/sentiment:v1")
    rescue, audit = typed("docs/recovery.md", "{ echo"), "kitctl doctor --audit"

    def damaged():
        shutil.copy(backup / "ledger.sqlite3", tour.home / "damaged.sqlite3")
        with sqlite3.connect(backup / "ledger.sqlite3") as ledger:
            (version,) = ledger.execute("PRAGMA user_version").fetchone()
        ledger.close()
        tour.words["user_version = N"] = f"user_version = {version}"

    def restarted():
        tour.stop()
        for path in state.glob("ledger.sqlite3*"):
            path.unlink()
        shutil.move(tour.home / "ledger.sqlite3", state)
        tour.serve()

    tour.before |= {rescue: damaged, audit: restarted}


def registries(setting):
    registry = setting.request.getfixturevalue("docker_registry_with_login")
    setting.tour.words["registry.example.com"] = registry.host
    (setting.tour.home / "password.txt").write_text(registry.password)
    setting.tour.serve()


def rpc(setting):
    path = setting.tour.place / "bin" / "nc"
    path.write_text(NETCAT.format(python=sys.executable))
    path.chmod(0o755)
    setting.tour.serve()


def settling(setting):
    """A project whose model is open for writing."""
    setting.with_kitfile()
    kitfile = setting.sentiment / "Kitfile"
    kitfile.write_text(kitfile.read_text().replace("model/weights", "model"))
    model = setting.sentiment / "model.safetensors"
    model.write_bytes(b"\x03" + b"\0" * 7 + b"{} ")
    setting.tour.serve()
    reference = "registry.example.com/team/sentiment:latest"
    assert setting.tour.quietly(f"kitctl projects add sentiment {setting.sentiment} -t {reference}")
    setting.tour.settled()
    writing = model.open("r+b", buffering=0)
    setting.request.addfinalizer(writing.close)
    writing.write(b"\x03" + b"\0" * 7 + b"{ }")


def webhooks(setting):
    """Two deliveries, and a source for those who can run a command."""
    for program in ("curl", "openssl"):
        require(program)
    tour = setting.tour
    secret = tour.place / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    address = setting.request.getfixturevalue("free_address")
    tour.words |= {"https://kitd.example.com": f"http://{address}"}
    tour.environ["SECRET"] = SECRET
    source = {"registry": "registry.example.com", "secret_file": str(secret)}
    tour.serve(
        {
            "webhooks": {
                "listen": address,
                "sources": {
                    "harbor-eu": {"format": "generic", **source},
                    "models": {"format": "generic", **source},
                },
            },
        }
    )
    (send,) = [block.text for block in blocks_of("docs/webhooks.md") if block.language == "sh"]
    for number in (1, 2):
        body = send.replace('"v1"', f'"v{number}"').replace("hooks/models", "hooks/harbor-eu")
        assert tour.type(f"set -e; {tour.here(body)}")[0] == 0
    tour.words |= {"replay 12 13": "replay 1 2"}


def how_to_from_kit(setting):
    setting.with_kitfile()
    setting.tour.serve()


def how_to_mirror(setting):
    """One of the targets wants a login."""
    setting.with_kitfile()
    target = setting.request.getfixturevalue("docker_registry_with_login")
    setting.tour.words["mirror-a.example.com"] = target.host
    (setting.tour.home / "password.txt").write_text(target.password)
    setting.tour.serve({})
    setting.versions("v1", "v2", "v3-rc1", "latest")


RECOVER = "docs/how-to/recover.md"


def how_to_recover(setting):
    """A ledger, a blob, and then a whole machine are lost after the backup."""
    for program in ("sqlite3", "rsync"):
        require(program)
    tour = setting.tour
    state = tour.home / ".local" / "state" / "kitd"

    def lose_a_blob():
        blob = max((state / "cache" / "blobs" / "sha256").iterdir(), key=lambda b: b.stat().st_size)
        blob.chmod(0o600)
        blob.write_bytes(b"damaged")
        assert tour.quietly("kitctl cache verify") is None

    def lose_the_machine():
        tour.stop()
        shutil.rmtree(state)
        tour.type("cd")

    def fail():
        broken = tour.home / "models" / "broken"
        broken.mkdir()
        (broken / "Kitfile").write_text(KITFILE)
        assert tour.quietly(f"kitctl pack {broken} -t team/broken:v1") is None

    setting.with_kitfile()
    tour.serve()
    setting.versions("v1")
    tour.before |= {
        typed(RECOVER, "kitctl jobs list"): fail,
        typed(RECOVER, "cd ~/.local/state/kitd"): tour.stop,
        typed(RECOVER, "rsync -a --ignore-existing"): lose_a_blob,
        typed(RECOVER, "install -d"): lose_the_machine,
    }


def how_to_service(setting):
    setting.tour.words["/etc/kitd"] = str(setting.tour.place / "etc")
    setting.tour.serve({})


def how_to_training(setting):
    """A run that has written a checkpoint, and then another one."""
    run = setting.tour.home / "runs" / "llama-ft"
    for name in (
        "checkpoints/last/a.bin",
        "checkpoints/step-500/a.bin",
        "train.py",
        "metrics.json",
        "out.log",
    ):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(name)
    setting.tour.words["quiet: 10s"] = "quiet: 3s"
    setting.tour.serve({})


def how_to_webhooks(setting):
    for program in ("curl", "openssl"):
        require(program)
    setting.with_kitfile()
    setting.tour.serve({})
    setting.versions("v1")
    setting.tour.stop()
    setting.tour.words["127.0.0.1:8470"] = setting.request.getfixturevalue("free_address")


SETTINGS = {
    "README.md": readme,
    "docs/doctor.md": doctor,
    "docs/how-to/from-kit.md": how_to_from_kit,
    "docs/how-to/mirror.md": how_to_mirror,
    "docs/how-to/recover.md": how_to_recover,
    "docs/how-to/service.md": how_to_service,
    "docs/how-to/training.md": how_to_training,
    "docs/how-to/webhooks.md": how_to_webhooks,
    "docs/import.md": importing,
    "docs/init.md": init,
    "docs/mirrors.md": mirrors,
    "docs/modelpack.md": in_project,
    "docs/python.md": python,
    "docs/recovery.md": recovery,
    "docs/registries.md": registries,
    "docs/rpc.md": rpc,
    "docs/settling.md": settling,
    "docs/tutorial.md": tutorial,
    "docs/webhooks.md": webhooks,
}
"""Pages that need something; others have only configurations, or begin with nothing."""


def are_as_the_table_says(tour):
    """Events have the keys that docs/events.md gives their types."""
    for line in tour.quietly("kitctl --json events").splitlines():
        event = json.loads(line)
        keys = EVENT_TYPES[event["type"]].data
        needed = {key for key in keys if not key.endswith("?")}
        assert needed <= set(event["data"]) <= {key.rstrip("?") for key in keys}, event


@pytest.fixture
def stack():
    """What ends with the test."""
    with ExitStack() as entered:
        yield entered


@pytest.fixture
def place():
    """A directory whose name is short enough for a socket."""
    with tempfile.TemporaryDirectory(
        prefix="kitd-", dir="/tmp", ignore_cleanup_errors=True
    ) as name:
        yield Path(name)


@pytest.mark.parametrize("page", PAGES_RUN)
def test_a_page(page, place, request):
    """From its top to its end."""

    def registry():
        return request.getfixturevalue("start_docker_registry")().host

    tour = Tour(page, place, registry)
    try:
        if page in SETTINGS:
            SETTINGS[page](Setting(tour, request))
        assert tour.walk() == sum(
            block.marker is None and block.language in RUN for block in blocks_of(page)
        )
        if tour.daemon is not None:
            are_as_the_table_says(tour)
    finally:
        tour.end()


def test_more_nights_and_more_recoveries(place, request):
    """Each night replaces the one before whole, and each recovery gives what its backup had."""
    tour = Tour(RECOVER, place, lambda: request.getfixturevalue("start_docker_registry")().host)
    setting = Setting(tour, request)
    state, backup = tour.home / ".local" / "state" / "kitd", tour.home / "backup"
    night, recover = "sh ~/bin/kitd-backup", typed(RECOVER, "cd ~/.local/state/kitd")
    taken = "ls -d ~/.local/state/kitd/damaged-$(date +%Y%m%d-%H%M%S)"
    how_to_recover(setting)
    try:
        tour.walk()

        # Kits that use again what was there, and a night that was cut short.
        setting.versions("v1", "v2")
        begun = max((backup / "blobs" / "sha256").iterdir(), key=lambda blob: blob.stat().st_size)
        whole = begun.read_bytes()
        begun.chmod(0o600)
        begun.write_bytes(whole[:10])
        (backup / "ledger.new").write_bytes(b"begun")
        assert tour.type(night) == (0, "")
        assert begun.read_bytes() == whole
        assert backup.stat().st_mode & 0o077 == 0
        assert (backup / "ledger.sqlite3").stat().st_mode & 0o777 == 0o600
        kept = {kit["digest"] for kit in tour.json("list")}

        # A ledger whose log would be replayed over the backup, if it stayed.
        (state / "ledger.sqlite3.schema-1.backup").write_bytes(b"of an upgrade")
        for number in (1, 2):
            setting.versions(f"x{number}")
            tour.daemon.kill()
            tour.daemon.wait()
            tour.daemon = None
            assert (state / "ledger.sqlite3-wal").stat().st_size
            # Within the second that gave a directory its name there is no other.
            tour.until("another second", lambda: tour.type(taken)[0])
            assert tour.type(recover) == (0, "")
            assert (state / "ledger.sqlite3").stat().st_mode & 0o777 == 0o600
            tour.serve()
            assert {kit["digest"] for kit in tour.json("list")} == kept
            assert len(list(state.glob("damaged-*/ledger.sqlite3-wal"))) == number
        assert (state / "ledger.sqlite3.schema-1.backup").exists()

        # A backup that is damaged itself takes the place of none.
        good = (backup / "ledger.sqlite3").read_bytes()
        tour.stop()
        (state / "ledger.sqlite3").write_bytes(good[:4096] + b"x" * (len(good) - 4096))
        assert tour.type(night)[0] != 0
        assert (backup / "ledger.sqlite3").read_bytes() == good
    finally:
        tour.end()
