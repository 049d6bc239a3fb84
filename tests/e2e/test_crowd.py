"""Many clients of one user at once, as on a build machine."""

import json
import os
import socket
from contextlib import ExitStack, closing

import pytest

from kitd.client import Client, request
from kitd.client.error import RpcError

WAITING = 100
FOLLOWING = 192
"""As many connections as a user may have."""


def test_a_hundred_who_wait_for_a_job_are_served_at_once(kitd, project):
    """Each keeps its connection open until the job ends; none of them is refused."""
    daemon = kitd().start()
    job = int(daemon.kitctl("pack", project, "-t", "demo:v1", "--detach").out)
    wait = {"jsonrpc": "2.0", "id": 1, "method": "jobs.wait", "params": {"id": job}}
    with ExitStack() as stack:
        clients = []
        for _ in range(WAITING):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(30)
            client.connect(str(daemon.socket))
            clients.append(stack.enter_context(client.makefile("rwb")))
        for client in clients:
            client.write(json.dumps(wait).encode() + b"\n")
            client.flush()
        answers = [json.loads(client.readline()) for client in clients]
    assert {answer["result"]["state"] for answer in answers} == {"succeeded"}


def test_whoever_follows_a_job_has_one_connection(kitd, project):
    """And one too many is told so at once, and not that kitd is away."""
    os.truncate(project / "model.bin", 16 << 30)
    daemon = kitd({"modelkit": {"compression": "gzip"}}).start()
    with ExitStack() as stack:
        clients = [stack.enter_context(Client.connect(daemon.socket)) for _ in range(FOLLOWING)]
        job = clients[0].call(request.pack(str(project), "demo:v1"))
        for client in clients:
            followed = stack.enter_context(closing(client.follow(job)))
            assert next(followed).id == job.id
        waiting = stack.enter_context(Client.connect(daemon.socket))
        with pytest.raises(RpcError) as refused:
            waiting.wait(job)
        assert refused.value.code == "queue_full"
