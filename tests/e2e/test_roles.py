"""Who may do what: real users, as processes with user ids of their own, against a real daemon.

The daemon runs as a user of its own that may read everything, as it does where it is installed for
a whole machine: what a caller may not do it could do for him.
"""

import asyncio
import concurrent.futures.thread  # noqa: F401 - users cannot read where Python may be
import json
import os
import socket
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest

from kitd.client import AsyncClient, Client, request
from kitd.client.connection import Connection
from kitd.client.error import RpcError
from kitd.errors import KitdError
from kitd.rpc.methods import METHODS

DAEMON, NONE, READ, SUBMIT, OWNER, ADMIN, VICTIM = range(2100, 2107)
ROOT = 0
ROLES = {
    NONE: "none", READ: "read", SUBMIT: "submit", OWNER: "the owner", ADMIN: "admin",
    DAEMON: "the daemon's user", ROOT: "root",
}  # fmt: skip
EVERYBODY = {READ, SUBMIT, OWNER, ADMIN, DAEMON, ROOT}
SUBMITTERS = EVERYBODY - {READ}
OWNERS = SUBMITTERS - {SUBMIT}
ADMINS = {ADMIN, DAEMON, ROOT}

ALLOWED = "127.0.0.1:9/team/model"
ELSEWHERE = "127.0.0.1:9/prod/model"
LOOKS = {"kits.diff", "kits.inspect", "kits.info", "kits.list_remote", "kits.remove"}
KITFILE = "manifestVersion: 1.0.0\nmodel: {path: w}\n"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becoming other users needs root")


def as_user(uid, work):
    """Return what `work` does as a user, in a process of his own, or raise what it raised."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        said = ["defect", "it ended without a word"]
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            said = ["ok", work()]
        except RpcError as error:
            said = ["error", error.code, str(error), error.hint]
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test has to know
            said = ["defect", repr(error)]
        finally:
            os.write(write, json.dumps(said).encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        kind, *said = json.loads(pipe.read())
    os.waitpid(child, 0)
    if kind == "error":
        code, message, hint = said
        raise RpcError(code, message, hint=hint, retryable=False)
    assert kind == "ok", said
    return said[0]


class Daemon:
    """A running daemon and its users."""

    def __init__(self, kitd):
        self.kitd = kitd
        self.place = kitd.place
        self.numbers = iter(range(10_000))

    def call(self, uid, method, params=(), directory=None, **more):
        """Call a method as a user; the descriptor of a directory goes along if he can open it."""

        def work():
            with Connection(str(self.kitd.socket)) as connection:
                return connection.call(
                    method, {**dict(params), **more}, timeout_s=20, directory=directory
                )

        return as_user(uid, work)

    def tree(self, owner, mode=0o700, files=None):
        """Make a project's directory."""
        root = self.place / f"tree-{next(self.numbers)}"
        root.mkdir()
        for name, content in {"Kitfile": KITFILE, "w": "weights", **(files or {})}.items():
            (root / name).write_text(content)
            os.chown(root / name, owner, owner)
            (root / name).chmod(0o600 if mode == 0o700 else 0o644)
        os.chown(root, owner, owner)
        root.chmod(mode)
        return str(root)

    def pack(self, uid, root, reference="team/model:v1", **more):
        return self.call(uid, "kits.pack", path=root, reference=reference, directory=root, **more)

    def ended(self, job):
        """Wait for a job's end and return it."""
        return self.call(ROOT, "jobs.wait", id=job["job"]["id"], timeout_ms=20_000)


@pytest.fixture
def daemon(public_place, kitd):
    """A daemon that is not root and can read whatever root can."""
    os.chown(public_place, DAEMON, DAEMON)
    repositories = ["127.0.0.1:9/team/*"]
    mirrors = {
        "allowed": {"source": ALLOWED, "targets": [f"{ALLOWED}-copy"]},
        "elsewhere": {"source": ALLOWED, "targets": [f"{ALLOWED}-2", ELSEWHERE]},
        "wide": {
            "source": "127.0.0.1:9/team",
            "repositories": ["bert-*"],
            "targets": ["127.0.0.1:9/team/copies"],
        },
    }
    rules = [
        {"uid": READ, "role": "read"},
        {"uid": SUBMIT, "role": "submit", "repositories": repositories},
        {"uid": OWNER, "role": "submit", "repositories": repositories},
        {"uid": ADMIN, "role": "admin"},
    ]
    running = kitd(
        {
            "rpc": {"mode": "0666", "access": rules},
            "workers": {"push": 1, "pull": 1, "mirror": 1},
            "mirrors": mirrors,
            "hub": {"endpoint": "http://127.0.0.1:9"},
        }
    )
    running.place = public_place
    running.start_command = (
        "setpriv", f"--reuid={DAEMON}", f"--regid={DAEMON}", "--clear-groups",
        "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
    )  # fmt: skip
    running.start()
    yield Daemon(running)
    running.stop()


def reload_with(daemon, access):
    """Give the daemon other rules."""
    path = daemon.place / "kitd.yaml"
    config = json.loads(path.read_text())
    config["rpc"]["access"] = access
    path.write_text(json.dumps(config))
    assert daemon.call(ROOT, "system.reload")["applied"]


def matrix(daemon):
    """Return each method with who may call it and what makes its parameters, anew for each call."""
    tree = daemon.tree(OWNER)
    kit = daemon.ended(daemon.pack(OWNER, tree, "team/model:v1"))["result"]
    layer = kit["layers"][0]["digest"]
    numbers = iter(range(10_000))

    def nothing():
        return {}

    def project():
        """A project of the owner's, there again whatever was done to it before."""
        name = {"name": "mine"}
        new = {**name, "path": tree, "reference": "mine", "push": False}
        daemon.call(OWNER, "projects.add", new, directory=tree)
        return name

    def job():
        return {"id": daemon.pack(OWNER, tree, f"team/model:{next(numbers)}")["job"]["id"]}

    def new_project():
        return {"name": f"p{next(numbers)}", "path": tree, "reference": ALLOWED}

    def kit_here():
        return {"reference": "team/model:v1"}

    return {
        "system.hello": (EVERYBODY, nothing),
        "system.ping": (EVERYBODY, nothing),
        "system.health": (EVERYBODY, nothing),
        "system.status": (EVERYBODY, nothing),
        "system.doctor": (EVERYBODY, nothing),
        "system.reload": (ADMINS, nothing),
        "system.why": (EVERYBODY, lambda: {"subject": kit["digest"]}),
        "system.discover": (EVERYBODY, nothing),
        "jobs.list": (EVERYBODY, nothing),
        "jobs.get": (EVERYBODY, job),
        "jobs.wait": (EVERYBODY, job),
        "jobs.log": (EVERYBODY, job),
        "jobs.cancel": (OWNERS, job),
        "jobs.retry": (OWNERS, job),
        "events.read": (EVERYBODY, nothing),
        "events.subscribe": (EVERYBODY, nothing),
        "events.unsubscribe": (EVERYBODY, lambda: {"subscription": 1}),
        "projects.list": (EVERYBODY, nothing),
        "projects.get": (EVERYBODY, project),
        "projects.add": (OWNERS, new_project),
        "projects.remove": (OWNERS, project),
        "projects.rescan": (OWNERS, project),
        "projects.hold": (OWNERS, project),
        "projects.release": (OWNERS, project),
        "kits.pack": (OWNERS, lambda: {"path": tree, "reference": "team/other"}),
        "kits.push": (SUBMITTERS, lambda: {**kit_here(), "target": ALLOWED}),
        "kits.pull": (SUBMITTERS, lambda: {"reference": ALLOWED}),
        "kits.generate": (EVERYBODY, nothing),
        "kits.import": (SUBMITTERS, lambda: {"source": "team/model"}),
        "kits.list": (EVERYBODY, nothing),
        "kits.list_remote": (ADMINS | {SUBMIT, OWNER}, lambda: {"reference": ALLOWED}),
        "kits.diff": (EVERYBODY, lambda: {"a": "team/model:v1", "b": "team/model:v1"}),
        "kits.inspect": (EVERYBODY, kit_here),
        "kits.info": (EVERYBODY, kit_here),
        "kits.tag": (SUBMITTERS, lambda: {**kit_here(), "target": "team/model:v2"}),
        "kits.remove": (SUBMITTERS, lambda: {"reference": "team/model:v2"}),
        "kits.remove_all": (SUBMITTERS, nothing),
        "kits.plan": (EVERYBODY, kit_here),
        "kits.open": (EVERYBODY, lambda: {"digest": kit["digest"], "layers": [layer]}),
        "mirrors.list": (EVERYBODY, nothing),
        "mirrors.edges": (EVERYBODY, lambda: {"name": "allowed"}),
        "mirrors.run": (SUBMITTERS, lambda: {"name": "allowed"}),
        "mirrors.copy": (SUBMITTERS, lambda: {"source": ALLOWED, "target": f"{ALLOWED}-2"}),
        "cache.stats": (EVERYBODY, nothing),
        "cache.plan": (EVERYBODY, nothing),
        "cache.gc": (SUBMITTERS, nothing),
        "cache.verify": (SUBMITTERS, nothing),
        "cache.pin": (SUBMITTERS, kit_here),
        "cache.unpin": (SUBMITTERS, kit_here),
        "registries.logins": (EVERYBODY, lambda: {"registry": "registry.example.com"}),
        "config.show": (EVERYBODY, nothing),
        "webhooks.list": (EVERYBODY, nothing),
        "webhooks.replay": (ADMINS, lambda: {"ids": [1]}),
    }


ENDED_ALREADY = {"conflict", "not_found", "registry_unreachable"}
"""Errors of those who were let in: what they were let in for is over, or was never there."""


@pytest.mark.timeout(300)
def test_every_method_is_for_those_whom_the_matrix_names(daemon):
    table = matrix(daemon)
    assert sorted(table) == sorted(method.name for method in METHODS), "a method is missing here"
    wrong = []
    # Collections come last: what they take would be missed by the others.
    for name in sorted(table, key=lambda name: (name.startswith("cache."), name)):
        allowed, params = table[name]
        for uid, role in ROLES.items():
            given = params()
            outcome = "ok"
            try:
                daemon.call(uid, name, given, directory=given.get("path"))
            except RpcError as error:
                outcome = error.code
            expected = {"ok", *ENDED_ALREADY} if uid in allowed else {"denied"}
            if outcome not in expected:
                wrong.append(f"{name} by {role}: {outcome}")
    assert wrong == []


def test_a_directory_that_a_caller_cannot_read_is_not_packed_for_him(daemon):
    secret = daemon.tree(VICTIM)
    mine = daemon.tree(SUBMIT)
    absent = f"{daemon.place}/absent"
    told = set()

    def place_of(path):
        return os.open(path, os.O_PATH | os.O_DIRECTORY)

    for path, directory in ((secret, None), (secret, secret), (secret, mine), (absent, mine)):
        with pytest.raises(RpcError, match=path) as caught:
            daemon.call(SUBMIT, "kits.pack", path=path, reference="x", directory=directory)
        told.add((caught.value.code, str(caught.value).replace(path, "")))
    assert len(told) == 1, "what is there can be told from what is not"
    assert told.pop()[0] == "denied"

    def with_a_place():
        """He can say where it is, which is not to read it."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(daemon.kitd.socket))
            params = {"path": secret, "reference": "x"}
            call = {"jsonrpc": "2.0", "id": 1, "method": "kits.pack", "params": params}
            line = json.dumps(call).encode() + b"\n"
            socket.send_fds(sock, [line], [place_of(secret)])
            return sock.makefile().readline()

    answer = json.loads(as_user(SUBMIT, with_a_place))
    assert answer["error"]["data"]["code"] == "denied"
    assert "opened to be read" in answer["error"]["message"]


def test_a_directory_of_somebody_else_is_packed_for_whoever_can_read_it(daemon):
    root = daemon.tree(VICTIM, mode=0o755)
    with pytest.raises(RpcError) as caught:
        daemon.call(SUBMIT, "kits.pack", path=root, reference="x")
    assert caught.value.code == "denied", "it was neither shown nor his"
    job = daemon.ended(daemon.pack(SUBMIT, root, "x:1"))
    assert job["state"] == "succeeded"
    Path(root, "w").chmod(0o600)
    job = daemon.ended(daemon.pack(SUBMIT, root, "x:2"))
    assert (job["state"], job["error"]["code"]) == ("failed", "unreadable_by_caller")
    assert f"user {SUBMIT}" in job["error"]["message"]
    assert "read w" in job["error"]["message"]
    assert daemon.ended(daemon.pack(ADMIN, root, "x:3"))["state"] == "succeeded"


def test_an_absolute_kitfile_is_for_admins(daemon):
    mine, other = daemon.tree(SUBMIT), daemon.tree(VICTIM)
    with pytest.raises(RpcError, match="outside of the project"):
        daemon.pack(SUBMIT, mine, kitfile=f"{other}/Kitfile")
    with pytest.raises(RpcError, match="not a path within the project"):
        daemon.pack(SUBMIT, mine, kitfile=f"../{Path(other).name}/Kitfile")
    job = daemon.ended(daemon.pack(ADMIN, mine, kitfile=f"{other}/Kitfile"))
    assert job["state"] == "succeeded"


def test_nobody_takes_the_place_of_another_users_wish(daemon):
    """Two users ask for the same names of the same directory: two jobs, each with its rights."""
    root = daemon.tree(VICTIM, mode=0o755)
    first, second = (daemon.pack(uid, root, "x:1")["job"]["id"] for uid in (SUBMIT, OWNER))
    assert first != second
    for job in (first, second):
        assert daemon.ended({"job": {"id": job}})["state"] == "succeeded"


def test_a_project_stays_his_and_is_read_with_his_rights_after_a_restart(daemon, eventually):
    root = daemon.tree(VICTIM, mode=0o755)
    new = {"name": "theirs", "path": root, "reference": "theirs", "push": False}
    daemon.call(SUBMIT, "projects.add", new, directory=root)

    def project():
        return daemon.call(SUBMIT, "projects.get", name="theirs")

    eventually("it to be packed", lambda: project()["last_digest"])
    daemon.kitd.stop()
    secret = Path(root, "w")
    secret.write_text("now a secret")
    secret.chmod(0o600)
    daemon.kitd.start()
    eventually("its state to be told", lambda: "no right to read w" in str(project()["reason"]))
    for uid in (OWNER, READ):
        with pytest.raises(RpcError) as caught:
            daemon.call(uid, "projects.hold", name="theirs")
        assert caught.value.code == "denied"
    with pytest.raises(RpcError, match=f"user {SUBMIT}"):
        daemon.call(OWNER, "projects.add", {**new, "path": daemon.tree(OWNER)})
    assert daemon.call(SUBMIT, "projects.hold", name="theirs")["state"] == "held"


def test_kitd_goes_only_where_a_rule_says_with_its_own_credentials(daemon):
    root = daemon.tree(SUBMIT)
    daemon.ended(daemon.pack(SUBMIT, root, "team/model:v1"))
    project = {"name": "p", "path": root, "reference": ELSEWHERE}
    calls = {
        "kits.push": {"reference": "team/model:v1", "target": ELSEWHERE},
        "kits.pull": {"reference": ELSEWHERE},
        "kits.inspect": {"reference": ELSEWHERE, "remote": True},
        "kits.info": {"reference": ELSEWHERE, "remote": True},
        "kits.remove": {"reference": ELSEWHERE, "remote": True},
        "kits.list_remote": {"reference": ELSEWHERE},
        "kits.diff": {"a": "team/model:v1", "b": ELSEWHERE},
        "kits.pack": {"path": root, "reference": ELSEWHERE, "push": True},
        "projects.add": project,
    }
    for method, params in calls.items():
        with pytest.raises(RpcError, match=ELSEWHERE.replace(".", r"\.")) as caught:
            daemon.call(SUBMIT, method, params, directory=params.get("path"))
        assert caught.value.code == "denied", method
        assert "rpc.access" in caught.value.hint, method
        allowed = {**params, **{key: ALLOWED for key in params if params[key] == ELSEWHERE}}
        with suppress(RpcError):
            daemon.call(SUBMIT, method, allowed, directory=params.get("path"))
            continue
        assert method in LOOKS, "nobody listens there"
    # A hub's repositories are named as those of a registry are.
    with pytest.raises(RpcError, match=r"127\.0\.0\.1:9/prod/model") as caught:
        daemon.call(SUBMIT, "kits.import", source="Prod/Model")
    assert caught.value.code == "denied"
    with pytest.raises(RpcError, match="datasets/team/model"):
        daemon.call(SUBMIT, "kits.import", source="datasets/team/model")
    daemon.call(SUBMIT, "kits.import", source="Team/Model", reference="mine")
    for denied in (
        "https://127.0.0.1:9/prod/model.git",
        "git@127.0.0.1:team/model",
        f"file://{root}",
        # As kitd's own cache is called, which needs no rule.
        "http://localhost/team/model",
        "ssh://root@127.0.0.1:9/team/model",
        "http://127.0.0.1:9/Team/Model.git",
        "http://127.0.0.1:9/team/model.git/.git",
    ):
        with pytest.raises(RpcError) as caught:
            daemon.call(SUBMIT, "kits.import", source=denied, tool="git", reference="mine")
        assert caught.value.code == "denied", denied
    for allowed in ("http://127.0.0.1:9/team/model.git", "ssh://git@127.0.0.1:9/team/model"):
        daemon.call(SUBMIT, "kits.import", source=allowed, tool="git", reference="mine")
    with pytest.raises(RpcError, match=ELSEWHERE.replace(".", r"\.")) as caught:
        daemon.call(SUBMIT, "kits.import", source="Team/Model", reference=ELSEWHERE, push=True)
    assert caught.value.code == "denied"
    assert daemon.call(READ, "kits.list")["kits"] != []
    with pytest.raises(RpcError) as caught:
        daemon.call(READ, "kits.inspect", reference=ALLOWED, remote=True)
    assert caught.value.code == "denied"
    # Names that stay in the cache are no business of a registry's.
    assert daemon.ended(daemon.pack(SUBMIT, root, ELSEWHERE))["state"] == "succeeded"


def test_a_mirror_goes_only_where_a_rule_says_for_whoever_asks_for_it(daemon):
    """To the source and to every target, whoever configured it."""
    for method, params in (
        ("mirrors.run", {"name": "elsewhere"}),
        ("mirrors.copy", {"source": ALLOWED, "target": ELSEWHERE}),
        ("mirrors.copy", {"source": ELSEWHERE, "target": ALLOWED}),
    ):
        with pytest.raises(RpcError, match=ELSEWHERE.replace(".", r"\.")) as caught:
            daemon.call(SUBMIT, method, params)
        assert (caught.value.code, "rpc.access" in caught.value.hint) == ("denied", True)
        daemon.call(ADMIN, method, params)
    # Where it goes is not known before a registry was asked.
    with pytest.raises(RpcError, match="ask a registry") as caught:
        daemon.call(SUBMIT, "mirrors.run", name="wide")
    assert caught.value.code == "denied"
    (survey,) = daemon.call(ADMIN, "mirrors.run", name="wide")["jobs"]
    assert survey["kind"] == "survey"
    with pytest.raises(RpcError, match="admins") as caught:
        daemon.call(SUBMIT, "mirrors.run", name="allowed", allow_deletes=True)
    assert caught.value.code == "denied"
    daemon.call(ADMIN, "mirrors.run", name="allowed", allow_deletes=True)


def test_a_mirror_is_not_tried_again_for_who_may_not_go_there_any_more(daemon):
    asked = {"source": ALLOWED, "target": f"{ALLOWED}-2", "dry_run": True}
    job = daemon.call(SUBMIT, "mirrors.copy", asked)["job"]["id"]
    daemon.call(SUBMIT, "jobs.cancel", id=job)
    assert daemon.ended({"job": {"id": job}})["state"] == "cancelled"
    reload_with(daemon, [{"uid": SUBMIT, "role": "submit", "repositories": [ALLOWED]}])
    with pytest.raises(RpcError, match=f"{ALLOWED}-2") as caught:
        daemon.call(SUBMIT, "jobs.retry", id=job)
    assert caught.value.code == "denied"


def test_a_layer_that_stays_in_a_registry_is_not_had_from_there_for_everybody(
    daemon, docker_registry
):
    """It is no content of the cache: a reader has it where a rule says."""
    daemon.kitd.stop()
    daemon.kitd.config |= {"cache": {"stream_over": "1MiB"}}
    daemon.kitd.start()
    root = daemon.tree(ROOT, files={"w": "weights" * (1 << 18)})
    reference = f"{docker_registry.host}/team/model"
    packed = daemon.ended(daemon.pack(ROOT, root, f"{reference}:v1", push=True))["result"]
    (layer,) = packed["layers"]
    opened = {"digest": packed["digest"], "layers": [layer["digest"]]}

    with pytest.raises(RpcError, match=reference) as caught:
        daemon.call(READ, "kits.open", opened)
    assert caught.value.code == "denied"
    reload_with(daemon, [{"uid": READ, "role": "read", "repositories": [reference]}])
    assert daemon.call(READ, "kits.open", opened) == {"count": 1}


def test_what_a_rule_allowed_once_is_not_asked_for_again_without_it(daemon):
    root = daemon.tree(SUBMIT)
    pull = daemon.call(SUBMIT, "kits.pull", reference=ALLOWED)["job"]["id"]
    pack = daemon.pack(SUBMIT, root, ALLOWED)["job"]["id"]
    daemon.ended({"job": {"id": pack}})
    reload_with(daemon, [{"uid": SUBMIT, "role": "submit"}])
    daemon.call(SUBMIT, "jobs.cancel", id=pull)
    assert daemon.ended({"job": {"id": pull}})["state"] == "cancelled"
    with pytest.raises(RpcError) as caught:
        daemon.call(SUBMIT, "jobs.retry", id=pull)
    assert caught.value.code == "denied"
    with pytest.raises(RpcError, match="succeeded"):
        daemon.call(SUBMIT, "jobs.retry", id=pack)
    assert daemon.call(ROOT, "jobs.retry", id=pull)["state"] == "ready"


def test_a_job_that_is_tried_again_looks_for_parents_where_a_rule_says_today(daemon):
    root = daemon.tree(SUBMIT)
    daemon.ended(daemon.pack(SUBMIT, root, ALLOWED))
    wide = ["127.0.0.1:9/team/*", "127.0.0.1:9/base/*"]
    reload_with(daemon, [{"uid": SUBMIT, "role": "submit", "repositories": wide}])
    asked = (
        ("kits.pull", {"reference": f"{ALLOWED}:v2"}),
        ("kits.pull", {"reference": f"{ALLOWED}:v3", "parents": False}),
        ("kits.push", {"reference": ALLOWED, "with_parents": True}),
    )
    jobs = [daemon.call(SUBMIT, method, params)["job"]["id"] for method, params in asked]

    def parents():
        with closing(sqlite3.connect(daemon.place / "state" / "ledger.sqlite3")) as ledger:
            rows = ledger.execute("SELECT key, args FROM jobs WHERE id >= ?", (jobs[0],))
            return [(key, json.loads(args)["parents"]) for key, args in rows]

    assert [globs for _, globs in parents()] == [wide, [], wide]
    for job in jobs:
        daemon.call(SUBMIT, "jobs.cancel", id=job)
        assert daemon.ended({"job": {"id": job}})["state"] == "cancelled"
    narrow = ["127.0.0.1:9/team/*"]
    reload_with(daemon, [{"uid": SUBMIT, "role": "submit", "repositories": narrow}])
    for job in jobs:
        daemon.call(SUBMIT, "jobs.retry", id=job)
    assert [globs for _, globs in parents()] == [narrow, [], narrow]
    assert not any("base" in key for key, _ in parents())


def test_a_project_does_not_inherit_the_jobs_of_one_that_had_its_name(daemon, eventually):
    theirs, mine = daemon.tree(VICTIM), daemon.tree(SUBMIT)
    daemon.call(ADMIN, "projects.add", name="x", path=theirs, reference=ELSEWHERE)

    def pushes():
        jobs = daemon.call(ADMIN, "jobs.list", project="x")["jobs"]
        return [job["id"] for job in jobs if job["kind"] == "push"]

    (push,) = eventually("it to be pushed", pushes)
    daemon.call(ADMIN, "jobs.cancel", id=push)
    daemon.call(ADMIN, "projects.remove", name="x")
    new = {"name": "x", "path": mine, "reference": "mine", "push": False}
    daemon.call(SUBMIT, "projects.add", new, directory=mine)
    for method in ("jobs.retry", "jobs.cancel"):
        with pytest.raises(RpcError) as caught:
            daemon.call(SUBMIT, method, id=push)
        assert caught.value.code == "denied", method


def test_a_job_is_asked_for_by_somebody_and_so_is_what_follows_from_it(daemon):
    root = daemon.tree(OWNER)
    job = daemon.ended(daemon.pack(OWNER, root, ALLOWED, push=True))
    (push,) = job["followed_by"]
    with pytest.raises(RpcError, match=f"user {OWNER}"):
        daemon.call(SUBMIT, "jobs.cancel", id=push)
    assert daemon.call(OWNER, "jobs.cancel", id=push)["kind"] == "push"


def test_a_repeated_call_gets_the_same_answer_and_another_under_its_key_none(daemon):
    root = daemon.tree(OWNER)
    new = {"name": "mine", "path": root, "reference": "mine", "push": False}
    for method, params, other in (
        ("projects.add", new, {"tags": ["x"]}),
        ("projects.hold", {"name": "mine"}, {"name": "other"}),
        ("projects.remove", {"name": "mine"}, {"name": "other"}),
        ("kits.pack", {"path": root, "reference": "x"}, {"reference": "y"}),
    ):
        keyed = {**params, "idempotency_key": method}
        first = daemon.call(OWNER, method, keyed, directory=root)
        again = daemon.call(OWNER, method, keyed, directory=root)
        if method == "kits.pack":
            assert again["job"]["id"] == first["job"]["id"]
        else:
            assert again == first
        with pytest.raises(RpcError) as caught:
            daemon.call(OWNER, method, {**keyed, **other}, directory=root)
        assert caught.value.code == "idempotency_mismatch", method
    # Keys are each user's own.
    daemon.call(ADMIN, "projects.add", {**new, "idempotency_key": "projects.hold"})
    job = daemon.ended(daemon.pack(OWNER, root, "z"))["id"]
    cancel = {"id": job, "idempotency_key": "cancel"}
    for _ in range(2):
        with pytest.raises(RpcError) as caught:
            daemon.call(OWNER, "jobs.cancel", cancel)
        assert caught.value.code != "idempotency_mismatch", "what failed may be tried again"


def test_calls_of_one_key_that_come_at_once_get_one_answer(daemon):
    """Whoever repeats a call may not have waited for the end of the first."""
    root = daemon.tree(OWNER)
    new = {"name": "mine", "path": root, "reference": "mine", "push": False}
    daemon.call(OWNER, "projects.add", new, directory=root)
    removal = request.remove_project("mine")
    removal = removal._replace(params={**removal.params, "idempotency_key": "once"})

    async def ask_side_by_side():
        async with AsyncClient.connect(daemon.kitd.socket) as client:
            await asyncio.gather(*(client.call(removal) for _ in range(10)))

    as_user(OWNER, lambda: asyncio.run(ask_side_by_side()))
    assert daemon.call(OWNER, "projects.list")["projects"] == []


def test_kitctl_shows_the_directory_that_it_asks_for(daemon):
    """The clients send the descriptor by themselves, for packs and for projects."""
    root = daemon.tree(VICTIM, mode=0o755)

    def ask():
        with Client.connect(str(daemon.kitd.socket)) as client:
            job = client.call(request.pack(root, "x"))
            project = client.call(request.add_project("theirs", root, "theirs", push=False))
            return job.id, project.name

    assert as_user(SUBMIT, ask)[1] == "theirs"

    async def ask_side_by_side():
        async with AsyncClient.connect(daemon.kitd.socket) as client:
            calls = [client.call(request.pack(root, f"y:{number}")) for number in range(20)]
            return [job.id for job in await asyncio.gather(*calls)]

    assert len(set(as_user(SUBMIT, lambda: asyncio.run(ask_side_by_side())))) == 20


def test_new_rules_count_for_those_who_are_connected(daemon):
    def connect_as(uid):
        os.seteuid(uid)
        try:
            return Connection(str(daemon.kitd.socket))
        finally:
            os.seteuid(ROOT)

    with connect_as(SUBMIT) as connection:
        assert connection.call("system.hello", {}, timeout_s=20)["role"] == "submit"
        reload_with(daemon, [{"uid": SUBMIT, "role": "read"}])
        assert connection.call("system.hello", {}, timeout_s=20)["role"] == "read"
        reload_with(daemon, [])
        with pytest.raises(KitdError):
            connection.call("system.hello", {}, timeout_s=20)
    with pytest.raises(RpcError) as caught, connect_as(SUBMIT) as connection:
        connection.call("system.hello", {}, timeout_s=20)
    assert caught.value.code == "denied"
