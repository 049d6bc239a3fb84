"""kill -9 in the middle of a push: nothing is missing, nothing is wrong, little is sent again."""

import asyncio
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fault_registry.cutting_proxy import CuttingProxy
from fault_registry.server import FaultRegistry

BIN = Path(sys.executable).parent
MIB = 1 << 20
CHUNK_BYTES = 4 * MIB
LAYERS = 5
LAYER_BYTES = 9 * MIB + 1001
DEADLINE_S = 60.0
REQUEST_BYTES = 4096
"""What a request may have besides its body."""
REFERENCE = "team/model:v1"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@dataclass
class Daemon:
    """A daemon that lives again and again in the same place. Every method blocks."""

    place: Path
    config: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return once it answers."""
        (self.place / "kitd.yaml").write_text(json.dumps(self.config))
        log = self.place / "kitd.log"
        places = ("--config", self.place / "kitd.yaml", "--socket", self.place / "kitd.sock")
        with log.open("wb") as sink:
            self.process = subprocess.Popen(
                [BIN / "kitd", "serve", *places],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env={"PATH": os.environ["PATH"], "HOME": str(self.place)},
            )
        end_s = time.monotonic() + DEADLINE_S
        while b"daemon.ready" not in log.read_bytes():
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < end_s, log.read_text()
            time.sleep(0.01)

    def kill(self) -> None:
        """End it without a word."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def kitctl(self, *arguments: str | Path) -> Any:
        """Run a command that has to succeed, and return its JSON."""
        done = subprocess.run(
            [BIN / "kitctl", "--json", "--socket", self.place / "kitd.sock", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr}{done.stdout}"
        return json.loads(done.stdout)

    def revive(self, job: int) -> str:
        """Return the state of a job; one that was set aside, for so many deaths, runs again."""
        told = self.kitctl("jobs", "show", str(job))
        if told["state"] == "failed" and told["error"]["code"] == "poison":
            self.kitctl("jobs", "retry", str(job))
            return "ready"
        assert told["state"] not in ("failed", "cancelled", "superseded"), told
        return str(told["state"])


@pytest.fixture
def project(tmp_path, soak):
    """A project of several layers that cannot be compressed."""
    root = tmp_path / "project"
    root.mkdir()
    draw = random.Random(soak.seed)
    names = [f"part-{number}" for number in range(LAYERS)]
    for name in names:
        (root / name).write_bytes(draw.randbytes(LAYER_BYTES))
    datasets = ", ".join(f"{{name: {name}, path: {name}}}" for name in names)
    kitfile = f"manifestVersion: 1.0.0\npackage: {{name: demo}}\ndatasets: [{datasets}]\n"
    (root / "Kitfile").write_text(kitfile)
    return root


@pytest.fixture
def daemon(tmp_path):
    place = tmp_path / "kitd"
    place.mkdir()
    daemon = Daemon(place, {"state_dir": str(place / "state"), "log": {"format": "json"}})
    yield daemon
    if daemon.process is not None and daemon.process.poll() is None:
        daemon.kill()


async def held_or_over(daemon, job, proxy):
    """Return once the proxy lets nothing more pass, or the push is over."""
    end_s = time.monotonic() + DEADLINE_S
    while not proxy.up.is_held:
        state = await asyncio.to_thread(daemon.revive, job)
        if state == "succeeded":
            return
        assert time.monotonic() < end_s, f"the push does not go on: it is {state}"


async def push_and_kill(daemon, project, proxy, kills, draw):
    """Push through a proxy, kill the daemon at points all over it, and see the push to its end."""
    upload = {"mode": "chunked", "chunk": f"{CHUNK_BYTES}B"}
    daemon.config["registries"] = {proxy.host: {"upload": upload}}
    points = sorted(draw.randrange(LAYERS * LAYER_BYTES) for _ in range(kills))
    proxy.up.hold_at(points[0])
    await asyncio.to_thread(daemon.start)
    reference = f"{proxy.host}/{REFERENCE}"
    packed = await asyncio.to_thread(daemon.kitctl, "pack", project, "-t", reference)
    pushing = await asyncio.to_thread(daemon.kitctl, "push", reference, "--detach")
    job = pushing["job"]
    for here, there in pairwise((*points, points[-1])):
        await held_or_over(daemon, job, proxy)
        await asyncio.to_thread(daemon.kill)
        proxy.break_all()
        # What was sent for nothing does not count.
        proxy.up.hold_at(proxy.up.passed_bytes + there - here)
        await asyncio.to_thread(daemon.start)
    proxy.up.hold_at(None)
    end_s = time.monotonic() + DEADLINE_S
    while await asyncio.to_thread(daemon.revive, job) != "succeeded":
        assert time.monotonic() < end_s, "the push does not come to its end"
    return packed


async def check_registry(host, digest):
    """Read everything that the tag names, and return the descriptors of the layers."""
    async with aiohttp.ClientSession(f"http://{host}") as session:

        async def read(path, **headers):
            async with session.get(f"/v2/team/model/{path}", headers=headers) as response:
                assert response.status == 200, f"{path} is missing"
                return await response.read()

        accept = "application/vnd.oci.image.manifest.v1+json"
        content = await read("manifests/v1", Accept=accept)
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == digest
        manifest = json.loads(content)
        for blob in (manifest["config"], *manifest["layers"]):
            content = await read(f"blobs/{blob['digest']}")
            assert len(content) == blob["size"]
            assert f"sha256:{hashlib.sha256(content).hexdigest()}" == blob["digest"]
        return manifest["layers"]


async def test_a_killed_push_goes_on_where_the_registry_is(soak, daemon, project, tmp_path, capsys):
    draw = random.Random(soak.seed)
    async with (
        FaultRegistry(tmp_path / "registry") as registry,
        CuttingProxy(registry.host) as proxy,
    ):
        packed = await push_and_kill(daemon, project, proxy, soak.push_kills, draw)
        layers = await check_registry(registry.host, packed["digest"])
        total = sum(layer["size"] for layer in layers)
        again = proxy.up.passed_bytes - total
        with capsys.disabled():
            print(f"\n{soak.push_kills} kills: {again / MIB:.1f} MiB", end=" ")
            print(f"of {total / MIB:.0f} were sent again")
        for layer in layers:
            blob = registry.tally.blob("team/model", layer["digest"])
            assert blob.uploads == 1
            assert blob.received_bytes - layer["size"] <= soak.push_kills * CHUNK_BYTES
        # All layers may have been on their way, and what lay in buffers counts as sent.
        requests = len(registry.tally.requests) * REQUEST_BYTES
        assert again <= soak.push_kills * CHUNK_BYTES * LAYERS + requests


async def test_a_killed_push_to_debians_registry_arrives_whole(
    soak, daemon, project, docker_registry, capsys
):
    """A kill within a request costs what the upload had: that registry gives it up."""
    draw = random.Random(soak.seed)
    async with CuttingProxy(docker_registry.host) as proxy:
        packed = await push_and_kill(daemon, project, proxy, soak.push_kills, draw)
        layers = await check_registry(docker_registry.host, packed["digest"])
        again = proxy.up.passed_bytes - sum(layer["size"] for layer in layers)
        with capsys.disabled():
            print(f"\n{soak.push_kills} kills: {again / MIB:.1f} MiB were sent again")
