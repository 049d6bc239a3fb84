"""Mirrors as a person has them: a configuration, `kitctl mirror`, and registries that listen."""

import hashlib
import json

import pytest


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
    assert "tags       4 unchanged" in daemon.kitctl("jobs", "show", job).out
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
    # Unchanged, if kitd has tried again before anybody could look.
    assert there[target.host] in {"copied", "unchanged"}
    assert free_address in run.err
    assert "kitctl jobs wait" in run.err
    assert digest_of(target.host, "ml/model:v1") == digest_of(source.host, "team/model:v1")
    trouble, fine = daemon.json("mirror", "edges", "prod")
    assert trouble["target"] == f"{free_address}/ml/model:v1"
    assert (trouble["state"], fine["state"]) == ("failed", "equal")
    assert free_address in trouble["error"]["message"]
    table = daemon.kitctl("mirror", "list").out
    assert "1 failed" in table
    (job,) = daemon.jobs("mirror")
    assert free_address in daemon.kitctl("why", str(job["id"])).out


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
