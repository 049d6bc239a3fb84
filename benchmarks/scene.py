"""A daemon of its own in a temporary directory, and projects to pack."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent


class Scene:
    """A running daemon and the commands of a person."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.environment = {**os.environ, "KITD_SOCKET": str(place / "kitd.sock")}

    def kitctl(self, *arguments: str) -> str:
        return subprocess.run(
            [str(BIN / "kitctl"), *arguments],
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout


@contextlib.contextmanager
def daemon(place: Path, config: dict[str, Any]) -> Iterator[Scene]:
    """Start a daemon and wait until it answers; stop it afterwards."""
    scene = Scene(place)
    path = place / "kitd.yaml"
    path.write_text(json.dumps({"state_dir": str(place / "state"), **config}))
    with (place / "kitd.log").open("wb") as log:
        process = subprocess.Popen(
            [str(BIN / "kitd"), "serve", "--config", str(path)],
            env=scene.environment,
            stdout=log,
            stderr=log,
        )
    try:
        while not (place / "kitd.sock").exists():
            assert process.poll() is None, (place / "kitd.log").read_text()
            time.sleep(0.02)
        scene.kitctl("status")
        yield scene
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
