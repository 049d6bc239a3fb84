"""Secrets that would be noticed: one in each place where kitd takes them from, and found nowhere.

The registries here are the worst company there is: whatever they are sent they repeat in their
answers, in the words it came in and decoded.
"""

import base64
import json
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

USER = "robot"
PLACES = (
    "password",
    "token",
    "auth",
    "identity",
    "helper",
    "systemd",
    "loaded",
    "key",
    "proxy",
    "misplaced",
    "signing",
    "hook",
    "query",
    "path",
)


class Parrot(BaseHTTPRequestHandler):
    """Refuses everything and repeats what it was sent. The server's `mode` says how."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode("latin-1")
        authorization = self.headers.get("Authorization", "")
        heard = [self.path, authorization, body]
        if authorization.startswith("Basic "):
            heard.append(base64.b64decode(authorization.removeprefix("Basic ")).decode())
        self.server.heard += heard
        said = json.dumps({"errors": [{"code": "DENIED", "message": " | ".join(heard)}]}).encode()
        host = self.headers["Host"]
        challenges = {
            "basic": 'Basic realm="parrot"',
            "bearer": f'Bearer realm="http://{host}/token",service="parrot"',
        }
        unknown = not authorization and not self.path.startswith("/token")
        self.send_response(401 if unknown else self.server.status)
        if unknown:
            self.send_header("WWW-Authenticate", challenges[self.server.scheme])
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said)

    # The names are those that the base class looks for.
    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = answer  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture
def parrot():
    """Start a registry: `parrot("basic", 401)`; its address is `name`."""
    servers = []

    def start(scheme, status):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Parrot)
        server.daemon_threads = True
        server.scheme, server.status, server.heard = scheme, status, []
        server.name = f"127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return server

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def pair(secret):
    return base64.b64encode(f"{USER}:{secret}".encode()).decode()


def write(path, text, mode=0o600):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_no_secret_is_found_anywhere(kitd, parrot, project, tmp_path, eventually):
    """Packs, pushes that fail in every way, rejected configurations, and a crash."""
    canary = {word: f"CANARY-{word}-x7Yq" for word in PLACES}
    registry = {
        "password": parrot("basic", 500),
        "token": parrot("bearer", 500),
        "auth": parrot("basic", 401),
        "identity": parrot("bearer", 401),
        "helper": parrot("basic", 403),
        "systemd": parrot("bearer", 403),
        "loaded": parrot("basic", 404),
    }
    at = {word: server.name for word, server in registry.items()}
    secret = tmp_path / "secrets"
    granted = tmp_path / "granted"
    write(
        tmp_path / "docker" / "config.json",
        json.dumps(
            {
                "auths": {
                    at["auth"]: {"auth": pair(canary["auth"])},
                    at["identity"]: {"identitytoken": canary["identity"]},
                },
                "credHelpers": {at["helper"]: "canary"},
            }
        ),
    )
    answer = json.dumps({"Username": USER, "Secret": canary["helper"]})
    write(
        tmp_path / "bin" / "docker-credential-canary",
        f"#!/bin/sh\ncat >/dev/null; echo '{answer}'; echo {canary['helper']} >&2\n",
        0o755,
    )
    write(
        granted / "registry-auth",
        json.dumps({"auths": {at["systemd"]: {"auth": pair(canary["systemd"])}}}),
    )
    write(granted / "loaded", canary["loaded"] + "\n")
    credentials = {
        "password": {
            "username": USER,
            "password_file": write(secret / "password", canary["password"]),
        },
        "token": {"token_file": write(secret / "token", canary["token"])},
        "loaded": {"username": USER, "password_file": "$CREDENTIALS_DIRECTORY/loaded"},
    }
    registries = {at[word]: {"credentials": how} for word, how in credentials.items()}
    key = write(secret / "client.key", f"-----BEGIN PRIVATE KEY-----\n{canary['key']}\n")
    registries["localhost:9"] = {"plain_http": False, "client_cert": key, "client_key": key}
    heard_of = parrot("basic", 500)
    hook = f"http://{heard_of.name}/{canary['hook']}?key={canary['query']}"
    notifications = {
        "parrot": {
            "url_file": write(secret / "hook", f"{hook}\n"),
            "secret_file": write(secret / "signing", canary["signing"]),
        },
        "named": {"url": f"http://{heard_of.name}/{canary['path']}"},
    }
    daemon = kitd(
        {
            "registries": registries,
            "notifications": notifications,
            "log": {"format": "json", "level": "debug"},
        },
        PATH=f"{tmp_path}/bin:/usr/bin:/bin",
        DOCKER_CONFIG=str(tmp_path / "docker"),
        CREDENTIALS_DIRECTORY=str(granted),
    ).start()
    said = []

    def ask(*words):
        answer = daemon.kitctl(*words)
        said.extend((answer.out, answer.err))
        return answer

    hosts = [*at.values(), "localhost:9"]
    for host in hosts:
        assert ask("pack", project, "-t", f"{host}/team/demo:v1").code == 0
        ask("push", f"{host}/team/demo:v1", "--detach")
    # Side by side: those that fail are asked again and again for some seconds.
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda host: ask("inspect", "--remote", f"{host}/team/demo:v2"), hosts))
    eventually(
        "all pushes to have failed once",
        lambda: sum(job["error"] is not None for job in daemon.jobs("push")) == len(hosts),
    )
    for word, server in registry.items():
        heard = " ".join(server.heard)
        assert canary[word] in heard or pair(canary[word]) in heard, f"{word} was not used"

    for word in ("hook", "query", "path"):
        assert canary[word] in " ".join(heard_of.heard), f"{word} was not used"
    eventually(
        "status to tell of the endpoint", lambda: "endpoint parrot" in daemon.kitctl("status").out
    )

    good = (daemon.place / "kitd.yaml").read_text()
    for broken in (
        {"registries": {"localhost:9": {"proxy": f"http://me:{canary['proxy']}@localhost:1"}}},
        {"registries": {"localhost:9": {"credentials": canary["misplaced"]}}},
        {"notifications": {"parrot": {"url": hook}}},
    ):
        (daemon.place / "kitd.yaml").write_text(json.dumps(json.loads(good) | broken))
        answer = ask("reload")
        assert answer.code == 1
        assert answer.err
    for words in (
        ("status",),
        ("jobs", "list"),
        ("jobs", "list", "--json"),
        ("events",),
        ("config", "show"),
        ("doctor",),
        *(("jobs", "show", str(job["id"])) for job in daemon.jobs()),
        *(("why", str(job["id"])) for job in daemon.jobs()),
    ):
        ask(*words)
    daemon.process.send_signal(signal.SIGABRT)
    daemon.process.wait(timeout=20)

    found = {f"output {number}": text.encode() for number, text in enumerate(said)}
    found |= {str(path): path.read_bytes() for path in daemon.place.rglob("*") if path.is_file()}
    # The files of the test itself.
    del found[str(daemon.place / "kitd.yaml")]
    assert str(daemon.log) in found
    assert str(daemon.place / "state" / "ledger.sqlite3") in found
    assert not [path for path in found if "core" in path.rpartition("/")[2]]
    for where, content in found.items():
        for word, value in canary.items():
            for spelling in (value, pair(value), base64.b64encode(value.encode()).decode()):
                assert spelling.encode() not in content, f"the {word} stands in {where}"
