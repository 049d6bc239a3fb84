"""Layers that are too large for the cache: sent while they are read, fetched while unpacked."""

import hashlib
import json
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

MIB = 1 << 20
STREAM_OVER = {"cache": {"stream_over": "4MiB"}}
KITFILE = """\
manifestVersion: 1.0.0
package: {name: demo, version: 0.1.0, authors: [Ada]}
model: {name: weights, path: model.bin}
datasets: [{name: reviews, path: data}]
"""


@pytest.fixture
def large(tmp_path):
    """A project with a model of 24 MiB and a small dataset."""
    root = tmp_path / "large"
    (root / "data").mkdir(parents=True)
    (root / "Kitfile").write_text(KITFILE)
    (root / "model.bin").write_bytes(os.urandom(24 * MIB))
    (root / "data" / "a.csv").write_text("text,label\ngood,1\n")
    return root


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cached_bytes(daemon) -> int:
    return sum(path.stat().st_size for path in daemon.cache.rglob("*") if path.is_file())


def uploads_left(registry) -> list[Path]:
    return list(registry.root.glob("docker/registry/v2/repositories/**/_uploads/*/data"))


@pytest.mark.parametrize("settings", [{}, {"modelkit": {"compression": "gzip-fastest"}}])
@pytest.mark.parametrize("mode", ["auto", "chunked", "stream", "monolithic"])
def test_a_large_layer_goes_to_the_registry_and_comes_back_with_no_copy_here(
    kitd, large, docker_registry, tmp_path, mode, settings
):
    """In every way that a registry may take it."""
    upload = {"registries": {docker_registry.host: {"upload": {"mode": mode, "chunk": "5MiB"}}}}
    here = kitd({**STREAM_OVER, **settings, **upload}).start()
    reference = f"{docker_registry.host}/team/demo:v1"
    packed = here.json("pack", large, "-t", reference, "--push")

    assert cached_bytes(here) < MIB
    assert uploads_left(docker_registry) == []
    target = tmp_path / "back"
    here.json("unpack", reference, "-d", target)
    assert digest_of(target / "model.bin") == digest_of(large / "model.bin")

    there = kitd(STREAM_OVER).start()
    again = tmp_path / "there"
    assert there.json("unpack", reference, "-d", again)["digest"] == packed["digest"]
    assert digest_of(again / "model.bin") == digest_of(large / "model.bin")
    assert (again / "data" / "a.csv").read_text() == (large / "data" / "a.csv").read_text()
    assert cached_bytes(there) < MIB


def test_an_unchanged_project_is_not_read_again_because_its_layer_is_elsewhere(
    kitd, large, docker_registry
):
    """Nor is it sent again; not even after a restart."""
    reference = f"{docker_registry.host}/team/demo"
    daemon = kitd(STREAM_OVER).start()
    first = daemon.json("pack", large, "-t", f"{reference}:v1", "--push")
    daemon.stop()
    daemon.start()
    second = daemon.json("pack", large, "-t", f"{reference}:v2", "--push")

    assert second["digest"] == first["digest"]
    assert all(layer["reused"] for layer in second["layers"])
    assert [layer["elsewhere"] for layer in second["layers"]] == [True, False]
    assert (first["sent"] > 24 * MIB, second["sent"]) == (True, 0)
    assert second["push"]["bytes"]["sent"] == 0


def test_a_kit_whose_layer_is_elsewhere_goes_to_another_registry(
    kitd, large, start_docker_registry, tmp_path
):
    """Through kitd, from where the layer is, and not by way of its disk."""
    first, second = start_docker_registry(), start_docker_registry()
    reference, copy = f"{first.host}/team/demo:v1", f"{second.host}/other/demo:v1"
    daemon = kitd(STREAM_OVER).start()
    daemon.json("pack", large, "-t", reference, "--push")
    daemon.json("push", reference, copy)
    assert cached_bytes(daemon) < MIB

    other = kitd().start()
    other.json("unpack", copy, "-d", tmp_path / "back")
    assert digest_of(tmp_path / "back" / "model.bin") == digest_of(large / "model.bin")


def test_a_kit_whose_layer_is_elsewhere_is_no_damage_and_in_no_layout(
    kitd, large, docker_registry, eventually
):
    """It is listed and looked into like any other; a pull that has room completes it."""
    reference = f"{docker_registry.host}/team/demo:v1"
    daemon = kitd(STREAM_OVER).start()
    packed = daemon.json("pack", large, "-t", reference, "--push")

    def named() -> list[str]:
        index = json.loads((daemon.cache / "index.json").read_text())
        return [manifest["digest"] for manifest in index["manifests"]]

    assert daemon.json("list")[0]["digest"] == packed["digest"]
    assert daemon.json("inspect", reference)["digest"] == packed["digest"]
    verified = daemon.json("cache", "verify")
    assert verified["damaged"] == []
    assert named() == []
    (layer,) = (each for each in packed["layers"] if each["size"] > MIB)
    why = [reason["text"] for reason in daemon.json("why", layer["digest"])["reasons"]]
    assert why[0] == "not in the cache"
    assert f"it is in {docker_registry.host}/team/demo" in why

    daemon.stop()
    daemon.config = {}
    daemon.start()
    daemon.json("pull", reference)
    assert cached_bytes(daemon) > 24 * MIB
    eventually("the layout to have the kit", lambda: named() == [packed["digest"]])


def test_only_the_layers_that_are_wanted_are_fetched(kitd, large, docker_registry, tmp_path):
    """An unpack with a filter pulls nothing else; what it left out comes when it is asked for."""
    reference = f"{docker_registry.host}/team/demo:v1"
    kitd().start().json("pack", large, "-t", reference, "--push")
    daemon = kitd().start()
    daemon.json("unpack", reference, "-f", "datasets", "-d", tmp_path / "data")

    assert [path.name for path in (tmp_path / "data").rglob("*") if path.is_file()] == ["a.csv"]
    assert cached_bytes(daemon) < MIB
    daemon.json("unpack", reference, "-f", "model", "-d", tmp_path / "model")
    assert digest_of(tmp_path / "model" / "model.bin") == digest_of(large / "model.bin")


def test_a_layer_that_is_gone_is_an_error_with_its_reason_and_leaves_nothing(
    kitd, large, docker_registry, tmp_path
):
    """The registry lost what it had: the unpack says so, and writes no name."""
    reference = f"{docker_registry.host}/team/demo:v1"
    daemon = kitd(STREAM_OVER).start()
    packed = daemon.json("pack", large, "-t", reference, "--push")
    (layer,) = (each for each in packed["layers"] if each["size"] > MIB)
    hexadecimal = layer["digest"].removeprefix("sha256:")
    data = f"docker/registry/v2/blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data"
    (docker_registry.root / data).unlink()

    target = tmp_path / "back"
    answer = daemon.kitctl("unpack", reference, "-d", target)
    assert answer.code == 1
    assert layer["digest"] in answer.err
    assert not target.exists()


class Gate:
    """A way to a registry that counts what goes there, and lets no more through for a while."""

    def __init__(self, upstream: str) -> None:
        self._host, self._port = upstream.split(":")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent = 0
        self.most = sys.maxsize
        self._changed = threading.Condition()
        self._sockets: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def open(self) -> None:
        with self._changed:
            self.most = sys.maxsize
            self._changed.notify_all()

    def close(self) -> None:
        self.open()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        # It may have taken a connection a moment ago.
        self._accepting.join()
        self.cut()
        for each in (self._listener, *self._sockets):
            each.close()

    def cut(self) -> None:
        """Break all connections there are."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def is_reached(self) -> bool:
        return self.sent >= self.most

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                server = socket.create_connection((self._host, int(self._port)))
                self._sockets.append(server)
                threading.Thread(target=self._pump, args=(client, server, True)).start()
                threading.Thread(target=self._pump, args=(server, client, False)).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if counts:
                    with self._changed:
                        self._changed.wait_for(lambda: self.sent < self.most)
                        self.sent += len(data)
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def gate_to():
    """Make gates; all are closed after the test."""
    gates: list[Gate] = []

    def gate_to(upstream: str) -> Gate:
        gates.append(Gate(upstream))
        return gates[-1]

    yield gate_to
    for gate in gates:
        gate.close()


def test_a_file_that_changes_while_it_is_sent_is_not_published(
    kitd, large, docker_registry, gate_to, eventually
):
    """The upload is cancelled; what is published later is the file as it is then."""
    gate = gate_to(docker_registry.host)
    gate.most = 12 * MIB
    daemon = kitd(STREAM_OVER).start()
    job = daemon.json("pack", large, "-t", f"{gate.host}/team/demo:v1", "--push", "--detach")
    eventually("half of the file to be sent", gate.is_reached)
    with (large / "model.bin").open("r+b") as file:
        file.seek(20 * MIB)
        file.write(b"other weights")
    gate.open()
    packed = daemon.json("jobs", "wait", job["job"])["result"]

    assert "changed while" in json.dumps(daemon.json("jobs", "log", job["job"]))
    published = {each["digest"] for each in (*packed["layers"], packed["config"])}
    assert blobs_of(docker_registry) <= {*published, packed["digest"]}
    eventually("the upload to be cancelled", lambda: uploads_left(docker_registry) == [])


@pytest.mark.parametrize("victim", ["kitd", "its workers"])
def test_an_upload_goes_on_after_kill_9(
    kitd, large, free_address, gate_to, eventually, tmp_path, victim
):
    """The files are read again from the start; of what was sent at most a chunk is sent again.

    To a registry that keeps what has arrived of a chunk, as kitd's own does.
    """
    (large / "model.bin").write_bytes(os.urandom(64 * MIB))
    kitd({"registry": {"listen": free_address}}).start()
    gate = gate_to(free_address)
    gate.most = 40 * MIB
    daemon = kitd(STREAM_OVER).start()
    reference = f"{gate.host}/team/demo:v1"
    job = daemon.json("pack", large, "-t", reference, "--push", "--detach")
    eventually("half of the file to be sent", gate.is_reached)
    if victim == "kitd":
        daemon.kill()
        gate.open()
        daemon.start()
    else:
        for worker in daemon.children():
            os.kill(worker, signal.SIGKILL)
        gate.open()
    packed = daemon.json("jobs", "wait", job["job"])

    assert packed["state"] == "succeeded"
    eventually("the push", lambda: [job["state"] for job in daemon.jobs("push")] == ["succeeded"])
    assert 64 * MIB <= gate.sent <= (64 + 8 + 1) * MIB
    daemon.json("unpack", reference, "-d", tmp_path / "back")
    assert digest_of(tmp_path / "back" / "model.bin") == digest_of(large / "model.bin")


def test_a_registry_that_lost_the_upload_gets_it_once_more(
    kitd, large, docker_registry, gate_to, eventually
):
    """Debian's registry forgets an upload of which a chunk was cut off."""
    gate = gate_to(docker_registry.host)
    gate.most = 12 * MIB
    daemon = kitd(STREAM_OVER).start()
    job = daemon.json("pack", large, "-t", f"{gate.host}/team/demo:v1", "--push", "--detach")
    eventually("half of the file to be sent", gate.is_reached)
    gate.cut()
    gate.open()

    assert daemon.json("jobs", "wait", job["job"])["state"] == "succeeded"


def blobs_of(registry) -> set[str]:
    return {
        f"sha256:{path.parent.name}"
        for path in registry.root.glob("docker/registry/v2/blobs/sha256/*/*/data")
    }
