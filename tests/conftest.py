"""Real parts that several rooms test against: Debian's docker-registry, and skopeo to look."""

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# A shell that starts the tests in the background has them, and what they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
# A machine that is busy with something else is no counterexample.
settings.register_profile("kitd", deadline=None)
settings.load_profile("kitd")

START_DEADLINE_S = 20.0
USER, PASSWORD = "ada", "correct horse"
# bcrypt of PASSWORD with the lowest cost, as `htpasswd -B -C 4` writes it.
HTPASSWD = "ada:$2y$04$n2VdU65JvKU8Wfz3zxLbH.kPCs7bMRZW.MjSWqc/To3qQWtIRd0SW\n"


@dataclass(frozen=True, slots=True)
class DockerRegistry:
    """A running docker-registry: `host` as references name it, `root` where its storage is."""

    host: str
    root: Path
    username: str = USER
    password: str = PASSWORD


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where CI is set, everything has to run: what would be skipped fails."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        _, _, reason = report.longrepr
        report.outcome = "failed"
        report.longrepr = f"must not be skipped where CI is set: {reason}"
    return report


def require(program: str) -> str:
    """Return the path of a program; a test without it is skipped."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed: tests/install-servers.sh has its package")
    return path


@pytest.fixture
def strace() -> str:
    """The program that makes system calls fail."""
    return require("strace")


def listening_host(log: Path, process: subprocess.Popen[bytes]) -> str:
    """Return the address that the registry says it listens on, once it does."""
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines(keepends=True):
            if line.endswith("\n") and "listening on " in (said := json.loads(line)["msg"]):
                return said.removeprefix("listening on ").partition(",")[0]
        time.sleep(0.005)
    raise AssertionError(f"docker-registry did not start:\n{log.read_text()}")


@contextmanager
def docker_registries(place: Path) -> Iterator[Callable[..., DockerRegistry]]:
    """Start registries with `http`, `auth` and `notifications` as configured; all stop after.

    Without `deletes` they refuse every DELETE.
    """
    program = require("docker-registry")
    processes: list[subprocess.Popen[bytes]] = []

    def start(
        *,
        http: dict | None = None,
        auth: dict | None = None,
        notifications: dict | None = None,
        deletes: bool = True,
    ) -> DockerRegistry:
        home = place / f"docker-registry-{len(processes)}"
        root = home / "storage"
        root.mkdir(parents=True)
        configuration = {
            "version": "0.1",
            "log": {"level": "info", "formatter": "json"},
            "storage": {
                "filesystem": {"rootdirectory": str(root)},
                "delete": {"enabled": deletes},
            },
            "http": {"addr": "127.0.0.1:0", "secret": "tests", **(http or {})},
            **({"auth": auth} if auth else {}),
            **({"notifications": notifications} if notifications else {}),
        }
        # JSON is YAML.
        (home / "config.yml").write_text(json.dumps(configuration))
        log = home / "log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [program, "serve", home / "config.yml"],
                stdout=subprocess.DEVNULL,
                stderr=sink,
                env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
            )
        processes.append(process)
        return DockerRegistry(listening_host(log, process), root)

    try:
        yield start
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture
def start_docker_registry(tmp_path: Path) -> Iterator[Callable[..., DockerRegistry]]:
    """Start registries as `docker_registries` does."""
    with docker_registries(tmp_path) as start:
        yield start


@pytest.fixture
def docker_registry(start_docker_registry: Callable[..., DockerRegistry]) -> DockerRegistry:
    """An empty registry of its own that lets everybody in."""
    return start_docker_registry()


@pytest.fixture
def docker_registry_with_login(
    start_docker_registry: Callable[..., DockerRegistry], tmp_path: Path
) -> DockerRegistry:
    """An empty registry that wants Basic authentication: `username` and `password`."""
    path = tmp_path / "htpasswd"
    path.write_text(HTPASSWD)
    return start_docker_registry(auth={"htpasswd": {"realm": "tests", "path": str(path)}})


@dataclass(frozen=True, slots=True)
class FaultRegistryProcess:
    """A running registry of `tests/fault_registry`; the names of quirks are in its `quirks.py`."""

    host: str

    def tell(self, **quirks: Any) -> None:
        """Change its script: what is named, and nothing else."""
        self._control("POST", "quirks", quirks)

    def tally(self) -> dict[str, Any]:
        """Return what it was asked, received and sent, as `Tally.as_json` has it."""
        return self._control("GET", "tally")

    def reset(self) -> None:
        """Let it count from zero."""
        self._control("DELETE", "tally")

    def empty(self) -> None:
        """Let it forget everything, its script too."""
        self._control("DELETE", "all")

    def _control(self, method: str, what: str, body: object = None) -> dict[str, Any]:
        content = None if body is None else json.dumps(body).encode()
        url = f"http://{self.host}/-/{what}"
        request = urllib.request.Request(url, content, method=method)
        with urllib.request.urlopen(request, timeout=START_DEADLINE_S) as answer:
            told: dict[str, Any] = json.load(answer)
        return told


@contextmanager
def process_with_address(*arguments: str | Path) -> Iterator[str]:
    """Run a module that prints its address, and end it."""
    with subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=Path(__file__).parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["host"]
        finally:
            process.kill()


@pytest.fixture
def start_fault_registry(tmp_path: Path) -> Iterator[Callable[..., FaultRegistryProcess]]:
    """Start fault registries, with quirks, as processes of their own; all are ended after."""
    with ExitStack() as stack:
        roots = (tmp_path / f"fault-registry-{number}" for number in itertools.count())

        def start(**quirks: Any) -> FaultRegistryProcess:
            script = ("--root", next(roots), "--quirks", json.dumps(quirks))
            host = stack.enter_context(process_with_address("fault_registry", *script))
            return FaultRegistryProcess(host)

        yield start


@pytest.fixture(scope="session")
def shared_fault_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a fault registry that many tests use, one after the other."""
    root = tmp_path_factory.mktemp("fault-registry") / "root"
    with process_with_address("fault_registry", "--root", root) as host:
        yield host


@pytest.fixture
def fault_registry(shared_fault_registry: str) -> FaultRegistryProcess:
    """An empty fault registry without quirks."""
    registry = FaultRegistryProcess(shared_fault_registry)
    registry.empty()
    return registry


@pytest.fixture
def start_cutting_proxy() -> Iterator[Callable[..., str]]:
    """Start proxies that break connections: `start(host, up_every=0, down_every=0)`, in bytes."""
    with ExitStack() as stack:

        def start(upstream: str, *, up_every: int = 0, down_every: int = 0) -> str:
            limits = ("--up-every", str(up_every), "--down-every", str(down_every))
            module = "fault_registry.cutting_proxy"
            return stack.enter_context(process_with_address(module, upstream, *limits))

        yield start


@pytest.fixture
def zstd() -> str:
    """Return the path of Debian's zstd."""
    return require("zstd")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `key.pem` and `certificate.pem`, which is its own authority on loopback."""
    place = tmp_path_factory.mktemp("certificate")
    command = (
        f"{require('openssl')} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        " -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
        " -addext keyUsage=critical,digitalSignature,keyCertSign"
        " -keyout key.pem -out certificate.pem"
    )
    subprocess.run(command.split(), cwd=place, check=True, capture_output=True)
    return place


@pytest.fixture
def skopeo(tmp_path: Path) -> Callable[..., bytes]:
    """Run skopeo with its own empty home and return what it prints."""
    program = require("skopeo")
    home = tmp_path / "skopeo-home"
    home.mkdir()

    def run(*arguments: str | Path) -> bytes:
        done = subprocess.run(
            [program, "--insecure-policy", *map(str, arguments)],
            capture_output=True,
            check=False,
            timeout=60,
            env={"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(tmp_path)},
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    return run


@pytest.fixture
def mount_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount small disks, of a size such as `4m`: only root can, and others skip."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        path = tmp_path / f"disk-{len(mounted)}"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "kitd-test", str(path)]
        try:
            subprocess.run(command, capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("mounting a small disk needs root")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[Path | None]:
    """A small file system on which files can share blocks; None where it cannot be mounted."""
    image, place = tmp_path / "disk.img", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(160 << 20)
    try:
        subprocess.run(["mkfs.btrfs", "-q", image], capture_output=True, check=True)
        subprocess.run(["mount", "-o", "loop", image, place], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        yield None
        return
    yield place
    subprocess.run(["umount", place], check=True)


FOLDING: Mapping[str, Sequence[Sequence[str]]] = {
    "ntfs": (
        ("mkntfs", "-F", "-q", "-f", "IMAGE"),
        ("lowntfs-3g", "-o", "ignore_case,umask=022", "IMAGE", "PLACE"),
    ),
    "fat": (("mkfs.vfat", "IMAGE"), ("mount", "-o", "loop", "IMAGE", "PLACE")),
}
"""How file systems are made and mounted for which `a` and `A` are one name. FAT has no hard links,
and not every kernel knows it; NTFS is a program of its own."""


@pytest.fixture
def folding_disks(tmp_path: Path) -> Iterator[Sequence[Path]]:
    """As many of `FOLDING` as can be mounted here; where none can, a test is skipped."""
    mounted: list[Path] = []
    for name, commands in FOLDING.items():
        image, place = tmp_path / f"{name}.img", tmp_path / name
        place.mkdir()
        with image.open("wb") as file:
            file.truncate(128 << 20)
        told = {"IMAGE": str(image), "PLACE": str(place)}
        try:
            for command in commands:
                said = [told.get(word, word) for word in command]
                subprocess.run(said, capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        mounted.append(place)
    if not mounted:
        pytest.skip("mounting a disk that ignores case needs root, and ntfs-3g or FAT")
    yield mounted
    for place in mounted:
        subprocess.run(["umount", place], check=True)


@pytest.fixture
def free_address() -> str:
    """A loopback address that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"
