"""Programs that pack, push, pull and unpack by a daemon, with a registry that listens."""

import asyncio
import os
import pty
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from kitd.client import AsyncClient, Client, request
from kitd.client.absence import RECONNECTING, JobLostError
from kitd.client.error import ArgumentError, DeadlineExceededError, RpcError
from kitd.client.outcome import JobFailedError
from kitd.client.placement import ConflictError
from kitd.client.record import Progress


@pytest.fixture
def connected(kitd):
    daemon = kitd().start()
    with Client.connect(daemon.socket) as client:
        yield client


def test_a_kit_goes_there_and_back(connected, kitd, project, docker_registry, tmp_path):
    reference = f"{docker_registry.host}/team/demo:v1"
    kit = connected.pack(project, f"{reference},stable", push=True)
    assert kit.reference == reference
    assert set(kit.tags) == {"v1", "stable"}
    assert kit.size == sum(layer.size for layer in kit.layers) > 0
    assert kit.pushed is not None
    assert (kit.pushed.digest, kit.pushed.reference) == (kit.digest, reference)
    assert kit.pushed.sent > 0
    assert connected.inspect(reference)["digest"] == kit.digest
    (known,) = connected.kits()
    assert (known.digest, set(known.tags)) == (kit.digest, {"v1", "stable"})

    with Client.connect(kitd().start().socket) as other:
        unpacked = other.unpack(reference, tmp_path / "there", ["model"])
        assert unpacked.digest == kit.digest
        assert os.listdir(tmp_path / "there") == ["model.bin"]
        assert unpacked.bytes == (project / "model.bin").stat().st_size
        with pytest.raises(ConflictError):
            other.unpack(reference, tmp_path / "there", ["model"])
        again = other.unpack(reference, tmp_path / "there", ["model"], existing="overwrite")
        assert again.files == 1
        moved = other.pull(reference)
        assert moved.digest == kit.digest
        assert moved.received > 0
        assert [job.kind for job in other.jobs(kind="pull")] == ["pull", "pull"]


def test_an_unchanged_directory_is_told_as_that(connected, project):
    first = connected.pack(project, "demo:v1")
    assert not any(layer.reused for layer in first.layers)
    second = connected.pack(project, "demo:v2")
    assert second.digest == first.digest
    assert all(layer.reused for layer in second.layers)


def test_a_model_pack_of_the_same_layers(connected, project):
    kit = connected.pack(project, "demo:v1")
    pack = connected.pack(project, "demo:model-pack", model_pack=True, source_date_epoch=0)
    assert {layer.digest for layer in pack.layers} == {layer.digest for layer in kit.layers}
    assert pack.digest != kit.digest
    assert all(layer.reused for layer in pack.layers)


def test_whoever_watches_is_told_how_far_it_is(connected, project):
    (project / "model.bin").write_bytes(os.urandom(64 << 20))
    seen = []
    connected.pack(project, "demo:v1", progress=seen.append)
    connected.unpack("demo:v1", project.parent / "out", progress=seen.append)
    assert all(isinstance(each, Progress) for each in seen)
    assert seen[-1].bytes == seen[-1].total > 64 << 20
    # Nobody sees what is drawn here: there is neither a terminal nor a notebook.
    connected.unpack("demo:v1", project.parent / "again", progress=True)


def test_what_fails_says_why(connected, project, free_address):
    with pytest.raises(RpcError) as unknown:
        connected.unpack("nowhere:v1", project)
    assert unknown.value.code == "not_found"
    (project / "Kitfile").write_text("manifestVersion: 1.0.0\nmodel: {path: missing.bin}\n")
    with pytest.raises(JobFailedError) as failed:
        connected.pack(project, "demo:v1")
    assert failed.value.job.state == "failed"
    assert failed.value.code == failed.value.job.error.code
    assert "missing.bin" in str(failed.value)


@pytest.mark.parametrize(
    ("directory", "existing"), [("out", "replace"), ("o\0ut", "keep"), ("\ud800", "keep")]
)
def test_a_value_that_is_none_is_refused_before_anything_is_done(connected, directory, existing):
    with pytest.raises(ArgumentError):
        connected.unpack("demo:v1", directory, existing=existing)


def test_an_unpack_says_what_it_left_out(connected, project, tmp_path):
    (project / "Kitfile").write_text(
        "manifestVersion: 1.0.0\npackage: {name: demo}\nmodel: {path: model.bin}\n"
        "datasets: [{path: far/<b>.csv, remotePath: 's3://data/train.csv', remoteHash: abc}]\n"
    )
    connected.pack(project, "demo:v1")
    unpacked = connected.unpack("demo:v1", tmp_path / "out")
    assert unpacked.left_out == ("far/<b>.csv",)
    assert unpacked.notes == ()
    assert "far/&lt;b&gt;.csv" in unpacked._repr_html_()
    assert connected.unpack("demo:v1", tmp_path / "model", ["model"]).left_out == ()


async def test_the_same_without_waiting(kitd, project, docker_registry, tmp_path):
    daemon = await asyncio.to_thread(kitd().start)
    reference = f"{docker_registry.host}/team/demo:v1"
    async with AsyncClient.connect(daemon.socket) as client:
        kit, known = await asyncio.gather(
            client.pack(project, reference, push=True), client.kits("team/nothing")
        )
        assert known == ()
        assert kit.pushed.digest == kit.digest
        moved = await client.push(reference, f"{docker_registry.host}/team/other:v1")
        assert moved.mounted + moved.skipped > 0
        unpacked = await client.unpack(reference, tmp_path / "out", ["model"])
        assert unpacked.files == 1
        with pytest.raises(JobFailedError):
            await client.pull(f"{docker_registry.host}/team/nothing:v1")


@pytest.fixture
def restart(kitd, project, eventually):
    """A daemon, and what starts it again once it packs something that it would never end."""
    # Bytes of a file without content, of which hardly anything is written.
    os.truncate(project / "model.bin", 16 << 30)
    daemon = kitd({"modelkit": {"compression": "gzip"}}).start()

    def packs():
        (job,) = daemon.jobs("pack") or (None,)
        return job and job["progress"] and job["progress"]["bytes"]

    def restart():
        eventually("the pack to write", packs)
        assert daemon.stop() == 0
        os.truncate(project / "model.bin", 1 << 20)
        daemon.start()

    return daemon, restart


def test_a_job_that_is_waited_for_outlives_its_daemon(restart, project):
    """It is found again by its number, and told of meanwhile."""
    daemon, start_again = restart
    seen = []
    with Client.connect(daemon.socket) as client, ThreadPoolExecutor(1) as threads:
        packing = threads.submit(client.pack, project, "demo:v1", progress=seen.append)
        start_again()
        kit = packing.result(30)
        assert [each.digest for each in client.kits()] == [kit.digest]
    assert RECONNECTING in seen
    assert len(daemon.jobs("pack")) == 1


async def test_the_same_on_an_event_loop(restart, project):
    daemon, start_again = restart
    async with AsyncClient.connect(daemon.socket) as client:
        packing = asyncio.create_task(client.pack(project, "demo:v1"))
        await asyncio.to_thread(start_again)
        kit = await asyncio.wait_for(packing, 30)
        assert [each.digest for each in await client.kits()] == [kit.digest]


def test_whoever_waits_in_a_terminal_is_told_that_the_daemon_is_away(restart, project):
    daemon, start_again = restart
    with ThreadPoolExecutor(1) as threads:
        packing = threads.submit(daemon.kitctl, "pack", project, "-t", "demo:v1")
        start_again()
        done = packing.result(30)
    assert done.code == 0, done.err
    assert done.err.splitlines()[:2] == [
        "job 1: kitd is away, waiting for it",
        "job 1: kitd is back",
    ]


def test_a_daemon_that_stays_away_leaves_the_number_of_the_job(kitd, deaf_reference):
    daemon = kitd().start()
    with Client.connect(daemon.socket, patience_s=0.2) as client:
        job = client.call(request.pull(deaf_reference))
        followed = client.follow(job.id)
        next(followed)
        daemon.kill()
        with pytest.raises(JobLostError, match="away") as lost:
            list(followed)
    assert lost.value.job == job.id
    assert f"kitctl jobs wait {job.id}" in lost.value.hint


async def test_the_same_of_a_daemon_that_stays_away_on_an_event_loop(kitd, deaf_reference):
    daemon = await asyncio.to_thread(kitd().start)
    async with AsyncClient.connect(daemon.socket, patience_s=0.2) as client:
        job = await client.call(request.pull(deaf_reference))
        waiting = asyncio.create_task(client.wait(job.id))
        await client.kits()
        daemon.kill()
        with pytest.raises(JobLostError) as lost:
            await waiting
    assert lost.value.job == job.id


def test_an_interrupted_program_is_told_the_number_of_its_job(connected, project):
    def interrupt(_progress):
        raise KeyboardInterrupt

    os.truncate(project / "model.bin", 16 << 30)
    with pytest.raises(KeyboardInterrupt) as interrupted:
        connected.pack(project, "demo:v1", compression="gzip", progress=interrupt)
    assert interrupted.value.__notes__ == ["job 1 goes on: wait for it with client.wait(1)"]


@pytest.fixture
def deaf_reference():
    """A kit of a registry that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}/team/demo:v1"


def test_a_job_can_be_waited_for_as_often_as_anybody_likes(connected, deaf_reference):
    """Whichever way it is left, nothing of a subscription stays behind."""
    job = connected.call(request.pull(deaf_reference))
    for _ in range(10):
        with pytest.raises(DeadlineExceededError):
            connected.wait(job.id, timeout_s=0.01)
    for _ in range(10):
        for _item in connected.follow(job.id):
            break
    followed = [connected.follow(job.id) for _ in range(10)]
    assert [next(each).id for each in followed] == [job.id] * 10
    for each in followed:
        each.close()
    connected.call(request.cancel_job(job.id))


def test_a_notebook_shows_results_and_believes_none_of_their_texts(connected, project):
    (project / "<b>.txt").write_text("x")
    kit = connected.pack(project, "demo:v1")
    shown = kit._replace(reference="<script>alert(1)</script>")._repr_html_()
    assert "<script>" not in shown
    assert kit.digest[:19] in shown
    unpacked = connected.unpack("demo:v1", project.parent / "<i>out")
    assert "&lt;i&gt;out" in unpacked._repr_html_()


def test_progress_is_drawn_in_a_terminal_and_removed(kitd, project, tmp_path):
    (project / "model.bin").write_bytes(os.urandom(64 << 20))
    daemon = kitd().start()
    daemon.json("pack", project, "-t", "demo:v1")
    program = (
        "from kitd.client import Client\n"
        f"with Client.connect({str(daemon.socket)!r}) as kitd:\n"
        f"    kitd.unpack('demo:v1', {str(tmp_path / 'out')!r}, progress=True)\n"
    )
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], stderr=theirs, stdout=subprocess.PIPE, check=True
        )
        drawn = os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.stdout == b""
    assert "unpacking" in drawn
    assert "67." in drawn
    assert drawn.endswith("\r\x1b[K")
