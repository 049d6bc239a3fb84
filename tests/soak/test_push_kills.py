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
LIFE_S = 1.0
"""How long the daemon pushes before it is killed, on average."""
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


def pace(kills):
    """Return how many bytes a second make the push last for all lives."""
    return LAYERS * LAYER_BYTES / (kills * LIFE_S)


async def pass_or_stall(proxy, goal):
    """Return once so many bytes have passed, or none do for a while: the push may be over."""
    passed, since_s = -1, time.monotonic()
    while proxy.up.passed_bytes < goal and time.monotonic() < since_s + 3 * LIFE_S:
        if proxy.up.passed_bytes > passed:
            passed, since_s = proxy.up.passed_bytes, time.monotonic()
        await asyncio.sleep(0.002)


async def push_and_kill(daemon, project, proxy, kills, draw):
    """Push through a proxy, kill the daemon at points all over it, and see the push to its end."""
    upload = {"mode": "chunked", "chunk": f"{CHUNK_BYTES}B"}
    daemon.config["registries"] = {proxy.host: {"upload": upload}}
    await asyncio.to_thread(daemon.start)
    packed = await asyncio.to_thread(
        daemon.kitctl, "pack", project, "-t", f"{proxy.host}/{REFERENCE}"
    )
    pushing = await asyncio.to_thread(
        daemon.kitctl, "push", f"{proxy.host}/{REFERENCE}", "--detach"
    )
    job = pushing["job"]["id"] if isinstance(pushing["job"], dict) else pushing["job"]
    await asyncio.to_thread(daemon.kill)
    landed = 0
    for _ in range(kills):
        # Wherever the last life came to, this one goes a part of the way further.
        goal = proxy.up.passed_bytes + LAYERS * LAYER_BYTES / kills * draw.uniform(0, 2)
        await asyncio.to_thread(daemon.start)
        landed += await asyncio.to_thread(daemon.revive, job) != "succeeded"
        await pass_or_stall(proxy, goal)
        await asyncio.to_thread(daemon.kill)
    await asyncio.to_thread(daemon.start)
    proxy.up.bytes_per_s = 0
    end_s = time.monotonic() + DEADLINE_S
    while await asyncio.to_thread(daemon.revive, job) != "succeeded":
        assert time.monotonic() < end_s, "the push does not come to its end"
        await asyncio.sleep(0.05)
    return packed, landed


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
        CuttingProxy(
            registry.host, up_bytes_per_s=LAYERS * LAYER_BYTES / (soak.push_kills * LIFE_S)
        ) as proxy,
    ):
        packed, landed = await push_and_kill(daemon, project, proxy, soak.push_kills, draw)
        layers = await check_registry(registry.host, packed["digest"])
        total = sum(layer["size"] for layer in layers)
        again = registry.tally.received_bytes() - total
        with capsys.disabled():
            print(f"\n{landed} of {soak.push_kills} kills landed in the push,", end=" ")
            print(f"{again / MIB:.2f} MiB of {total / MIB:.0f} were sent again")
        for layer in layers:
            blob = registry.tally.blob("team/model", layer["digest"])
            assert blob.uploads == 1
            assert blob.received_bytes - layer["size"] <= soak.push_kills * CHUNK_BYTES
        # What belongs to no blob was sent for nothing, too.
        assert again <= soak.push_kills * CHUNK_BYTES * LAYERS
        assert landed >= soak.push_kills // 2, "most kills missed the push"


async def test_a_killed_push_to_debians_registry_arrives_whole(
    soak, daemon, project, docker_registry, capsys
):
    """A kill within a request costs what the upload had: that registry gives it up."""
    draw = random.Random(soak.seed)
    async with CuttingProxy(
        docker_registry.host, up_bytes_per_s=LAYERS * LAYER_BYTES / (soak.push_kills * LIFE_S)
    ) as proxy:
        packed, landed = await push_and_kill(daemon, project, proxy, soak.push_kills, draw)
        layers = await check_registry(docker_registry.host, packed["digest"])
        again = proxy.up.passed_bytes - sum(layer["size"] for layer in layers)
        with capsys.disabled():
            print(f"\n{landed} of {soak.push_kills} kills landed in the push,", end=" ")
            print(f"{again / MIB:.1f} MiB were sent again")
        assert landed >= soak.push_kills // 2, "most kills missed the push"
