"""A person at a terminal who does what a page says, from its top to its end.

Names of registries in the pages stand for real ones here: what is typed and written names those,
and what is printed is compared as if it named the others.
"""

import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from docs_runner.likeness import is_like
from docs_runner.page import SHOWN, Block, Step, blocks
from kitd.modelkit.kitfile import parse_kitfile

BIN = Path(sys.executable).parent
DEADLINE_S = 30.0
END = "end-of-command"
HOST = re.compile(r"\b[a-z][a-z0-9-]*\.example\.com(?=[/: \n]|$)")
KITFILE_KEYS = ("manifestVersion:", "package:", "model:", "datasets:", "code:")

FINDING = ("kitctl doctor", "kitctl doctor --audit")
"""What ends with 1 where something is found, as it may be on any machine."""

_FOLLOWING = re.compile(r"^(kitctl (?:events|jobs log \d+|status)) (?:-f|--watch)$")
"""What goes on until Ctrl-C, which nobody is there to press."""
_LOOKS = re.compile(
    r"^kitctl (--json )?(status|why|list|jobs list|projects list|doctor|cache|mirror list"
    r"|mirror edges|webhooks list|events|info|inspect)\b|^curl .*/v2/"
)
"""What a person runs again until it shows what he waits for."""


class Tour:
    """One page, a home at `place`, and what stands for the names in the page."""

    def __init__(self, page: str, place: Path, registry: Callable[[], str]) -> None:
        self.page = page
        self.home = place / "ada"
        self.home.mkdir()
        (place / "run").mkdir(mode=0o700)
        (place / "bin").mkdir()
        self.place = place
        self.words: dict[str, str] = {}
        """Further text of the page, and what stands for it."""
        self.before: dict[str, Callable[[], object]] = {}
        """What happens elsewhere right before a command."""
        self.environ = {
            "PATH": f"{place / 'bin'}:{BIN}:/usr/bin:/bin",
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(place / "run"),
            "LANG": "C.UTF-8",
        }
        self.shell: subprocess.Popen[bytes] | None = None
        self.daemon: subprocess.Popen[bytes] | None = None
        self._start_registry = registry

    # What stands for what

    def host(self, name: str) -> str:
        """Return the registry that stands for a host; it is started when it is first named."""
        if name not in self.words:
            self.words[name] = self._start_registry()
        return self.words[name]

    def here(self, text: str) -> str:
        """Return a text of the page as it has to be here."""
        for name in sorted(self.words, key=len, reverse=True):
            text = text.replace(name, self.words[name])
        return HOST.sub(lambda match: self.host(match[0]), text)

    def there(self, text: str) -> str:
        """Return what was printed as the page would have it."""
        names = {**self.words, "/home/ada": str(self.home)}
        for name, real in sorted(names.items(), key=lambda item: -len(item[1])):
            text = text.replace(real, name)
        return text

    # The daemon

    def serve(
        self, config: dict[str, Any] | str | None = None, arguments: Sequence[str] = ()
    ) -> None:
        """Start kitd, with a configuration if one is given, and wait until it answers."""
        assert self.daemon is None, "kitd runs already"
        if config is not None:
            text = config if isinstance(config, str) else json.dumps(config)
            path = self.home / ".config" / "kitd" / "kitd.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.here(text))
        with (self.place / "kitd.log").open("wb") as log:
            self.daemon = subprocess.Popen(
                [BIN / "kitd", "serve", *arguments],
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.until("kitd to answer", lambda: self.quietly("kitctl status") is not None)

    def stop(self) -> None:
        """Stop kitd, if it runs."""
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
            self.daemon.wait(timeout=DEADLINE_S)
        self.daemon = None

    def log(self) -> str:
        """Return what kitd has said."""
        path = self.place / "kitd.log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def end(self) -> None:
        """End everything."""
        if self.shell is not None:
            self.shell.kill()
            self.shell.communicate()
        self.stop()

    # Doing and waiting

    def until(self, what: str, happened: Callable[[], Any]) -> Any:
        """Return the first truthy answer."""
        end_s = time.monotonic() + DEADLINE_S
        while not (answer := happened()):
            assert self.daemon is None or self.daemon.poll() is None, self.log()
            assert time.monotonic() < end_s, f"{self.page}: waited for {what}\n{self.log()}"
            time.sleep(0.05)
        return answer

    def quietly(self, command: str) -> str | None:
        """Run a command of the tour's own; return what it prints, None if it fails."""
        done = subprocess.run(
            shlex.split(self.here(command)),
            env=self.environ,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        return done.stdout if done.returncode == 0 else None

    def json(self, command: str) -> Any:
        """Run a command of kitctl that must succeed, and return its answer."""
        printed = self.quietly(f"kitctl --json {command}")
        assert printed is not None, f"{command}\n{self.log()}"
        return json.loads(printed)

    def settled(self) -> None:
        """Wait until every project is packed, and no job waits or runs."""

        def idle() -> bool:
            projects, jobs = self.json("projects list"), self.json("jobs list")
            return all(p["state"] == "idle" and p["last_digest"] for p in projects) and not any(
                job["state"] in ("ready", "running", "scheduled") for job in jobs
            )

        self.until("kitd to have nothing to do", idle)

    def type(self, command: str) -> tuple[int, str]:
        """Type a command into the shell of the tour; return exit code and output."""
        if self.shell is None:
            self.shell = subprocess.Popen(
                ["bash", "--norc", "--noprofile"],
                env=self.environ,
                cwd=self.home,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        line = f"eval {shlex.quote(command)} </dev/null\nprintf '%s %s\\n' {END} $?\n"
        self.shell.stdin.write(line.encode())
        self.shell.stdin.flush()
        printed, end_s = b"", time.monotonic() + DEADLINE_S
        while (match := re.search(rf"{END} (\d+)\n$".encode(), printed)) is None:
            left_s = end_s - time.monotonic()
            ready, _, _ = select.select([self.shell.stdout], [], [], max(0, left_s))
            piece = os.read(self.shell.stdout.fileno(), 65536) if ready else b""
            assert piece, f"{self.page}: {command} does not end:\n{printed.decode()}\n{self.log()}"
            printed += piece
        return int(match[1]), printed[: match.start()].decode()

    # The page

    def walk(self) -> int:
        """Do what the page says; return how many blocks were run or compared."""
        done = 0
        for block in blocks(self.page):
            if block.marker is None and block.language not in SHOWN:
                self._do(block)
                done += 1
        return done

    def _do(self, block: Block) -> None:
        if block.file is not None:
            self._write(block.file, block.text)
        match block.language:
            case "python" | "sh" if block.file is not None:
                pass
            case "console":
                for step in block.steps:
                    self._step(block, step)
            case "python":
                self._succeeds(block, f"python -c {shlex.quote(self.here(block.text))}")
            case "sh":
                self._succeeds(block, f"set -e; {self.here(block.text)}")
            case "yaml":
                self._yaml(block)
            case _:
                raise AssertionError(f"{block.place}: neither run nor marked")

    def _succeeds(self, block: Block, command: str) -> None:
        code, printed = self.type(command)
        assert code == 0, f"{block.place}: exit code {code}:\n{printed}\n{self.log()}"

    def _yaml(self, block: Block) -> None:
        if block.text.startswith(KITFILE_KEYS) or (block.file or "").endswith("/Kitfile"):
            parse_kitfile(f"manifestVersion: 1.0.0\n{without_version(block.text)}".encode())
        else:
            path = self.place / "checked.yaml"
            path.write_text(block.text)
            done = subprocess.run(
                [BIN / "kitd", "check-config", path],
                env={**self.environ, "CREDENTIALS_DIRECTORY": str(self.place)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{block.place}: {done.stderr}"

    def _write(self, name: str, text: str) -> None:
        path = Path(self.here(name).replace("~", str(self.home)))
        assert path.is_relative_to(self.place), f"nothing stands for {name} here"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.here(text))

    def _step(self, block: Block, step: Step) -> None:
        if step.command in self.before:
            self.before.pop(step.command)()
        command = self.here(_FOLLOWING.sub(r"\1", step.command))
        program, *arguments = shlex.split(command, comments=True)
        if (program, arguments[:1]) == ("kitd", ["serve"]):
            assert not step.output, f"{block.place}: the log is not compared"
            # As the shell would have it.
            self.serve(arguments=[re.sub("^~", str(self.home), each) for each in arguments[1:]])
            return
        shown = step.output
        end_s = time.monotonic() + DEADLINE_S
        while True:
            code, printed = self.type(command)
            there = self.there(printed)
            if (code == 0 or command in FINDING) and (not shown or is_like(shown, there)):
                return
            if not _LOOKS.match(command) or time.monotonic() > end_s:
                break
            time.sleep(0.1)
        raise AssertionError(
            f"{block.place}: $ {step.command}\nexit code {code}, printed:\n{there}\n"
            f"the page shows:\n{shown}\n{self.log()}"
        )


def without_version(text: str) -> str:
    """Return a Kitfile without the line of its version."""
    return re.sub(r"^manifestVersion:.*\n", "", text, flags=re.MULTILINE)
