"""Many clients of one user at once, as on a build machine."""

import json
import socket
from contextlib import ExitStack

WAITING = 100


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
