"""The story of the README, told by running it: `make demo`.

Starts kitd with its own registry on a free loopback port and a sample project in a temporary
directory, edits a file, shows the kit being packed and pushed, asks for the job with kitctl,
unpacks only the model and stops. Leaves nothing behind; exits with 1 if any step fails.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

BIN = Path(sys.executable).parent
DEADLINE_S = 60.0

KITFILE = """\
manifestVersion: 1.0.0
package:
  name: sentiment
  version: 0.1.0
  authors: [Ada]
model:
  name: weights
  path: model/weights.bin
datasets:
  - name: reviews
    path: data
docs:
  - path: README.md
"""


class DemoError(Exception):
    """A step did not do what it should."""


def say(text: str) -> None:
    """Print a heading of the story."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def make_project(root: Path) -> None:
    """Write a small project."""
    (root / "model").mkdir(parents=True)
    (root / "data").mkdir()
    (root / "Kitfile").write_text(KITFILE)
    (root / "model" / "weights.bin").write_bytes(os.urandom(4 << 20))
    (root / "data" / "reviews.csv").write_text("text,label\nlovely,1\n")
    (root / "README.md").write_text("# Sentiment\n")


def free_port() -> int:
    """Return a loopback port that nobody listens on right now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Story:
    """One run: a place, a daemon and the commands of a person."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.project = place / "sentiment"
        self.registry = f"127.0.0.1:{free_port()}"
        self.reference = f"{self.registry}/team/sentiment"
        self.environment = {**os.environ, "KITD_SOCKET": str(place / "kitd.sock")}

    def kitctl(self, *arguments: str, show: bool = True) -> str:
        """Run a command as a person would and return what it printed."""
        if show:
            print(f"$ kitctl {' '.join(arguments)}", flush=True)
        done = subprocess.run(
            [str(BIN / "kitctl"), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        if show:
            print(done.stdout, end="", flush=True)
        if done.returncode != 0:
            raise DemoError(f"kitctl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def wait_for(self, what: str, happened: Callable[[], bool]) -> None:
        """Return once something is the case."""
        end_s = time.monotonic() + DEADLINE_S
        while not happened():
            if time.monotonic() > end_s:
                raise DemoError(f"waited {DEADLINE_S:.0f} s for {what}")
            time.sleep(0.1)

    def tags(self) -> list[str]:
        """Ask the registry itself, as any OCI tool would."""
        url = f"http://{self.registry}/v2/team/sentiment/tags/list"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                names: list[str] = json.load(answer)["tags"]
                return names
        except OSError:
            return []

    def digest(self) -> str | None:
        """Return what the project's last kit is."""
        projects = json.loads(self.kitctl("--json", "projects", "list", show=False))
        last: str | None = projects[0]["last_digest"]
        return last

    def pushed(self) -> bool:
        """Whether every job has ended well and the registry has the kit."""
        jobs = json.loads(self.kitctl("--json", "jobs", "list", show=False))
        return bool(jobs) and all(job["state"] == "succeeded" for job in jobs) and bool(self.tags())

    def tell(self) -> None:
        """Live through the story. Raises `DemoError`."""
        say("A project, and a daemon that watches it")
        print(f"project {self.project}\nregistry {self.registry} (kitd's own)")
        self.wait_for("the first kit", self.pushed)
        first = self.digest()
        self.kitctl("status")

        say("Save a file: the dataset grows by one review")
        with (self.project / "data" / "reviews.csv").open("a") as file:
            file.write("dull,0\n")
        self.wait_for("the second kit", lambda: self.digest() != first and self.pushed())
        self.kitctl("jobs", "list")

        say("How did the last job go?")
        newest = json.loads(self.kitctl("--json", "jobs", "list", show=False))[0]
        self.kitctl("jobs", "show", str(newest["id"]))

        say("The registry has both versions; the model's layer was stored once")
        print("tags:", ", ".join(self.tags()))
        self.kitctl("list")
        self.kitctl("cache", "stats")

        say("Unpack only the model")
        target = self.place / "unpacked"
        self.kitctl("unpack", f"{self.reference}:latest", "-f", "model", "-d", str(target))
        found = sorted(str(p.relative_to(target)) for p in target.rglob("*") if p.is_file())
        print("unpacked:", ", ".join(found))
        if found != ["model/weights.bin"]:
            raise DemoError(f"expected only the model, found {found}")
        original = (self.project / "model" / "weights.bin").read_bytes()
        if (target / "model" / "weights.bin").read_bytes() != original:
            raise DemoError("the unpacked model differs from the project's")


def configure(story: Story) -> Path:
    """Write the daemon's configuration."""
    path = story.place / "kitd.yaml"
    path.write_text(
        f"state_dir: {story.place}/state\n"
        f"registry: {{listen: '{story.registry}'}}\n"
        "projects:\n"
        "  sentiment:\n"
        f"    path: {story.project}\n"
        f"    reference: {story.reference}\n"
        "    tags: [latest, '{package.version}-{digest:8}']\n"
        "    settle: {quiet: 1s}\n"
    )
    return path


def stop(daemon: "subprocess.Popen[bytes]", place: Path) -> None:
    """End the daemon as its owner would. Raises `DemoError`."""
    daemon.send_signal(signal.SIGTERM)
    code = daemon.wait(timeout=30)
    if code != 0:
        raise DemoError(f"kitd ended with {code}")
    if (place / "kitd.sock").exists():
        raise DemoError("the socket is still there")
    print("kitd stopped in good order")


def run(place: Path) -> None:
    """Tell the story in a directory. Raises `DemoError`."""
    story = Story(place)
    make_project(story.project)
    config = configure(story)
    with (place / "kitd.log").open("wb") as log:
        daemon = subprocess.Popen(
            [str(BIN / "kitd"), "serve", "--config", str(config)],
            env=story.environment,
            stdout=log,
            stderr=log,
        )
        try:
            story.wait_for(
                "the daemon",
                lambda: daemon.poll() is not None or (place / "kitd.sock").exists(),
            )
            story.tell()
            say("Stop")
            stop(daemon, place)
        except BaseException:
            daemon.kill()
            daemon.wait()
            sys.stderr.write((place / "kitd.log").read_text(errors="replace")[-4000:])
            raise


def main() -> int:
    """Run the demo and return its exit code."""
    place = Path(tempfile.mkdtemp(prefix="kitd-demo-"))
    started_s = time.monotonic()
    try:
        run(place)
    except DemoError as error:
        print(f"\nthe demo failed: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(place)
    print(f"\nDone in {time.monotonic() - started_s:.0f} s; nothing is left behind.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
