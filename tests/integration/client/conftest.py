"""A peer that speaks the daemon's side of the protocol, line by line, as a test scripts it."""

import array
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

JOB = {
    "id": 12,
    "kind": "pack",
    "state": "succeeded",
    "project": "sentiment",
    "reference": "team/sentiment:v1",
    "attempt": 1,
    "max_attempts": 5,
    "created": "2026-01-02T03:04:05Z",
    "started": "2026-01-02T03:04:06Z",
    "finished": "2026-01-02T03:04:08Z",
    "run_at": None,
    "progress": None,
    "result": None,
    "error": None,
    "superseded_by": None,
}


class RefusalError(Exception):
    """What a handler raises to answer with an error."""

    def __init__(
        self, code: str, message: str = "no", hint: str | None = None, *, retryable: bool = False
    ) -> None:
        super().__init__(message)
        self.body = {
            "code": -33000,
            "message": message,
            "data": {
                "code": code,
                "retryable": retryable,
                "retry_after_ms": None,
                "hint": hint,
            },
        }


@dataclass
class Answer:
    """A result with descriptors, or raw bytes instead of an answer, or lines that follow it."""

    result: object = None
    descriptors: tuple[int, ...] = ()
    raw: bytes | None = None
    before: tuple[dict, ...] = ()
    after: tuple[dict, ...] = ()
    hang_up: bool = False
    silent: bool = False


@dataclass
class Peer:
    path: Path
    handlers: dict[str, Callable[[dict], object]] = field(default_factory=dict)
    calls: list[tuple[str, dict]] = field(default_factory=list)
    is_reading: threading.Event = field(default_factory=threading.Event)
    ended: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    talking: socket.socket | None = None
    """Where the call came from that is being answered."""

    def on(self, method: str, *answers: object) -> None:
        """Answer the first call with the first answer and so on; the last one stays."""
        left = list(answers)

        def answer(params: dict) -> object:
            current = left.pop(0) if len(left) > 1 else left[0]
            return current(params) if callable(current) else current

        self.handlers[method] = answer

    def made(self, method: str) -> list[dict]:
        return [params for name, params in self.calls if name == method]

    def wait_for_hang_up(self) -> None:
        """Return once another connection has ended, on both sides."""
        assert self.ended.acquire(timeout=10)

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection: socket.socket) -> None:
        try:
            self.answer_all(connection)
        finally:
            self.ended.release()

    def answer_all(self, connection: socket.socket) -> None:
        self.is_reading.wait(10)
        with connection, connection.makefile("rb") as lines:
            try:
                for line in lines:
                    if not line.endswith(b"\n"):
                        return
                    self.talking = connection
                    request = json.loads(line)
                    assert request["jsonrpc"] == "2.0"
                    self.calls.append((request["method"], request["params"]))
                    if self.respond(connection, request):
                        return
            except OSError:
                return

    def respond(self, connection: socket.socket, request: dict) -> bool:
        envelope = {"jsonrpc": "2.0", "id": request["id"]}
        try:
            answer = self.handlers[request["method"]](request["params"])
        except RefusalError as refusal:
            send(connection, envelope | {"error": refusal.body})
            return False
        if isinstance(answer, RefusalError):
            send(connection, envelope | {"error": answer.body})
            return False
        if not isinstance(answer, Answer):
            answer = Answer(answer)
        for line in answer.before:
            send(connection, {"jsonrpc": "2.0"} | line)
        if answer.raw is not None:
            connection.sendall(answer.raw)
        elif not answer.silent and not answer.hang_up:
            send(connection, envelope | {"result": answer.result}, answer.descriptors)
        for line in answer.after:
            send(connection, {"jsonrpc": "2.0"} | line)
        return answer.hang_up


def send(connection: socket.socket, message: dict, descriptors: tuple[int, ...] = ()) -> None:
    line = json.dumps(message).encode() + b"\n"
    if descriptors:
        rights = array.array("i", descriptors).tobytes()
        sent = connection.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        line = line[sent:]
    connection.sendall(line)


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    path = tmp_path / "kitd.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        peer = Peer(path)
        peer.is_reading.set()
        thread = threading.Thread(target=peer.serve, args=(listener,))
        thread.start()
        yield peer
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.fixture
def job() -> Callable[..., dict]:
    return lambda **changes: JOB | changes


@pytest.fixture
def answer() -> type[Answer]:
    return Answer


@pytest.fixture
def refusal() -> type[RefusalError]:
    return RefusalError


@pytest.fixture
def notify() -> Callable[..., dict]:
    """Make the line that tells an event."""

    def event(seq: int, type_: str, subject: str = "job:12", subscription: int = 1) -> dict:
        body = {
            "seq": seq,
            "at": "2026-01-02T03:04:05Z",
            "type": type_,
            "subject": subject,
            "data": {},
        }
        return {
            "method": "events.event",
            "params": {"subscription": subscription, "event": body},
        }

    return event


@pytest.fixture
def kitctl(peer: Peer) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `kitctl` as a process against the peer, far away from any terminal."""

    def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "kitd.ctl.main", "--socket", str(peer.path), *words],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            **options,
        )

    return run
