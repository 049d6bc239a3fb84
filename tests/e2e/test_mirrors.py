"""Mirrors as a person has them: a configuration, `kitctl mirror`, and registries that listen."""

import hashlib
import json

import pytest

from kitd.client import Client, request
from kitd.client.error import RpcError
from kitd.client.record import read_mirrored
from tests.e2e.conftest import Kitd


def rests(daemon):
    """Whether nothing is done, and nothing waits to be."""
    queue = daemon.json("status")["queue"]
    return not (queue["ready"] or queue["running"] or queue["scheduled"])


@pytest.fixture
def registries(start_docker_registry):
    """A source and two targets."""
    return [start_docker_registry() for _ in range(3)]


@pytest.fixture
def digest_of(skopeo):
    """The digest of what a registry has under a name, or None for nothing."""

    def find(host, name):
        raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{host}/{name}")
        return f"sha256:{hashlib.sha256(raw).hexdigest()}"

    return find


@pytest.fixture
def tags_of(skopeo):
    """The tags of a repository."""

    def find(host, name):
        place = f"docker://{host}/{name}"
        return set(json.loads(skopeo("list-tags", "--tls-verify=false", place))["Tags"])

    return find


@pytest.fixture
def push_kit(kitd, project):
    """Push kits by another kitd, of which mirrors hear nothing: `push_kit(reference)`."""
    daemon = kitd().start()

    def push(reference):
        (project / "model.bin").write_text(reference * 1000)
        daemon.json("pack", project, "-t", reference, "--push")

    return push


@pytest.fixture(scope="module")
def kitd_idle(tmp_path_factory):
    """A daemon that is asked for nothing that it does."""
    place = tmp_path_factory.mktemp("idle")
    daemon = Kitd(place, {}).start()
    yield daemon
    daemon.kill()


def rule(source, *targets, **settings):
    targets = [f"{target.host}/ml/model" for target in targets]
    return {"source": f"{source.host}/team/model", "targets": targets, **settings}


def actions(edges):
    return sorted(edge["action"] for edge in edges)


def test_a_mirror_is_listed_foreseen_run_and_found_unchanged(kitd, registries, push_kit, digest_of):
    source, first, second = registries
    daemon = kitd({"mirrors": {"prod": rule(source, first, second)}}).start()
    for tag in ("v1", "v2"):
        push_kit(f"{source.host}/team/model:{tag}")

    (listed,) = daemon.json("mirror", "list")
    assert (listed["name"], listed["edges"], listed["schedule"]) == ("prod", 0, None)
    assert listed["targets"] == [f"{first.host}/ml/model", f"{second.host}/ml/model"]

    foreseen = daemon.json("mirror", "run", "prod", "--dry-run")
    assert actions(foreseen) == ["copied"] * 4
    assert not [path for path in first.root.rglob("*") if path.is_file()]
    assert daemon.json("mirror", "list")[0]["edges"] == 0

    done = daemon.json("mirror", "run", "prod")
    assert actions(done) == ["copied"] * 4
    assert {(edge["source"], edge["target"], edge["digest"]) for edge in done} == {
        (edge["source"], edge["target"], edge["digest"]) for edge in foreseen
    }
    assert sum(edge["bytes"] for edge in done) == sum(edge["bytes"] for edge in foreseen) > 0
    for tag in ("v1", "v2"):
        there = digest_of(source.host, f"team/model:{tag}")
        assert digest_of(first.host, f"ml/model:{tag}") == there
        assert digest_of(second.host, f"ml/model:{tag}") == there

    again = daemon.kitctl("mirror", "run", "prod")
    assert (again.code, again.out) == (0, "prod: 4 unchanged\n")
    (listed,) = daemon.json("mirror", "list")
    assert (listed["edges"], listed["failed"]) == (4, 0)
    assert listed["last_equal"] is not None
    job = daemon.jobs("mirror")[0]["id"]
    assert "tags       2 unchanged" in daemon.kitctl("jobs", "show", job).out
    assert "somebody asked for it" in daemon.kitctl("why", job).out


def test_a_copy_by_hand_takes_the_tags_that_are_named(kitd, registries, push_kit, tags_of):
    source, target, _ = registries
    daemon = kitd().start()
    here, there = f"{source.host}/team/model", f"{target.host}/copies"
    for tag in ("v1", "v2", "latest", "test"):
        push_kit(f"{here}:{tag}")

    foreseen = daemon.json("mirror", here, there, "--tags", "v*", "--tags", "latest", "--dry-run")
    assert actions(foreseen) == ["copied"] * 3
    done = daemon.json("mirror", here, there, "--tags", "v*", "--tags", "latest")
    assert sum(edge["bytes"] for edge in done) == sum(edge["bytes"] for edge in foreseen)
    assert tags_of(target.host, "copies") == {"v1", "v2", "latest"}

    (renamed,) = daemon.json("mirror", f"{here}:test", f"{there}:tried")
    assert renamed["target"] == f"{there}:tried"
    assert tags_of(target.host, "copies") == {"v1", "v2", "latest", "tried"}

    missing = daemon.kitctl("mirror", f"{here}:v9", there)
    assert missing.code == 1
    assert f"there is no {here}:v9" in missing.err
    same = daemon.kitctl("mirror", here, f"{here}:x")
    assert same.code == 1
    assert "the source and the target" in same.err
    nothing = daemon.kitctl("mirror", here, there, "--tags", "nightly-*")
    assert (nothing.code, nothing.out) == (0, f"{here}: there are no tags to copy\n")


def test_a_target_that_is_down_holds_up_no_other(
    kitd, registries, push_kit, digest_of, free_address
):
    source, target, _ = registries
    mirror = rule(source, target)
    mirror["targets"].append(f"{free_address}/ml/model")
    daemon = kitd({"mirrors": {"prod": mirror}}).start()
    push_kit(f"{source.host}/team/model:v1")

    run = daemon.kitctl("mirror", "run", "prod", "--json")

    assert run.code == 1
    there = {edge["target"].partition("/")[0]: edge["action"] for edge in run.json}
    assert there[free_address] == "failed"
    assert there[target.host] == "copied"
    assert free_address in run.err
    assert "kitctl jobs wait" in run.err
    assert digest_of(target.host, "ml/model:v1") == digest_of(source.host, "team/model:v1")
    trouble, fine = daemon.json("mirror", "edges", "prod")
    assert trouble["target"] == f"{free_address}/ml/model:v1"
    assert (trouble["state"], fine["state"]) == ("failed", "equal")
    assert free_address in trouble["error"]["message"]
    table = daemon.kitctl("mirror", "list").out
    assert "1 failed" in table
    (job,) = [job for job in daemon.jobs("mirror") if job["state"] != "succeeded"]
    assert job["reference"] == f"{free_address}/ml/model"
    assert free_address in daemon.kitctl("why", str(job["id"])).out


def test_what_is_deleted_at_the_source_is_deleted_at_a_registry_that_removes_no_tags(
    kitd, registries, push_kit, tags_of, skopeo
):
    """distribution 2 deletes manifests only, with all their tags."""
    source, target, _ = registries
    mirror = rule(source, target, deletes="propagate", grace="0s")
    daemon = kitd({"mirrors": {"prod": mirror}}).start()
    for tag in ("v1", "v2", "v3"):
        push_kit(f"{source.host}/team/model:{tag}")
    plain = ("--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests")
    here = f"docker://{source.host}/team/model"
    skopeo("copy", *plain, f"{here}:v3", f"{here}:latest")
    daemon.json("mirror", "run", "prod")
    assert tags_of(target.host, "ml/model") == {"v1", "v2", "v3", "latest"}

    # Of the source skopeo removes what a tag names, with all its tags.
    skopeo("delete", "--tls-verify=false", f"{here}:v1")
    done = daemon.json("mirror", "run", "prod")

    assert actions(done) == ["deleted", "unchanged", "unchanged", "unchanged"]
    assert tags_of(target.host, "ml/model") == {"v2", "v3", "latest"}
    again = daemon.json("mirror", "run", "prod")
    assert actions(again) == ["unchanged"] * 3


def test_a_schedule_copies_what_nobody_asks_for(kitd, registries, push_kit, tags_of, eventually):
    source, target, _ = registries
    daemon = kitd({"mirrors": {"prod": rule(source, target, schedule="1s")}}).start()
    for tag in ("v1", "v2"):
        push_kit(f"{source.host}/team/model:{tag}")

        def arrived(tag=tag):
            edges = daemon.json("mirror", "edges", "prod")
            return any(edge["target"].endswith(f":{tag}") for edge in edges)

        eventually(f"{tag} to be copied", arrived)
    assert tags_of(target.host, "ml/model") == {"v1", "v2"}
    (listed,) = daemon.json("mirror", "list")
    assert (listed["schedule"], listed["failed"]) == ("1s", 0)
    assert listed["last_started"] < listed["next_start"]


def test_a_mirror_whose_registry_tells_its_repositories_copies_them_all(
    kitd, registries, push_kit, digest_of
):
    source, target, _ = registries
    mirror = {
        "source": f"{source.host}/team",
        "repositories": ["bert-*"],
        "targets": [f"{target.host}/copies"],
    }
    daemon = kitd({"mirrors": {"team": mirror}}).start()
    for name in ("bert-small", "bert-large", "other"):
        push_kit(f"{source.host}/team/{name}:v1")

    done = daemon.json("mirror", "run", "team")

    assert sorted(edge["target"] for edge in done) == [
        f"{target.host}/copies/bert-large:v1",
        f"{target.host}/copies/bert-small:v1",
    ]
    for name in ("bert-small", "bert-large"):
        there = digest_of(target.host, f"copies/{name}:v1")
        assert there == digest_of(source.host, f"team/{name}:v1")


def test_a_mirror_that_there_is_not_is_told_with_the_nearest(kitd, registries):
    source, target, _ = registries
    daemon = kitd({"mirrors": {"prod": rule(source, target)}}).start()
    wrong = daemon.kitctl("mirror", "run", "prd")
    assert (wrong.code, "did you mean prod?" in wrong.err) == (1, True)
    assert daemon.kitctl("mirror", "edges", "x").code == 1
    detached = daemon.json("mirror", "run", "prod", "--detach")
    assert daemon.json("jobs", "show", str(detached["jobs"][0]))["kind"] == "mirror"
    # The source is empty: nobody knows its repository.
    failed = daemon.kitctl("mirror", "run", "prod")
    assert (failed.code, failed.out) == (1, "")
    assert f"team/model at {source.host}" in failed.err
    # That is told where people look for what is wrong.
    (edge,) = daemon.json("mirror", "edges", "prod")
    assert (edge["source"], edge["state"]) == (f"{source.host}/team/model", "failed")
    assert "1 failed" in daemon.kitctl("mirror", "list").out


def test_programs_run_mirrors_and_may_repeat_their_calls(kitd, registries, push_kit):
    source, first, second = registries
    daemon = kitd({"mirrors": {"prod": rule(source, first, second)}}).start()
    here = f"{source.host}/team/model"
    push_kit(f"{here}:v1")

    with Client.connect(daemon.socket) as client:
        asked = request.run_mirror("prod", thorough=True, idempotency_key="once")
        jobs = client.call(asked)
        assert [job.reference for job in jobs] == [
            f"{first.host}/ml/model",
            f"{second.host}/ml/model",
        ]
        for job in jobs:
            mirrored = read_mirrored(client.wait(job.id).result)
            assert [tag.action for tag in mirrored.tags] == ["copied"]
            assert mirrored.sent_bytes == sum(tag.bytes for tag in mirrored.tags)
        assert [again.id for again in client.call(asked)] == [job.id for job in jobs]
        with pytest.raises(RpcError, match="idempotency key"):
            client.call(request.run_mirror("prod", idempotency_key="once"))
        (mirror,) = client.call(request.list_mirrors())
        assert (mirror.name, mirror.edges, mirror.running) == ("prod", 2, ())
        known = client.call(request.mirror_edges("prod", limit=1))
        assert (len(known.edges), known.total, known.edges[0].state) == (1, 2, "equal")
        # Two wishes of people that differ are two jobs, and neither takes the other's place.
        targets = [f"{first.host}/by-hand", f"{second.host}/by-hand"]
        jobs = [client.call(request.copy_mirror(here, target)) for target in targets]
        assert [client.wait(job.id).state for job in jobs] == ["succeeded"] * 2
        assert len({job.id for job in jobs}) == 2


@pytest.mark.parametrize(
    ("source", "target", "tags", "reason"),
    [
        ("team/model", "b.example.com/m", (), "names no registry"),
        ("a.example.com/m", "m", (), "names no registry"),
        ("a.example.com/m", "b.example.com/m:v1", (), "names all of its own"),
        ("a.example.com/m:v1", "b.example.com/m", ("v*",), "is one tag already"),
        ("a.example.com/m:v1", "A.example.com/m:v2", (), "the source and the target"),
        ("a.example.com/m@sha256:" + "a" * 64, "b.example.com/m", (), "names a digest"),
        ("a.example.com/M", "b.example.com/m", (), "must be lower case"),
        ("a.example.com/m", "b.example.com/m", ("",), "length"),
    ],
)
def test_a_copy_that_makes_no_sense_is_refused(kitd_idle, source, target, tags, reason):
    with Client.connect(kitd_idle.socket) as client, pytest.raises(RpcError, match=reason):
        client.call(request.copy_mirror(source, target, tags=tags))


def test_what_is_pushed_into_kitds_own_registry_goes_on_by_itself(
    kitd, start_docker_registry, push_kit, skopeo, free_address, digest_of, eventually
):
    """With no webhook, no schedule and nobody who asks."""
    elsewhere, target = start_docker_registry(), start_docker_registry()
    own = f"localhost:{free_address.rpartition(':')[2]}"
    mirror = {"source": f"{own}/team/model", "targets": [f"{target.host}/ml/model"]}
    registry = {"listen": free_address}
    daemon = kitd({"registry": registry, "mirrors": {"onward": mirror}}).start()

    def push(tag):
        skopeo(
            *("copy", "--src-tls-verify=false", "--dest-tls-verify=false"),
            *(f"docker://{elsewhere.host}/team/model:{tag}", f"docker://{own}/team/model:{tag}"),
        )

    for tag in ("v1", "v2"):
        push_kit(f"{elsewhere.host}/team/model:{tag}")
        push(tag)

        def arrived(tag=tag):
            edges = daemon.json("mirror", "edges", "onward")
            return any(edge["target"].endswith(f":{tag}") for edge in edges)

        eventually(f"{tag} to be copied", arrived)
        there = digest_of(elsewhere.host, f"team/model:{tag}")
        assert digest_of(target.host, f"ml/model:{tag}") == there

    eventually("the mirror to rest", lambda: rests(daemon))
    jobs = len(daemon.jobs("mirror"))
    push("v1")
    eventually("the mirror to rest", lambda: rests(daemon))
    # Whether it has been there shows once it is there: another job looks, and copies nothing.
    assert [job["state"] for job in daemon.jobs("mirror")] == ["succeeded"] * (jobs + 1)
    assert daemon.kitctl("--json", "events").out.count('"kit.mirrored"') == 2


def test_what_is_packed_and_named_here_goes_on_from_kitds_own_registry(
    kitd, start_docker_registry, tmp_path, free_address, digest_of, eventually
):
    """It serves the cache, which changes by more than pushes."""
    target = start_docker_registry()
    mirror = {
        "source": f"localhost:{free_address.rpartition(':')[2]}/team/model",
        "targets": [f"{target.host}/ml/model"],
        "referrers": False,
    }
    daemon = kitd({"registry": {"listen": free_address}, "mirrors": {"onward": mirror}}).start()
    project = tmp_path / "plain"
    project.mkdir()
    (project / "w.bin").write_bytes(b"w" * 100)
    (project / "Kitfile").write_text("manifestVersion: 1.0.0\nmodel: {path: w.bin}\n")
    made = daemon.json("pack", project, "-t", "team/model:packed")
    daemon.json("tag", "team/model:packed", "team/model:named")

    def arrived(tag):
        edges = daemon.json("mirror", "edges", "onward")
        return any(edge["target"].endswith(f":{tag}") for edge in edges)

    for tag in ("packed", "named"):
        eventually(f"{tag} to be copied", lambda tag=tag: arrived(tag))
    # A tag that Debian's registry is just writing, it cannot read: it answers with 500.
    eventually("the mirror to rest", lambda: rests(daemon))
    for tag in ("packed", "named"):
        assert digest_of(target.host, f"ml/model:{tag}") == made["digest"]
