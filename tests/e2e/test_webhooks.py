"""Registries' events, from a sender's request to a job, with a real daemon and kitctl."""

import hashlib
import hmac
import http.client
import json
import socket
import time

import pytest

SECRET = "correct-horse-battery"
REGISTRY = "127.0.0.1:9"


def pushed(tag, name="team/model"):
    """Return what Harbor says of a push."""
    digest = f"sha256:{hashlib.sha256(tag.encode()).hexdigest()}"
    resource = {"digest": digest, "tag": tag, "resource_url": f"h/{name}:{tag}"}
    repository = {
        "name": "model",
        "namespace": "team",
        "repo_full_name": name,
        "repo_type": "private",
        "date_created": 1_700_000_000,
    }
    data = {"resources": [resource], "repository": repository}
    event = {"type": "PUSH_ARTIFACT", "occur_at": 1_700_000_000, "operator": "ada"}
    return json.dumps({**event, "event_data": data}).encode()


class Hooks:
    """A daemon that is told of events, and the file with the secret."""

    def __init__(self, daemon, secret_file, sources):
        self.daemon = daemon
        self.secret_file = secret_file
        self.sources = sources

    @property
    def address(self):
        lines = map(json.loads, self.daemon.log.read_text().splitlines())
        return [line["webhooks"] for line in lines if line["event"] == "daemon.ready"][-1]

    def send(self, body, path="/hooks/harbor-eu", **headers):
        """Return status and body of the answer."""
        connection = http.client.HTTPConnection(self.address, timeout=20)
        headers = headers or {"Authorization": SECRET}
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        status, said = answer.status, answer.read()
        connection.close()
        return status, said

    def list(self, *arguments):
        return self.daemon.json("webhooks", "list", *arguments)["deliveries"]

    def reload(self, **webhooks):
        path = self.daemon.place / "kitd.yaml"
        config = json.loads(path.read_text())
        config["webhooks"] |= webhooks
        path.write_text(json.dumps(config))
        return self.daemon.kitctl("reload")


@pytest.fixture
def hooks(kitd, tmp_path):
    """A daemon that mirrors a repository, and is told of pushes into it."""
    secret_file = tmp_path / "secret"
    secret_file.write_text(f"{SECRET}\n")
    secret_file.chmod(0o600)
    source = {"format": "harbor", "registry": REGISTRY, "secret_file": str(secret_file)}
    mirror = {"source": f"{REGISTRY}/team/model", "targets": [f"{REGISTRY}/copy/model"]}
    sources = {"harbor-eu": source}
    config = {
        "webhooks": {"listen": "127.0.0.1:0", "sources": sources},
        "mirrors": {"prod": mirror},
    }
    return Hooks(kitd(config).start(), secret_file, sources)


def test_an_event_becomes_a_job_and_comes_once(hooks):
    assert hooks.send(pushed("v1")) == (202, b"accepted\n")
    assert hooks.send(pushed("v1")) == (200, b"duplicate\n")
    assert hooks.send(pushed("v1", "team/other")) == (202, b"accepted\n")
    other, model = hooks.list()
    assert (model["state"], model["changes"], len(model["jobs"])) == ("accepted", 1, 1)
    assert (other["changes"], other["jobs"]) == (1, [])
    assert other["reason"] == f"no mirror reads {REGISTRY}/team/other"
    assert model["reason"] is None
    jobs = hooks.daemon.jobs("mirror")
    assert model["jobs"] == [jobs[-1]["id"]]
    # Without a name it may be the same thing once more: at most one waits for the one that runs.
    assert len(jobs) <= 2
    events = hooks.daemon.kitctl("--json", "events").out
    assert '"webhook.' not in events, "no event for each delivery"


def test_a_source_whose_registry_no_mirror_reads_is_told_of(hooks):
    unread = hooks.sources["harbor-eu"] | {"registry": "unread.example.com"}
    hooks.reload(sources=hooks.sources | {"other": unread})
    said = "no mirror reads unread.example.com"
    assert said in hooks.daemon.log.read_text()
    answer = hooks.daemon.kitctl("webhooks", "list").out.splitlines()
    assert f"other: {said}: nothing follows" in answer
    assert not any(line.startswith("harbor-eu: ") for line in answer)
    listed = hooks.daemon.json("webhooks", "list")["sources"]
    assert {each["name"]: each["mirrors"] for each in listed} == {
        "harbor-eu": ["prod"],
        "other": [],
    }


def test_tables_and_replays(hooks):
    hooks.send(pushed("v1"))
    hooks.send(b"{")
    hooks.send(json.dumps({"type": "PULL_ARTIFACT", "event_data": {}}).encode())
    hooks.send(b"", Authorization="wrong")
    lines = hooks.daemon.kitctl("webhooks", "list").out.splitlines()
    assert lines[0].split()[:4] == ["DELIVERY", "SOURCE", "RECEIVED", "STATE"]
    assert [line.split()[0] for line in lines[1:4]] == ["3", "2", "1"]
    assert lines[4] == "harbor-eu: refused 1 time since kitd started"
    assert [each["id"] for each in hooks.list("--state", "malformed")] == [2]
    assert [each["id"] for each in hooks.list("--limit", "1")] == [3]
    assert hooks.list("--source", "other") == []

    answer = hooks.daemon.kitctl("webhooks", "replay", "1")
    assert (answer.code, answer.out.startswith("1: accepted: job ")) == (0, True)
    answer = hooks.daemon.kitctl("--json", "webhooks", "replay", "1", "2", "3", "4")
    assert answer.code == 1
    found = {each["id"]: each for each in answer.json["replays"]}
    assert (found[1]["delivery"]["replays"], found[2]["delivery"]["state"]) == (2, "malformed")
    assert [found[number]["error"]["code"] for number in (3, 4)] == ["not_replayable", "not_found"]
    since = hooks.daemon.json("webhooks", "list")["deliveries"][-1]["received"]
    for start in ("1h", since):
        replayed = hooks.daemon.kitctl("--json", "webhooks", "replay", "--since", start).json
        assert [each["id"] for each in replayed["replays"]] == [1, 2]
    nothing = hooks.daemon.kitctl("webhooks", "replay", "--since", "1h", "--source", "other")
    assert (nothing.code, nothing.out) == (
        0,
        "No such deliveries. All there are: kitctl webhooks list\n",
    )
    told = [json.loads(line) for line in hooks.daemon.kitctl("--json", "events").out.splitlines()]
    kinds = [event["type"] for event in told if event["type"].startswith("webhook.")]
    assert kinds[:2] == ["webhook.malformed", "webhook.refused"]
    assert kinds[2:] == ["webhook.replayed"] * 7

    for words in ((), ("1", "--since", "1h"), ("1", "--source", "a"), ("--since", "x"), ("one",)):
        assert hooks.daemon.kitctl("webhooks", "replay", *words).code == 2


def test_many_are_listed_and_replayed_page_by_page(hooks):
    for number in range(230):
        assert hooks.send(pushed(f"v{number}", "team/other"))[0] == 202
    assert len(hooks.list()) == 50
    assert len(hooks.list("--limit", "220")) == 220
    replayed = hooks.daemon.json("webhooks", "replay", "--since", "1h")["replays"]
    assert [each["id"] for each in replayed] == list(range(1, 231))


def test_sources_follow_a_reload_and_the_address_does_not(hooks):
    sources = {"eu": hooks.sources["harbor-eu"]}
    assert hooks.reload(sources=sources).code == 0
    assert hooks.send(pushed("v1"))[0] == 404
    assert hooks.send(pushed("v1"), "/hooks/eu")[0] == 202
    with socket.create_server(("127.0.0.1", 0)) as other:
        place = f"127.0.0.1:{other.getsockname()[1]}"
    answer = hooks.reload(listen=place)
    assert answer.code == 1
    assert "only a restart can change webhooks.listen" in answer.err + answer.out


def test_a_secret_that_cannot_be_read_is_told_with_its_source(hooks, eventually):
    hooks.secret_file.unlink()
    assert hooks.send(pushed("v1"))[0] == 503
    status = hooks.daemon.json("status")
    assert status["daemon"]["state"] == "degraded"
    assert any("webhook source harbor-eu" in reason for reason in status["degraded"])
    checks = hooks.daemon.kitctl("--json", "doctor").json["checks"]
    wrong = {check["name"] for check in checks if not check["ok"]}
    assert {"webhooks", "credentials"} <= wrong
    hooks.secret_file.write_text(SECRET)
    assert hooks.send(pushed("v1"))[0] == 202


def test_what_was_answered_is_there_after_a_kill(hooks):
    assert hooks.send(pushed("v1"))[0] == 202
    hooks.daemon.kill()
    hooks.daemon.start()
    assert hooks.send(pushed("v1"))[0] == 200
    assert len(hooks.list()) == 1
    assert hooks.list()[0]["jobs"] == [hooks.daemon.jobs("mirror")[-1]["id"]]


def test_the_secret_is_said_nowhere(hooks):
    """Not in the path of a request either, whose answer is an error."""
    body = pushed("v1")
    signature = hmac.digest(SECRET.encode(), body, "sha256").hex()
    hooks.send(body, Authorization=SECRET, Cookie=SECRET, Signature=signature)
    hooks.send(body, f"/hooks/harbor-eu/{SECRET}", Authorization="wrong")
    hooks.send(body, f"/hooks/none/{SECRET}")
    hooks.send(b"{", Authorization=SECRET)
    said = hooks.daemon.kitctl("--json", "doctor").out + hooks.daemon.kitctl("config", "show").out
    assert hooks.daemon.stop() == 0
    state = hooks.daemon.place / "state"
    files = [path for path in state.rglob("*") if path.is_file()]
    everything = b"".join(path.read_bytes() for path in files) + hooks.daemon.log.read_bytes()
    assert b"harbor-eu" in everything
    for secret in (SECRET, signature):
        assert secret.encode() not in everything
        assert secret not in said


def test_a_stop_waits_for_an_answer_and_not_for_a_body(hooks):
    host, _, port = hooks.address.partition(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(b"POST /hooks/harbor-eu HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx")
        began_s = time.monotonic()
        assert hooks.daemon.stop() == 0
    assert time.monotonic() - began_s < 10


def test_an_address_that_is_taken_is_a_reason_not_to_start(kitd, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        daemon = kitd({"webhooks": {"listen": place}}).start(ready=False)
        assert daemon.process.wait(timeout=30) != 0
    log = daemon.log.read_text()
    assert f"cannot listen on {place}" in log
    assert "Traceback" not in log
