"""The blocking and the asynchronous client on a real socket."""

import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, aclosing

import pytest

from kitd.client import AsyncClient, Client, request
from kitd.client.absence import JobLostError
from kitd.client.async_connection import open_stream
from kitd.client.error import (
    AccessDeniedError,
    ArgumentError,
    ClientClosedError,
    DaemonUnreachableError,
    DeadlineExceededError,
    ProtocolError,
    RpcError,
)
from kitd.client.record import Event, Progress

PING = request.Request("system.ping", {}, lambda answer: answer)
"""Answered: the peer, which lives in this process, has accepted the connection."""


def handles() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_call_returns_a_typed_answer_and_keeps_the_document(peer, job):
    peer.on("jobs.get", job(novelty=1))
    with Client.connect(peer.path) as client:
        found = client.call(request.get_job(12))
    assert (found.id, found.kind, found.is_terminal) == (12, "pack", True)
    assert found.document["novelty"] == 1
    assert peer.calls == [("jobs.get", {"id": 12})]


def test_arguments_that_are_not_given_are_not_sent(peer):
    peer.on("jobs.list", {"jobs": [], "as_of_seq": 0})
    with Client.connect(peer.path) as client:
        assert client.call(request.list_jobs(state="failed")) == ()
    assert peer.made("jobs.list") == [{"state": "failed"}]


def test_an_error_carries_the_daemons_code_message_and_hint(peer, refusal):
    peer.on("jobs.get", refusal("not_found", "no job 7", "list them"))
    with Client.connect(peer.path) as client, pytest.raises(RpcError) as caught:
        client.call(request.get_job(7))
    error = caught.value
    assert (error.code, error.message, error.hint) == ("not_found", "no job 7", "list them")
    assert not error.retryable


def test_an_error_without_an_id_ends_the_call(peer, answer):
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "not JSON"}}
    peer.on("system.status", answer(raw=json.dumps(body).encode() + b"\n"))
    with Client.connect(peer.path) as client, pytest.raises(RpcError, match="not JSON"):
        client.call(request.status())


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\n",
        b"[1]\n",
        b"{}\n",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"jsonrpc":"2.0","id":99,"result":{}}\n',
        b"x" * (4 << 20) + b"xx",
    ],
    ids=["text", "list", "empty", "not UTF-8", "nested", "another id", "endless line"],
)
def test_what_is_not_the_protocol_is_refused(peer, answer, raw):
    peer.on("jobs.get", answer(raw=raw))
    with Client.connect(peer.path) as client, pytest.raises(ProtocolError):
        client.call(request.get_job(1))


@pytest.mark.parametrize("result", [None, [], {"id": 12}])
def test_an_answer_of_another_shape_is_refused(peer, result):
    peer.on("jobs.get", result)
    with Client.connect(peer.path) as client, pytest.raises(ProtocolError):
        client.call(request.get_job(1))


@pytest.mark.parametrize("number", ["12", True, 1.5, None])
def test_a_number_that_is_none_is_refused(peer, job, number):
    peer.on("jobs.get", job(id=number))
    with Client.connect(peer.path) as client, pytest.raises(ProtocolError):
        client.call(request.get_job(1))


def test_a_request_that_the_daemon_would_refuse_is_not_sent(peer):
    with Client.connect(peer.path) as client, pytest.raises(ProtocolError, match="1 MiB"):
        client.call(request.why("x" * (1 << 20)))
    assert peer.calls == []


def test_a_name_that_is_not_utf8_is_refused_before_it_is_sent(peer):
    path = os.fsdecode(b"/srv/\xff")
    with Client.connect(peer.path) as client, pytest.raises(ProtocolError, match="UTF-8"):
        client.call(request.pack(path, "r"))
    assert peer.calls == []


def test_a_silent_daemon_is_given_up(peer, answer):
    peer.on("system.status", answer(silent=True))
    started = time.monotonic()
    with Client.connect(peer.path) as client, pytest.raises(DeadlineExceededError):
        client.call(request.status(), timeout_s=0.05)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("begun", [b"", b'{"jsonrpc":"2.0","id":1,"resu'], ids=["none", "half"])
def test_a_call_that_was_interrupted_costs_no_later_one(peer, job, begun):
    """As by Ctrl-C, whatever of its answer had come."""
    released = threading.Event()

    def interrupt(params):
        if params["id"] != 1:
            return job(id=params["id"])
        peer.talking.sendall(begun)
        os.kill(os.getpid(), signal.SIGINT)
        released.wait(10)
        return job(id=1)

    peer.on("system.ping", {})
    peer.on("jobs.get", interrupt)
    with Client.connect(peer.path) as client:
        client.call(PING)
        before = handles()
        with pytest.raises(KeyboardInterrupt):
            client.call(request.get_job(1))
        released.set()
        assert [client.call(request.get_job(number)).id for number in (2, 3)] == [2, 3]
        peer.wait_for_hang_up()
        assert handles() == before


@pytest.mark.parametrize(
    "failure",
    [
        {"silent": True},
        {"hang_up": True},
        {"raw": b"nonsense\n"},
        {"raw": b'{"jsonrpc":"2.0","id":99,"result":{}}\n'},
        {"raw": b'{"jsonrpc":"2.0"', "hang_up": True},
    ],
    ids=["silent", "hang-up", "nonsense", "another id", "half an answer"],
)
def test_after_a_call_that_failed_the_next_one_connects_again(peer, answer, job, failure):
    """And what failed is not sent again: the daemon may have done it."""
    peer.on("jobs.get", answer(**failure), job())
    with Client.connect(peer.path) as client:
        with pytest.raises((DeadlineExceededError, DaemonUnreachableError, ProtocolError)):
            client.call(request.get_job(11), timeout_s=0.2)
        assert client.call(request.get_job(12)).id == 12
    assert peer.made("jobs.get") == [{"id": 11}, {"id": 12}]


def test_a_request_that_was_sent_in_part_costs_no_later_one(peer, job):
    peer.on("jobs.get", job())
    peer.is_reading.clear()
    with Client.connect(peer.path) as client:
        with pytest.raises(DeadlineExceededError, match="does not read"):
            client.call(request.why("x" * 900_000), timeout_s=0.2)
        peer.is_reading.set()
        assert client.call(request.get_job(12)).id == 12
    assert peer.calls == [("jobs.get", {"id": 12})]


def test_a_daemon_that_was_started_again_is_connected_to_by_the_next_call(peer, answer, job):
    """Which is sent once, because the end of the connection is seen before it is sent."""
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "result": job()}).encode() + b"\n"
    peer.on("jobs.get", answer(raw=line, hang_up=True), job(id=13))
    with Client.connect(peer.path) as client:
        assert client.call(request.get_job(12)).id == 12
        peer.wait_for_hang_up()
        assert client.call(request.get_job(13)).id == 13
    assert peer.made("jobs.get") == [{"id": 12}, {"id": 13}]


def test_a_client_that_was_closed_stays_closed(peer, job):
    peer.on("jobs.get", job())
    with Client.connect(peer.path) as client:
        client.close()
    with pytest.raises(ClientClosedError):
        client.call(request.get_job(12))
    with pytest.raises(ClientClosedError):
        client.subscribe()
    assert peer.calls == []


def test_a_daemon_that_hangs_up_is_told_apart_from_an_error(peer, answer):
    peer.on("system.status", answer(hang_up=True))
    with Client.connect(peer.path) as client, pytest.raises(DaemonUnreachableError):
        client.call(request.status())


@pytest.fixture
def crowded(tmp_path):
    """A listener that takes nobody yet, and has no room for one more."""
    path = tmp_path / "crowded.sock"
    with socket.socket(socket.AF_UNIX) as listener, ExitStack() as crowd:
        listener.bind(str(path))
        listener.listen(0)
        first = crowd.enter_context(socket.socket(socket.AF_UNIX))
        first.connect(str(path))
        yield listener


def test_whoever_comes_with_a_crowd_is_connected_when_there_is_room(crowded):
    with ThreadPoolExecutor(1) as threads:
        connecting = threads.submit(Client.connect, crowded.getsockname())
        # It is nowhere to be seen that it waits: what fails at once has failed by then.
        done, _ = wait([connecting], timeout=0.2)
        first, _ = crowded.accept()
        with first, connecting.result(), crowded.accept()[0]:
            assert not done


async def test_async_whoever_comes_with_a_crowd_is_connected_when_there_is_room(crowded):
    loop = asyncio.get_running_loop()
    crowded.setblocking(False)
    async with asyncio.timeout(10):
        connecting = asyncio.create_task(open_stream(crowded.getsockname()))
        done, _ = await asyncio.wait([connecting], timeout=0.2)
        assert not done
        first, _ = await loop.sock_accept(crowded)
        with first:
            stream = await connecting
            second, _ = await loop.sock_accept(crowded)
            with second:
                stream.writer.close()
                await stream.writer.wait_closed()


def test_a_client_that_is_closed_while_it_connects_sends_nothing(crowded):
    first, _ = crowded.accept()
    with ThreadPoolExecutor(1) as threads, socket.socket(socket.AF_UNIX) as other:
        client = Client.connect(crowded.getsockname())
        crowded.accept()[0].close()
        other.connect(crowded.getsockname())
        calling = threads.submit(client.call, PING)
        wait([calling], timeout=0.2)
        client.close()
        crowded.accept()[0].close()
        with pytest.raises(ClientClosedError):
            calling.result(10)
        with crowded.accept()[0] as late:
            assert late.recv(1) == b""
    first.close()


def test_no_socket_says_how_to_start_the_daemon(tmp_path):
    with pytest.raises(DaemonUnreachableError) as caught:
        Client.connect(tmp_path / "none.sock")
    assert caught.value.hint == "start it with: kitd serve"


def test_a_dead_socket_says_how_to_start_the_daemon(tmp_path):
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(DaemonUnreachableError, match="refused"):
        Client.connect(path)


@pytest.mark.parametrize("path", ["a\0b", "\ud800"])
async def test_a_path_that_is_none_is_refused(path):
    with pytest.raises(ArgumentError):
        Client.connect(path)
    with pytest.raises(ArgumentError):
        async with AsyncClient.connect(path):
            pass


def test_a_path_too_long_for_a_socket_is_unreachable(tmp_path):
    with pytest.raises(DaemonUnreachableError):
        Client.connect(tmp_path / ("x" * 120))


@pytest.mark.skipif(os.getuid() != 0, reason="changes the user to one without access")
def test_a_socket_without_access_is_denied(tmp_path):
    path = tmp_path / "private.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o600)
        child = os.fork()
        if child == 0:
            # Whatever happens, this copy of the test run ends here.
            code = 1
            try:
                os.setresuid(65534, 65534, 65534)
                Client.connect(path)
            except AccessDeniedError:
                code = 7
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_layers_arrive_as_descriptors_behind_notifications(peer, answer, notify, tmp_path):
    (tmp_path / "a").write_bytes(b"first")
    (tmp_path / "b").write_bytes(b"second")
    opened = tuple(os.open(tmp_path / name, os.O_RDONLY) for name in "ab")
    peer.on("kits.open", answer({"count": 2}, opened, before=(notify(1, "kit.packed"),)))
    with Client.connect(peer.path) as client:
        received = client.open_layers("sha256:m", ["sha256:a", "sha256:b"])
        contents = [os.pread(handle, 10, 0) for handle in received]
        assert not any(os.get_inheritable(handle) for handle in received)
    for handle in (*received, *opened):
        os.close(handle)
    assert contents == [b"first", b"second"]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_of_descriptors_is_refused_and_none_leaks(peer, answer, count):
    opened = tuple(os.open("/dev/null", os.O_RDONLY) for _ in range(count))
    peer.on("system.ping", {})
    peer.on("kits.open", answer({"count": 2}, opened))
    with Client.connect(peer.path) as client:
        client.call(PING)
        before = handles()
        with pytest.raises(ProtocolError):
            client.open_layers("sha256:m", ["sha256:a", "sha256:b"])
        assert handles() == before
    for handle in opened:
        os.close(handle)


def test_descriptors_that_nobody_asked_for_are_closed(peer, answer, job):
    handle = os.open("/dev/null", os.O_RDONLY)
    peer.on("system.ping", {})
    peer.on("jobs.get", answer(job(), (handle,)))
    with Client.connect(peer.path) as client:
        client.call(PING)
        before = handles()
        client.call(request.get_job(12))
        assert handles() == before
    os.close(handle)


def test_threads_share_a_client(peer, answer, job, tmp_path):
    """Each gets the answers, and the descriptors, of its own calls."""
    (tmp_path / "0").write_bytes(b"0")
    (tmp_path / "1").write_bytes(b"1")
    opened = [os.open(tmp_path / name, os.O_RDONLY) for name in "01"]
    peer.on("jobs.get", lambda params: job(id=params["id"]))
    peer.on("kits.open", lambda params: answer({}, (opened[int(params["digest"])],)))

    def ask(client, number):
        for _ in range(50):
            assert client.call(request.get_job(number)).id == number
            (handle,) = client.open_layers(str(number % 2), ["sha256:a"])
            with open(handle, "rb") as layer:
                assert os.pread(layer.fileno(), 9, 0) == str(number % 2).encode()

    with Client.connect(peer.path) as client, ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(ask, client, number) for number in (1, 2, 3)]:
            done.result()
    for handle in opened:
        os.close(handle)


def test_a_thread_waits_for_its_turn_no_longer_than_for_its_answer(peer, job):
    asked, released = threading.Event(), threading.Event()
    peer.on("system.why", lambda _params: asked.set() or (released.wait(10) and {}))
    peer.on("jobs.get", job())
    with Client.connect(peer.path) as client, ThreadPoolExecutor(1) as threads:
        slow = threads.submit(client.call, request.why("x"))
        assert asked.wait(10)
        with pytest.raises(DeadlineExceededError, match="other threads"):
            client.call(request.get_job(12), timeout_s=0.05)
        released.set()
        assert slow.result() == {}
        assert client.call(request.get_job(12)).id == 12


def test_closing_ends_the_call_of_another_thread(peer):
    asked, released = threading.Event(), threading.Event()
    peer.on("system.why", lambda _params: asked.set() or (released.wait(10) and {}))
    with Client.connect(peer.path) as client, ThreadPoolExecutor(1) as threads:
        slow = threads.submit(client.call, request.why("x"))
        assert asked.wait(10)
        client.close()
        with pytest.raises(DaemonUnreachableError):
            slow.result()
        released.set()


def test_ctrl_c_at_any_moment_leaves_the_turn_to_the_next_call(peer):
    """The interpreter looks for signals where a function begins and where one of C has returned."""
    peer.on("system.ping", {})
    left = 0

    def interrupt(_frame, event, _argument):
        nonlocal left
        if event in ("call", "c_return"):
            left -= 1
            if left == 0:
                raise KeyboardInterrupt

    moments = 0
    while True:
        with Client.connect(peer.path) as client:
            left = moments = moments + 1
            try:
                sys.setprofile(interrupt)
                client.call(PING)
                sys.setprofile(None)
                break
            except KeyboardInterrupt:
                sys.setprofile(None)
            assert client.call(PING, timeout_s=5) == {}
    assert moments > 20


def test_closing_in_the_handler_of_a_signal_ends_the_call_that_it_came_in(peer, answer):
    def interrupt(_params):
        os.kill(os.getpid(), signal.SIGUSR1)
        return answer(silent=True)

    peer.on("system.why", interrupt)
    with Client.connect(peer.path) as client:
        before = signal.signal(signal.SIGUSR1, lambda *_: client.close())
        try:
            with pytest.raises(DaemonUnreachableError):
                client.call(request.why("x"))
        finally:
            signal.signal(signal.SIGUSR1, before)
        with pytest.raises(ClientClosedError):
            client.call(PING)
    peer.wait_for_hang_up()


def test_a_fork_that_closes_its_client_leaves_its_parents_call_alone(peer):
    """Although the turn is taken, by a thread that is not in the fork."""
    asked, released = threading.Event(), threading.Event()
    peer.on("system.why", lambda _params: asked.set() or (released.wait(10) and {"a": 1}))
    with Client.connect(peer.path) as client, ThreadPoolExecutor(1) as threads:
        calling = threads.submit(client.call, request.why("x"))
        assert asked.wait(10)
        child = os.fork()
        if child == 0:
            # Whatever happens, this copy of the test run ends here.
            code = 1
            try:
                signal.alarm(10)
                try:
                    client.call(PING)
                except ClientClosedError:
                    client.close()
                    code = 7
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        released.set()
        assert calling.result(10) == {"a": 1}
    assert [method for method, _ in peer.calls] == ["system.why"]


def test_following_a_job_tells_progress_and_ends_with_its_last_state(peer, answer, job, notify):
    progress = {"job": 12, "phase": "packing", "bytes": 5, "total": 10}
    others = progress | {"job": 13}
    peer.on(
        "events.subscribe",
        answer(
            {"subscription": 1, "head_seq": 4},
            after=(
                {"method": "$/heartbeat", "params": {"head_seq": 4}},
                {"method": "$/progress", "params": others},
                {"method": "$/progress", "params": progress},
                notify(5, "job.succeeded", subscription=9),
                notify(6, "job.succeeded"),
            ),
        ),
    )
    peer.on("jobs.get", job(state="running"), job(state="succeeded"))
    with Client.connect(peer.path) as client:
        running, moved, ended = client.follow(12)
    assert (running.state, ended.state) == ("running", "succeeded")
    assert moved == Progress("packing", 5, 10)
    # Subscribed before it looked, so that nothing falls in between.
    assert [name for name, _ in peer.calls] == ["events.subscribe", "jobs.get", "jobs.get"]


def test_waiting_goes_on_with_the_successor_of_a_superseded_job(peer, job):
    peer.on("events.subscribe", {"subscription": 1, "head_seq": 4})
    peer.on("jobs.get", job(state="superseded", superseded_by=13), job(id=13))
    with Client.connect(peer.path) as client:
        assert client.wait(12).id == 13


OTHER_STATES = pytest.mark.parametrize(
    "change",
    [
        {"created": "2026-01-02T03:04:06Z"},
        {"kind": "push"},
        {"reference": "team/other:v1"},
        None,
    ],
    ids=["created", "kind", "reference", "none"],
)


@OTHER_STATES
def test_the_same_number_in_another_state_of_kitd_is_not_the_same_job(
    peer, answer, job, notify, refusal, change
):
    """Neither for whoever asked for the job, nor for whoever has seen it once."""
    other = refusal("not_found") if change is None else job(**change)
    peer.on("kits.pack", {"job": job(state="ready")})
    subscribed = answer({"subscription": 1, "head_seq": 4}, after=(notify(5, "job.started"),))
    peer.on("events.subscribe", answer(hang_up=True), subscribed)
    peer.on("jobs.get", other)
    with Client.connect(peer.path) as client:
        with pytest.raises(JobLostError, match="another state") as lost:
            client.pack("demo", "team/sentiment:v1")
        assert lost.value.job == 12
        assert not hasattr(lost.value, "__notes__")
        peer.on("jobs.get", job(state="running"), other)
        with pytest.raises(JobLostError, match="another state"):
            client.wait(12)


def test_a_number_that_nobody_has_seen_is_not_found(peer, refusal):
    peer.on("events.subscribe", {"subscription": 1, "head_seq": 4})
    peer.on("jobs.get", refusal("not_found"))
    with Client.connect(peer.path) as client, pytest.raises(RpcError) as unknown:
        client.wait(12)
    assert unknown.value.code == "not_found"


@OTHER_STATES
async def test_async_the_same_number_in_another_state_of_kitd_is_not_the_same_job(
    peer, answer, job, refusal, change
):
    other = refusal("not_found") if change is None else job(**change)
    peer.on("kits.pack", {"job": job(state="ready")})
    peer.on("jobs.wait", answer(hang_up=True), other)
    async with AsyncClient.connect(peer.path) as client:
        with pytest.raises(JobLostError, match="another state") as lost:
            await client.pack("demo", "team/sentiment:v1")
        assert not hasattr(lost.value, "__notes__")
        peer.on("jobs.wait", job(state="running"), other)
        with pytest.raises(JobLostError, match="another state"):
            await client.wait(12)


def test_the_note_that_a_job_goes_on_is_not_put_on_an_error_of_kitd(peer, refusal, job):
    peer.on("kits.pack", {"job": job(state="ready")})
    peer.on("events.subscribe", refusal("denied"))
    with Client.connect(peer.path) as client, pytest.raises(RpcError) as denied:
        client.pack("demo", "team/sentiment:v1")
    assert not hasattr(denied.value, "__notes__")


def test_waiting_ends_at_the_deadline(peer, job):
    peer.on("events.subscribe", {"subscription": 1, "head_seq": 4})
    peer.on("jobs.get", job(state="running"))
    with Client.connect(peer.path) as client, pytest.raises(DeadlineExceededError):
        client.wait(12, timeout_s=0.05)


def test_a_reader_that_lagged_goes_on_where_it_stopped(peer, answer, notify):
    lagged = {"method": "events.lagged", "params": {"subscription": 1, "last_seq": 7}}
    peer.on(
        "events.subscribe",
        answer({"subscription": 1, "head_seq": 4}, after=(notify(7, "kit.packed"), lagged)),
        answer({"subscription": 2, "head_seq": 9}, after=(notify(8, "kit.pushed", "", 2),)),
    )
    with Client.connect(peer.path) as client, client.subscribe(from_seq=6) as subscription:
        first, second = subscription.read(), subscription.read()
    assert isinstance(first, Event)
    assert isinstance(second, Event)
    assert (first.seq, second.seq) == (7, 8)
    assert peer.made("events.subscribe") == [{"from_seq": 6}, {"from_seq": 7}]


async def test_async_calls_overlap_on_one_connection(peer, job):
    peer.on("jobs.get", lambda params: job(id=params["id"]))
    async with AsyncClient.connect(peer.path) as client, asyncio.TaskGroup() as group:
        tasks = [group.create_task(client.call(request.get_job(number))) for number in range(20)]
    assert [task.result().id for task in tasks] == list(range(20))


async def test_async_errors_are_those_of_the_blocking_client(peer, answer, refusal):
    peer.on("jobs.get", refusal("not_found"))
    peer.on("system.status", answer(silent=True))
    peer.on("system.why", answer(hang_up=True))
    async with AsyncClient.connect(peer.path) as client:
        with pytest.raises(RpcError):
            await client.call(request.get_job(1))
        with pytest.raises(DeadlineExceededError):
            await client.call(request.status(), timeout_s=0.05)
        with pytest.raises(DaemonUnreachableError):
            await client.call(request.why("x"))
        with pytest.raises(DaemonUnreachableError):
            await client.call(request.why("x"))


async def test_async_a_call_that_was_cancelled_costs_no_later_one(peer, tmp_path, job):
    """Whatever of it was sent, and although the next one sends a descriptor past the stream."""
    peer.on("kits.pack", {"job": job(reference="demo:v1")})
    peer.on("system.why", {})
    for _ in range(10):
        peer.is_reading.clear()
        async with AsyncClient.connect(peer.path) as client:
            given_up = asyncio.create_task(client.call(request.why("x" * 900_000)))
            # Far enough for the first bytes to be sent, and no farther while nobody reads.
            done, _ = await asyncio.wait([given_up], timeout=0.01)
            assert not done
            given_up.cancel()
            packing = asyncio.create_task(client.call(request.pack(str(tmp_path), "demo:v1")))
            await asyncio.wait([packing], timeout=0.01)
            peer.is_reading.set()
            assert (await asyncio.wait_for(packing, 5)).reference == "demo:v1"
    assert {method for method, _ in peer.calls} == {"system.why", "kits.pack"}


async def test_async_a_call_that_was_cancelled_before_its_turn_is_not_sent(peer, job):
    peer.on("system.why", {})
    peer.on("jobs.get", lambda params: job(id=params["id"]))
    peer.is_reading.clear()
    async with AsyncClient.connect(peer.path) as client:
        first = asyncio.create_task(client.call(request.why("x" * 900_000)))
        second = asyncio.create_task(client.call(request.get_job(2)))
        await asyncio.wait([first, second], timeout=0.01)
        second.cancel()
        third = asyncio.create_task(client.call(request.get_job(3)))
        peer.is_reading.set()
        assert (await first, (await third).id) == ({}, 3)
    assert peer.made("jobs.get") == [{"id": 3}]


async def test_async_an_error_without_an_id_ends_all_calls(peer, answer):
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "not JSON"}}
    peer.on("system.status", answer(silent=True))
    peer.on("system.why", answer(raw=json.dumps(body).encode() + b"\n"))
    async with AsyncClient.connect(peer.path) as client:
        calls = [
            asyncio.create_task(client.call(asked, timeout_s=5))
            for asked in (request.status(), request.why("x"))
        ]
        for call in calls:
            with pytest.raises(RpcError, match="not JSON"):
                await call


async def test_async_calls_that_wait_are_told_when_the_client_is_left(peer, answer):
    peer.on("system.status", answer(silent=True))
    async with AsyncClient.connect(peer.path) as client:
        waiting = asyncio.create_task(client.call(request.status()))
        await asyncio.wait([waiting], timeout=0.01)
    with pytest.raises(DaemonUnreachableError):
        await waiting
    with pytest.raises(ClientClosedError):
        await client.call(request.status())


@pytest.mark.parametrize("steps", range(8))
async def test_async_a_call_that_connects_while_the_client_is_left_leaves_nothing_open(
    peer, answer, steps
):
    """However far it has come by then."""
    peer.on("system.ping", {}, answer(silent=True))
    async with AsyncClient.connect(peer.path) as client:
        await client.call(PING)
        peer.talking.shutdown(socket.SHUT_RDWR)
        await asyncio.to_thread(peer.wait_for_hang_up)
        calling = asyncio.create_task(client.call(PING))
        for _ in range(steps):
            await asyncio.sleep(0)
    with pytest.raises((ClientClosedError, DaemonUnreachableError)):
        await calling
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_async_after_the_end_of_a_connection_the_next_call_connects_again(peer, answer, job):
    """And what failed is not sent again: the daemon may have done it."""
    peer.on("jobs.get", answer(hang_up=True), lambda params: job(id=params["id"]))
    async with AsyncClient.connect(peer.path) as client:
        with pytest.raises(DaemonUnreachableError):
            await client.call(request.get_job(11))
        found = await asyncio.gather(*(client.call(request.get_job(n)) for n in (12, 13)))
    assert [each.id for each in found] == [12, 13]
    assert [params["id"] for params in peer.made("jobs.get")] == [11, 12, 13]


async def test_async_connect_says_how_to_start_the_daemon(tmp_path):
    with pytest.raises(DaemonUnreachableError, match="there is no socket"):
        async with AsyncClient.connect(tmp_path / "none.sock"):
            pass


async def test_async_wait_asks_until_the_job_has_ended(peer, job):
    peer.on(
        "jobs.wait", job(state="running"), job(state="superseded", superseded_by=13), job(id=13)
    )
    async with AsyncClient.connect(peer.path) as client:
        assert (await client.wait(12)).id == 13
    assert [params["id"] for params in peer.made("jobs.wait")] == [12, 12, 13]


async def test_async_events_go_on_where_a_lagging_reader_stopped(peer, answer, notify):
    lagged = {"method": "events.lagged", "params": {"subscription": 1, "last_seq": 7}}
    peer.on(
        "events.subscribe",
        answer({"subscription": 1, "head_seq": 4}, after=(notify(7, "kit.packed"), lagged)),
        answer({"subscription": 1, "head_seq": 9}, after=(notify(8, "kit.pushed"),)),
    )
    seen = []
    async with AsyncClient.connect(peer.path) as client, aclosing(client.events()) as events:
        async for event in events:
            seen.append(event.seq)
            if len(seen) == 2:
                break
    assert seen == [7, 8]
    assert peer.made("events.subscribe") == [{}, {"from_seq": 7}]
