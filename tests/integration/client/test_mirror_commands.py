"""`kitctl mirror` as a process against a peer: what it asks, prints and exits with."""

import json

import pytest

EDGE = {
    "source": "a.example.com/m:v1",
    "target": "b.example.com/m:v1",
    "digest": "sha256:" + "ab" * 32,
    "action": "copied",
    "bytes": 2048,
    "why": None,
}
FAILED = EDGE | {
    "target": "c.example.com/m:v1",
    "digest": None,
    "action": "failed",
    "bytes": 0,
    "why": "nobody listens",
}
SAME = EDGE | {"source": "a.example.com/m:v2", "action": "unchanged", "bytes": 0}
ERROR = {"code": "mirror_incomplete", "message": "a.example.com/m is not whole", "hint": "look"}
MIRROR = {
    "name": "prod",
    "source": "a.example.com/team",
    "repositories": ["bert-*"],
    "targets": ["b.example.com/team", "c.example.com/team:eu-{tag}"],
    "schedule": "15m",
    "last_started": "2026-01-02T03:04:05Z",
    "next_start": "2126-01-02T03:04:05Z",
    "edges": 7,
    "failed": 1,
    "conflicts": 2,
    "gone": 0,
    "last_equal": None,
    "running": [],
}


def result(*edges, **changes):
    counts = {}
    for edge in edges:
        counts[edge["action"]] = counts.get(edge["action"], 0) + 1
    moved = {"sent": sum(edge["bytes"] for edge in edges), "mounted": 0, "skipped": 512}
    told = {"edges": edges, "counts": counts, "bytes": moved, "dry_run": False, "notes": []}
    return {"kind": "mirror", "result": told | changes}


@pytest.fixture
def tried(peer, job):
    """Answer for each job by its number: `tried({12: {…}, 13: {…}})`."""

    def script(jobs):
        peer.on("events.subscribe", {"subscription": 1, "head_seq": 1})
        peer.on("events.unsubscribe", {})
        peer.on("jobs.get", lambda params: job(**{"id": params["id"], **jobs[params["id"]]}))

    return script


def test_a_run_shows_what_is_not_unchanged_and_a_line_of_all(peer, kitctl, job, tried):
    peer.on(
        "mirrors.run",
        {"jobs": [job(state="ready", kind="mirror"), job(id=13, state="ready", kind="mirror")]},
    )
    tried({12: result(EDGE, SAME), 13: result(SAME, notes=["one was left alone"])})
    done = kitctl("mirror", "run", "prod", "--thorough")
    header, row, summary = done.stdout.splitlines()
    assert header.split() == ["ACTION", "SOURCE", "TARGET", "DIGEST", "SENT", "WHY"]
    assert row.split()[:4] == ["copied", EDGE["source"], EDGE["target"], "ab" * 6]
    assert summary == "prod: 1 copied, 2 unchanged; 2.0 KiB sent, 1.0 KiB skipped"
    assert (done.returncode, done.stderr) == (0, "warning: one was left alone\n")
    assert peer.made("mirrors.run") == [{"name": "prod", "thorough": True}]
    assert json.loads(kitctl("mirror", "run", "prod", "--json").stdout) == [EDGE, SAME, SAME]


def test_what_follows_a_survey_is_waited_for(peer, kitctl, job, tried):
    peer.on("mirrors.run", {"jobs": [job(state="ready", kind="survey")]})
    survey = {"kind": "survey", "result": {"repositories": [], "notes": ["listed to nobody"]}}
    tried({12: survey | {"followed_by": [13, 14]}, 13: result(EDGE), 14: result(SAME)})
    done = kitctl("mirror", "run", "prod")
    assert done.stdout.endswith("prod: 1 copied, 1 unchanged; 2.0 KiB sent, 1.0 KiB skipped\n")
    assert "listed to nobody" in done.stderr
    assert [params["id"] for params in peer.made("jobs.get")] == [12, 13, 14]


def test_a_run_that_is_to_be_tried_again_has_failed(peer, kitctl, job, tried):
    peer.on("mirrors.run", {"jobs": [job(state="ready", kind="mirror")]})
    tried({12: result(EDGE, FAILED) | {"state": "scheduled", "error": ERROR}})
    done = kitctl("mirror", "run", "prod")
    assert done.returncode == 1
    assert "failed" in done.stdout
    assert "nobody listens" in done.stdout
    assert done.stdout.endswith("prod: 1 copied, 1 failed; 2.0 KiB sent, 512 B skipped\n")
    assert done.stderr.splitlines() == [
        "kitd tries job 12 again; wait for it with: kitctl jobs wait 12",
        "kitctl: job 12 (mirror): a.example.com/m is not whole (look)",
    ]
    answer = kitctl("mirror", "run", "prod", "--json")
    assert (answer.returncode, json.loads(answer.stdout)) == (1, [EDGE, FAILED])


@pytest.mark.parametrize("state", ["failed", "scheduled"])
def test_a_run_of_which_nothing_is_known_but_its_error_is_an_error(peer, kitctl, job, tried, state):
    peer.on("mirrors.copy", {"job": job(state="ready", kind="mirror")})
    tried({12: {"kind": "mirror", "state": state, "error": ERROR}})
    done = kitctl("mirror", "a.example.com/m", "b.example.com/m", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "mirror_incomplete"
    assert "job 12 (mirror): a.example.com/m is not whole" in done.stderr


def test_a_copy_is_asked_for_with_its_tags(peer, kitctl, job, tried):
    peer.on("mirrors.copy", {"job": job(state="ready", kind="mirror")})
    tried({12: result(EDGE, dry_run=True)})
    ends = ["a.example.com/m", "b.example.com/m"]
    done = kitctl("mirror", *ends, "--tags", "v*", "--tags", "latest", "--dry-run")
    assert done.stdout.endswith("512 B skipped (foreseen: nothing was changed)\n")
    assert peer.made("mirrors.copy") == [
        {"source": ends[0], "target": ends[1], "tags": ["v*", "latest"], "dry_run": True}
    ]
    assert kitctl("mirror", *ends, "--detach").stdout == "12\n"


def test_detach_prints_every_job_of_a_run(peer, kitctl, job):
    peer.on("mirrors.run", {"jobs": [job(), job(id=13)]})
    assert kitctl("mirror", "run", "prod", "--detach").stdout == "12\n13\n"
    document = json.loads(kitctl("mirror", "run", "prod", "--detach", "--json").stdout)
    assert document == {"jobs": [12, 13]}


def test_mirrors_are_listed_with_their_trouble(peer, kitctl):
    peer.on("mirrors.list", {"mirrors": [MIRROR, MIRROR | {"name": "dev", "running": [3]}]})
    _, prod, dev = kitctl("mirror", "list").stdout.splitlines()
    assert prod.split()[:2] == ["prod", "a.example.com/team/bert-*"]
    assert "b.example.com/team, c.example.com/team:eu-{tag}" in prod
    assert "1 failed, 2 conflicts" in prod
    assert prod.split()[-2] == "in"
    assert dev.endswith("running")
    assert json.loads(kitctl("mirror", "list", "--json").stdout)[0] == MIRROR


def test_edges_are_shown_with_what_is_wrong(peer, kitctl):
    edge = {
        "source": "a.example.com/m:v1",
        "target": "b.example.com/m:v1",
        "state": "failed",
        "digest": None,
        "last_equal": None,
        "gone_since": None,
        "conflict": None,
        "error": {"code": "x", "message": "nobody listens"},
    }
    conflict = {"source_digest": "sha256:a", "target_digest": "sha256:b"}
    split = edge | {"state": "conflict", "error": None, "conflict": conflict}
    gone = edge | {"state": "gone", "error": None, "gone_since": "2026-01-02T03:04:05Z"}
    peer.on("mirrors.edges", {"edges": [edge, split, gone], "total": 9})
    lines = kitctl("mirror", "edges", "prod", "-n", "3").stdout.splitlines()
    assert lines[1].endswith("nobody listens")
    assert lines[2].endswith("both ends have moved on")
    assert "gone from the source, noticed" in lines[3]
    assert lines[4] == "… and 6 more"
    assert peer.made("mirrors.edges") == [{"name": "prod", "limit": 3}]


def test_a_job_of_a_mirror_is_shown_with_what_it_came_to(peer, kitctl, job):
    peer.on("jobs.get", job(**result(EDGE, SAME)))
    shown = kitctl("jobs", "show", "12").stdout
    assert "tags       1 copied, 1 unchanged; 2.0 KiB sent, 512 B skipped" in shown
