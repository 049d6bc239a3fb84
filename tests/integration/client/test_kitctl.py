"""`kitctl` as a process against a peer: what it prints, sends and exits with."""

import hashlib
import io
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from kitd import __version__
from kitd.client.staging import mark

PROJECT = {
    "name": "sentiment",
    "path": "/srv/models/sentiment",
    "reference": "registry.example.com/team/sentiment",
    "tags": ["latest"],
    "push": True,
    "state": "blocked",
    "reason": "Kitfile:3:1: unknown key 'modle'",
    "last_digest": "sha256:" + "ab" * 32,
    "last_packed": "2026-01-02T03:04:05Z",
    "last_job": 12,
    "source": "config",
}
STATUS = {
    "daemon": {
        "version": "0.1.0",
        "instance": "i",
        "pid": 7,
        "state": "ready",
        "uptime_s": 200,
    },
    "projects": [PROJECT],
    "queue": {"ready": 1, "running": 2, "scheduled": 0, "failed": 3},
    "cache": {
        "blobs": 3,
        "physical_bytes": 12345,
        "logical_bytes": 20000,
        "shared_bytes": 7655,
        "evictable_bytes": 0,
    },
    "degraded": [],
}
PACKED = {
    "digest": "sha256:" + "cd" * 32,
    "reference": "team/sentiment:v1",
    "tags": ["v1"],
    "config": {"digest": "sha256:" + "ef" * 32, "size": 100},
    "layers": [
        {"mediaType": "x", "digest": "sha256:a", "size": 2048, "reused": True},
        {"mediaType": "x", "digest": "sha256:b", "size": 1024, "reused": False},
    ],
    "unchanged": False,
}
MOVED = {
    "digest": PACKED["digest"],
    "reference": "registry.example.com/team/sentiment:v1",
    "tags": ["v1"],
    "bytes": {"sent": 3072, "received": 0, "mounted": 0, "skipped": 1024},
}
EVENT = {
    "seq": 5,
    "at": "2026-01-02T03:04:05Z",
    "type": "kit.packed",
    "subject": "project:sentiment",
    "data": {"digest": "sha256:ab", "note": "two words"},
}


@pytest.fixture
def ended(peer, job):
    """Let jobs that are waited for have ended with these results, one after another."""

    def script(*jobs: dict) -> None:
        peer.on("events.subscribe", {"subscription": 1, "head_seq": 1})
        peer.on("events.unsubscribe", {})
        peer.on("jobs.get", *(job(**changes) for changes in jobs))

    return script


def test_status_shows_everything_at_a_glance(peer, kitctl):
    peer.on("system.status", STATUS)
    done = kitctl("status")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "kitd 0.1.0 is ready, up 3m 20s, pid 7"
    assert lines[2].split() == ["PROJECT", "STATE", "LAST", "KIT", "PACKED", "REFERENCE"]
    assert lines[4] == "  sentiment: Kitfile:3:1: unknown key 'modle'"
    assert lines[6] == "queue   2 running, 1 ready, 0 scheduled, 3 failed"
    assert lines[7] == "cache   3 blobs, 12.0 KiB on disk, 7.4 KiB shared"


def test_status_without_projects_says_how_to_add_one(peer, kitctl):
    peer.on("system.status", STATUS | {"projects": []})
    assert "kitctl projects add NAME PATH -t REF" in kitctl("status").stdout


def test_json_is_what_the_daemon_said_whatever_a_newer_one_adds(peer, kitctl):
    peer.on("system.status", STATUS | {"novelty": {"a": [1]}})
    done = kitctl("status", "--json")
    assert json.loads(done.stdout) == STATUS | {"novelty": {"a": [1]}}
    assert done.stderr == ""


def test_status_starts_light(peer):
    peer.on("system.status", STATUS)
    program = (
        "import sys; from kitd.ctl.main import main; main();"
        "print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--socket", str(peer.path), "status"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stderr.split())
    heavy = {"asyncio", "aiohttp", "msgspec", "yaml", "structlog", "sqlite3", "zstandard"}
    heavy |= {"argparse", "dataclasses", "datetime", "shutil", "subprocess", "tarfile", "inspect"}
    assert not loaded & heavy
    rooms = {name.split(".")[1] for name in loaded if name.startswith("kitd.")}
    assert rooms == {"client", "config", "ctl", "errors"}


LISTS = [
    ("jobs list", "jobs.list", {"jobs": [], "as_of_seq": 1}, "No jobs yet. Begin with"),
    ("jobs list --kind pack", "jobs.list", {"jobs": []}, "No such jobs."),
    ("projects list", "projects.list", {"projects": []}, "No projects yet."),
    ("list", "kits.list", {"kits": []}, "No kits yet."),
    ("mirror list", "mirrors.list", {"mirrors": []}, "No mirrors yet."),
    (
        "mirror edges prod",
        "mirrors.edges",
        {"edges": [], "total": 0},
        "Nothing is known of its tags yet. Run it with: kitctl mirror run prod\n",
    ),
    ("jobs log 12", "jobs.log", {"events": []}, "No events."),
]


@pytest.mark.parametrize(("line", "method", "result", "words"), LISTS)
def test_an_empty_list_says_so(peer, kitctl, line, method, result, words):
    peer.on(method, result)
    assert kitctl(*line.split()).stdout.startswith(words)
    assert json.loads(kitctl(*line.split(), "--json").stdout) == []


def test_what_is_empty_names_the_next_command(peer, kitctl):
    source = {"name": "eu", "registry": "r.example.com", "mirrors": 1, "refused": 0}
    peer.on("webhooks.list", {"sources": []}, {"sources": [source]})
    assert "kitctl reload" in kitctl("webhooks", "list").stdout
    assert kitctl("webhooks", "list").stdout.endswith("post them to: /hooks/eu\n")
    assert kitctl("webhooks", "list", "--source", "eu").stdout.endswith("kitctl webhooks list\n")
    peer.on("cache.plan", {"decisions": [], "freed_bytes": 0})
    said = kitctl("cache", "gc", "--dry-run").stdout.splitlines()
    assert said[0].endswith("kitctl cache stats")


def test_jobs_of_a_project_that_there_is_not_are_told(peer, kitctl):
    peer.on("jobs.list", {"jobs": []})
    peer.on("projects.list", {"projects": [PROJECT]})
    done = kitctl("jobs", "list", "--project", "sentimnt", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    assert done.stderr == "warning: there is no project sentimnt (did you mean sentiment?)\n"
    assert kitctl("jobs", "list", "--project", "sentiment").stderr == ""


def test_jobs_are_listed_with_the_filters_given(peer, kitctl, job):
    failed = job(state="failed", error={"code": "x", "message": "y", "hint": None})
    peer.on("jobs.list", {"jobs": [failed], "as_of_seq": 1})
    done = kitctl("jobs", "list", "--state", "failed", "--kind", "pack", "-n", "5")
    row = done.stdout.splitlines()[1].split()
    assert row[:4] == ["12", "pack", "failed", "sentiment"]
    assert row[-2:] == ["2.0s", "team/sentiment:v1"]
    assert peer.made("jobs.list") == [{"state": "failed", "kind": "pack", "limit": 5}]
    assert json.loads(kitctl("jobs", "list", "--json").stdout) == [failed]


def test_a_job_is_shown_with_its_error(peer, kitctl, job):
    error = {"code": "invalid_kitfile", "message": "Kitfile:3:1: no", "hint": "mend it"}
    peer.on("jobs.get", job(state="failed", error=error))
    done = kitctl("jobs", "show", "12")
    assert "error      Kitfile:3:1: no" in done.stdout
    assert "hint       mend it" in done.stdout


@pytest.mark.parametrize(("verb", "method"), [("cancel", "jobs.cancel"), ("retry", "jobs.retry")])
def test_a_job_is_told_what_to_do(peer, kitctl, job, verb, method):
    peer.on(method, job(state="cancelled"))
    assert kitctl("jobs", verb, "12").stdout == "job 12 is cancelled\n"
    assert peer.made(method) == [{"id": 12}]


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 1)])
def test_waiting_exits_with_the_fate_of_the_job(kitctl, ended, state, code):
    ended({"state": state})
    done = kitctl("jobs", "wait", "12", "--json")
    assert (done.returncode, json.loads(done.stdout)["state"]) == (code, state)


def test_waiting_times_out_with_its_own_exit_code(kitctl, ended):
    ended({"state": "running", "finished": None})
    done = kitctl("jobs", "wait", "12", "--timeout", "50ms", "--json")
    assert done.returncode == 5
    assert json.loads(done.stdout)["error"]["code"] == "timeout"
    assert "job 12 is still running" in done.stderr


def test_pack_waits_and_tells_what_was_packed(peer, kitctl, job, ended, tmp_path):
    peer.on("kits.pack", {"job": job(state="ready")})
    ended({"result": PACKED})
    done = kitctl("pack", ".", "-t", "team/sentiment:v1", cwd=tmp_path)
    assert done.stdout == (
        f"packed team/sentiment:v1@{PACKED['digest']}: 2 layers, 3.0 KiB, 1 reused\n"
    )
    assert done.stderr == ""
    assert peer.made("kits.pack") == [
        {"path": str(tmp_path.resolve()), "reference": "team/sentiment:v1"}
    ]


@pytest.mark.parametrize(
    ("kitfile", "sent"), [("m/sub/Kitfile.prod", "sub/Kitfile.prod"), ("other", "{cwd}/other")]
)
def test_a_kitfile_is_named_from_here_and_sent_from_the_project(
    peer, kitctl, job, tmp_path, kitfile, sent
):
    peer.on("kits.pack", {"job": job(state="ready")})
    kitctl("pack", "m", "-t", "r", "-f", kitfile, "--detach", cwd=tmp_path)
    assert peer.made("kits.pack")[0]["kitfile"] == sent.format(cwd=tmp_path.resolve())


def test_pack_and_push_waits_for_both(peer, kitctl, job, ended):
    peer.on("kits.pack", {"job": job(state="ready")})
    ended({"result": PACKED, "followed_by": [13]}, {"id": 13, "kind": "push", "result": MOVED})
    done = kitctl("pack", "/m", "-t", "r", "--push", "--json")
    document = json.loads(done.stdout)
    assert (document["job"], document["digest"]) == (12, PACKED["digest"])
    assert document["push"] == {"job": 13, **MOVED}
    assert peer.made("kits.pack")[0]["push"] is True
    assert [params["id"] for params in peer.made("jobs.get")] == [12, 13]


def test_detach_prints_the_job_and_does_not_wait(peer, kitctl, job):
    peer.on("kits.pack", {"job": job(state="ready")})
    assert kitctl("pack", "/m", "-t", "r", "--detach").stdout == "12\n"
    assert json.loads(kitctl("pack", "/m", "-t", "r", "--detach", "--json").stdout) == {"job": 12}
    assert peer.made("jobs.get") == []


@pytest.mark.parametrize("command", ["push", "pull"])
def test_transfers_tell_what_moved(peer, kitctl, job, ended, command):
    peer.on(f"kits.{command}", {"job": job(state="ready")})
    ended({"result": MOVED})
    done = kitctl(command, "registry.example.com/team/sentiment:v1")
    assert done.stdout.endswith(": 3.0 KiB sent, 1.0 KiB skipped\n")
    document = json.loads(kitctl(command, "r", "--json").stdout)
    assert document == {"job": 12, **MOVED}


def test_push_to_another_reference_names_it(peer, kitctl, job, ended):
    peer.on("kits.push", {"job": job(state="ready")})
    ended({"result": MOVED})
    kitctl("push", "a:v1", "r.example.com/b:v1")
    assert peer.made("kits.push") == [{"reference": "a:v1", "target": "r.example.com/b:v1"}]


def test_a_failed_job_is_told_by_what_why_and_hint(peer, kitctl, job, ended):
    peer.on("kits.pack", {"job": job(state="ready")})
    error = {"code": "denied", "message": "/m: permission denied", "hint": "chmod it"}
    ended({"state": "failed", "error": error})
    done = kitctl("pack", "/m", "-t", "r", "--json")
    # A job's reason is not the caller's: denied here is no exit code 3.
    assert done.returncode == 1
    assert done.stderr == "kitctl: job 12 (pack): /m: permission denied (chmod it)\n"
    assert json.loads(done.stdout) == {
        "error": {
            "code": "denied",
            "message": "job 12 (pack): /m: permission denied",
            "hint": "chmod it",
        }
    }


@pytest.mark.parametrize(
    ("state", "words"),
    [("cancelled", "it was cancelled"), ("failed", "kitd gave no reason")],
)
def test_a_job_without_an_error_still_says_how_it_ended(peer, kitctl, job, ended, state, words):
    peer.on("kits.pull", {"job": job(state="ready", kind="pull")})
    ended({"kind": "pull", "state": state})
    done = kitctl("pull", "r")
    assert (done.returncode, done.stderr) == (1, f"kitctl: job 12 (pull): {words}\n")


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("not_found", 1), ("denied", 3), ("timeout", 5), ("stopping", 1), ("queue_full", 1)],
)
def test_refusals_have_exit_codes(peer, kitctl, refusal, code, exit_code):
    peer.on("jobs.get", refusal(code, "no job 7", "list them"))
    done = kitctl("jobs", "show", "7")
    assert (done.returncode, done.stdout) == (exit_code, "")
    assert done.stderr == "kitctl: no job 7 (list them)\n"


def test_a_message_cannot_drive_the_terminal(peer, kitctl, refusal):
    peer.on("jobs.get", refusal("failed", "a\x1b]0;title\x07\nkitctl: all is well"))
    done = kitctl("jobs", "show", "7")
    assert done.stderr == "kitctl: a�]0;title��kitctl: all is well\n"


def test_no_daemon_exits_with_4_and_says_how_to_start_it(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "kitd.ctl.main", "status", "--json"],
        env={"PATH": os.environ["PATH"], "KITD_SOCKET": str(tmp_path / "none.sock")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert "there is no socket (start it with: kitd serve)" in done.stderr
    assert json.loads(done.stdout)["error"]["hint"] == "start it with: kitd serve"


@pytest.mark.parametrize(
    "line", ["", "xyzzy", "jobs", "jobs list --state x", "pack .", "unpack r -o -i", "--socket"]
)
def test_usage_errors_exit_with_2(kitctl, line):
    done = kitctl(*line.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert "kitctl" in done.stderr


@pytest.mark.parametrize("line", ["--help", "jobs --help", "jobs wait -h", "help", "help pack"])
def test_help_is_a_result(kitctl, line):
    done = kitctl(*line.split())
    assert (done.returncode, done.stderr) == (0, "")
    assert "example: kitctl" in done.stdout


def test_a_usage_error_is_one_json_document_too(kitctl):
    done = kitctl("jobs", "lst", "--json")
    assert json.loads(done.stdout)["error"]["hint"] == "did you mean list?"


def test_no_command_is_a_json_document_too(kitctl):
    done = kitctl("--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "usage"


def test_a_refused_reload_is_an_error_with_all_problems(peer, kitctl):
    refused = {"applied": False, "changed": [], "problems": ["kitd.yaml:1:1: no", "kitd.yaml:2:1"]}
    peer.on("system.reload", refused)
    done = kitctl("reload", "--json")
    document = json.loads(done.stdout)
    error = document.pop("error")
    assert (done.returncode, document) == (1, refused)
    assert (error["code"], error["message"]) == ("invalid_config", "kitd.yaml:1:1: no")
    assert "kitd check-config" in error["hint"]
    assert len(done.stderr.splitlines()) == 2


def test_projects_are_added_by_absolute_path_with_their_tags(peer, kitctl, tmp_path):
    peer.on("projects.add", PROJECT)
    line = ["projects", "add", "sentiment", "m", "-t", "r.example.com/s:latest,v1", "--no-push"]
    done = kitctl(*line, cwd=tmp_path)
    assert done.stdout == "watching /srv/models/sentiment as sentiment\n"
    assert peer.made("projects.add") == [
        {
            "name": "sentiment",
            "path": str(tmp_path.resolve() / "m"),
            "reference": "r.example.com/s",
            "tags": ["latest", "v1"],
            "push": False,
        }
    ]


@pytest.mark.parametrize("verb", ["remove", "rescan", "hold", "release"])
def test_projects_are_told_what_to_do(peer, kitctl, verb):
    peer.on(f"projects.{verb}", PROJECT)
    done = kitctl("projects", verb, "sentiment")
    assert done.returncode == 0
    assert done.stdout.startswith("sentiment ")
    assert peer.made(f"projects.{verb}") == [{"name": "sentiment"}]


def test_kits_are_listed_a_tag_a_line(peer, kitctl):
    kit = {
        "repo": "team/s",
        "digest": "sha256:" + "ab" * 32,
        "tags": ["v1", "latest"],
        "modelName": None,
        "size": 1536,
        "author": "Ann",
    }
    peer.on("kits.list", {"kits": [kit, kit | {"tags": None}]})
    lines = kitctl("list", "team/s").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["REPOSITORY", "TAG", "MAINTAINER", "NAME", "SIZE", "DIGEST"],
        ["team/s", "v1", "Ann", "<none>", "1.5", "KiB", "abababababab"],
        ["team/s", "latest", "Ann", "<none>", "1.5", "KiB", "abababababab"],
        ["team/s", "<none>", "Ann", "<none>", "1.5", "KiB", "abababababab"],
    ]
    assert peer.made("kits.list") == [{"repository": "team/s"}]


def test_info_prints_the_kitfile(peer, kitctl):
    yaml = "a: é\u00a0👩\u200d🔬\n  b: \x85\u202e\n"
    peer.on("kits.info", {"digest": "sha256:x", "kitfile": {}, "yaml": yaml})
    for encoding in ("utf-8", "latin-1"):
        done = kitctl("info", "r", "--remote", env={"PYTHONIOENCODING": encoding})
        assert done.stdout == yaml
    assert peer.made("kits.info")[-1] == {"reference": "r", "remote": True}


def test_inspect_prints_json_either_way(peer, kitctl):
    answer = {"digest": "sha256:x", "cliVersion": "1", "kitfile": {}, "manifest": {}}
    peer.on("kits.inspect", answer)
    assert json.loads(kitctl("inspect", "r").stdout) == answer
    assert json.loads(kitctl("inspect", "r", "--json").stdout) == answer


def test_why_lists_the_reasons(peer, kitctl):
    peer.on("system.why", {"subject": "s", "reasons": [{"text": "it is held", "since": 1}]})
    assert kitctl("why", "s").stdout == "s:\n  it is held\n"


def test_cache_stats_and_config_and_version(peer, kitctl):
    peer.on("cache.stats", STATUS["cache"])
    peer.on("config.show", {"config": {"workers": {"pack": 2}}})
    peer.on("system.hello", {"protocol": 1, "version": "9.9.9"})
    assert "12.0 KiB   on disk" in kitctl("cache", "stats").stdout
    assert json.loads(kitctl("config", "show").stdout) == {"workers": {"pack": 2}}
    assert "kitd 9.9.9" in kitctl("version").stdout


def test_version_needs_no_daemon(kitctl, tmp_path):
    done = kitctl("version", "--socket", str(tmp_path / "none.sock"))
    assert done.returncode == 0
    assert "kitd is not running" in done.stdout


def test_a_daemon_that_hangs_or_is_none_is_what_doctor_finds(peer, kitctl, answer):
    peer.on("system.hello", answer(silent=True), answer(raw=b"HTTP/1.1 400\n"))
    for words in ("no answer within 5 s", "not JSON"):
        done = kitctl("doctor", "--json")
        found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
        assert (done.returncode, done.stderr) == (1, "")
        assert set(found) == {"connection", "service"}
        assert words in found["connection"]["detail"]
        assert "restart kitd" in found["connection"]["fix"]
        assert "journalctl" in found["service"]["fix"]


def test_versions_are_told_of_what_answers(peer, kitctl, answer):
    peer.on("system.hello", answer(silent=True))
    done = kitctl("version")
    assert (done.returncode, done.stderr) == (0, "")
    ours, other = done.stdout.splitlines()
    assert ours == f"kitctl {__version__}"
    assert "no answer within 5 s" in other


def test_a_socket_that_cannot_be_one_is_told_by_doctor_and_version():
    environ = {"PATH": os.environ["PATH"], "KITD_SOCKET": "x"}
    command = [sys.executable, "-m", "kitd.ctl.main", "--json"]
    (doctor, version) = (
        subprocess.run([*command, word], env=environ, capture_output=True, text=True, check=False)
        for word in ("doctor", "version")
    )
    (check,) = json.loads(doctor.stdout)["checks"]
    assert (doctor.returncode, check["name"], check["ok"]) == (1, "connection", False)
    assert "KITD_SOCKET" in check["detail"]
    assert "--socket PATH" in check["fix"]
    assert json.loads(version.stdout) == {"kitctl": __version__, "kitd": None}


def test_events_are_read_page_by_page_up_to_the_head(peer, kitctl):
    def page(params: dict) -> dict:
        start = params.get("from_seq", 0)
        events = [EVENT | {"seq": seq} for seq in range(start + 1, min(start + 3, 6))]
        return {"events": events, "head_seq": 5, "floor_seq": 1}

    peer.on("events.read", page)
    lines = kitctl("events", "--json").stdout.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [1, 2, 3, 4, 5]
    assert peer.made("events.read") == [{}, {"from_seq": 2}, {"from_seq": 4}]
    text = kitctl("events", "--since", "4").stdout
    assert text == (
        "2026-01-02T03:04:05Z      5  kit.packed       project:sentiment  "
        'digest=sha256:ab note="two words"\n'
    )


def test_following_a_log_ends_with_the_job(peer, kitctl, job, answer, notify):
    first, last = EVENT | {"type": "job.started"}, EVENT | {"seq": 6, "type": "job.succeeded"}
    peer.on("events.subscribe", answer({"subscription": 1}, after=(notify(6, "job.succeeded"),)))
    peer.on("events.unsubscribe", {})
    peer.on("jobs.get", job(state="running"), job())
    peer.on("jobs.log", {"events": [first]}, {"events": [first, last]})
    done = kitctl("jobs", "log", "12", "-f", "--json")
    assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == [5, 6]


def test_a_reader_that_leaves_is_no_error_to_tell(peer, answer, notify):
    many = tuple(notify(seq, "kit.packed") for seq in range(3000))
    peer.on("events.subscribe", answer({"subscription": 1}, after=many))
    line = f"{sys.executable} -m kitd.ctl.main --socket {peer.path} events -f | head -1"
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stderr, done.stdout.count("\n")) == ("", 1)


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_ctrl_c_leaves_the_job_to_the_daemon(peer, job, ended):
    peer.on("kits.pack", {"job": job(state="ready")})
    ended({"state": "running"})
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "kitd.ctl.main", "--socket", str(peer.path)),
            *("pack", "/m", "-t", "r", "--json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: peer.made("jobs.get"), "kitctl never looked at the job")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == "kitctl: job 12 goes on (wait for it with: kitctl jobs wait 12)\n"
    assert json.loads(out)["error"]["code"] == "interrupted"


def test_ctrl_c_ends_a_stream_without_a_word(peer, answer, notify):
    peer.on("events.subscribe", answer({"subscription": 1}, after=(notify(1, "kit.packed"),)))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "kitd.ctl.main", "--socket", str(peer.path)),
            *("events", "-f", "--json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert json.loads(line)["seq"] == 1
    assert (process.returncode, out, err) == (130, "", "")


def on_a_terminal(peer, *words: str, **environ: str) -> tuple[int, str]:
    """Run `kitctl` on a pseudo-terminal and return its exit code and all that it drew."""
    main, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "kitd.ctl.main", "--socket", str(peer.path), *words],
        stdin=side,
        stdout=side,
        stderr=side,
        env={"PATH": os.environ["PATH"], "TERM": "xterm", "COLUMNS": "80", **environ},
    )
    os.close(side)
    drawn = b""
    while select.select([main], [], [], 20)[0]:
        try:
            drawn += os.read(main, 65536)
        except OSError:
            break
    os.close(main)
    return process.wait(20), drawn.decode().replace("\r\n", "\n")


def test_a_terminal_sees_progress_and_then_the_result(peer, answer, job, notify):
    progress = {"job": 12, "phase": "packing", "bytes": 1024, "total": 2048}
    peer.on("kits.pack", {"job": job(state="ready")})
    peer.on(
        "events.subscribe",
        answer(
            {"subscription": 1},
            after=({"method": "$/progress", "params": progress}, notify(9, "job.succeeded")),
        ),
    )
    peer.on("events.unsubscribe", {})
    peer.on("jobs.get", job(state="running"), job(result=PACKED))
    code, drawn = on_a_terminal(peer, "pack", "/m", "-t", "r")
    assert code == 0
    assert "packing  [#######-------]   50%  1.0 of 2.0 KiB" in drawn
    # The line is gone before the result stands in its place.
    assert drawn.split("\r\x1b[K")[-1].startswith("packed team/sentiment:v1@")


@pytest.mark.parametrize(
    ("environ", "words", "coloured"),
    [
        ({}, (), True),
        ({"NO_COLOR": "1"}, (), False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, (), False),
        ({"TERM": "dumb"}, (), False),
        ({"TERM": "dumb", "CLICOLOR_FORCE": "1"}, (), True),
        ({"FORCE_COLOR": "0", "TERM": "dumb"}, (), False),
        ({"FORCE_COLOR": "1"}, ("--json",), False),
    ],
)
def test_colour_is_for_terminals_that_want_it(peer, environ, words, coloured):
    peer.on("system.status", STATUS)
    _, drawn = on_a_terminal(peer, "status", *words, **environ)
    assert ("\x1b[" in drawn) is coloured


def test_a_table_fits_the_terminal(peer, job):
    peer.on("jobs.list", {"jobs": [job(reference="r" * 200)], "as_of_seq": 1})
    _, drawn = on_a_terminal(peer, "jobs", "list", COLUMNS="80", NO_COLOR="1")
    assert max(len(line) for line in drawn.splitlines()) == 80
    assert re.search(r"…r+$", drawn, re.MULTILINE)


def test_a_retry_is_told_on_the_way(peer, kitctl, job, answer, notify):
    error = {"code": "registry_unreachable", "message": "no route to host", "hint": None}
    peer.on("kits.push", {"job": job(state="ready")})
    peer.on(
        "events.subscribe",
        answer(
            {"subscription": 1},
            after=(notify(8, "job.retrying"), notify(9, "job.succeeded")),
        ),
    )
    peer.on("events.unsubscribe", {})
    peer.on(
        "jobs.get",
        job(state="running"),
        job(state="scheduled", error=error),
        job(result=MOVED),
    )
    done = kitctl("push", "r")
    assert done.returncode == 0
    assert done.stderr == ("job 12: attempt 1 of 5 failed, trying again: no route to host\n")


class Kit:
    """One kit of 40 small layers: more than one message can carry descriptors for."""

    digest = "sha256:" + "aa" * 32

    def __init__(self, directory: Path) -> None:
        self.paths: dict[str, Path] = {}
        self.layers = []
        for number in range(40):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as archive:
                member = tarfile.TarInfo(f"models/{number}.bin")
                member.size = 3
                archive.addfile(member, io.BytesIO(b"%03d" % number))
            content = buffer.getvalue()
            digest = "sha256:" + hashlib.sha256(content).hexdigest()
            self.paths[digest] = directory / f"{number}.tar"
            self.paths[digest].write_bytes(content)
            self.layers.append(
                {
                    "digest": digest,
                    "size": len(content),
                    "mediaType": "application/vnd.kitops.modelkit.modelpart.v1.tar",
                    "diffId": digest,
                    "kind": "model",
                    "name": None,
                    "path": f"models/{number}.bin",
                }
            )

    def plan(self, params: dict) -> dict:
        return {
            "digest": self.digest,
            "reference": params["reference"],
            "yaml": "manifestVersion: 1.0.0\n",
            "layers": self.layers,
        }


@pytest.fixture
def kit(peer, answer, tmp_path):
    (tmp_path / "blobs").mkdir()
    kit = Kit(tmp_path / "blobs")
    opened: list[int] = []

    def open_layers(params: dict):
        assert params["digest"] == kit.digest
        assert len(params["layers"]) <= 32
        handles = [os.open(kit.paths[digest], os.O_RDONLY) for digest in params["layers"]]
        opened.extend(handles)
        return answer({"count": len(handles)}, tuple(handles))

    peer.on("kits.plan", kit.plan)
    peer.on("kits.open", open_layers)
    yield kit
    for handle in opened:
        os.close(handle)


def test_unpack_writes_the_files_of_all_layers(peer, kitctl, kit, tmp_path):
    done = kitctl("unpack", "team/s:v1", "-d", str(tmp_path / "out"), "-f", "model", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"digest": kit.digest, "files": 41, "bytes": 120 + 23}
    assert (tmp_path / "out" / "models" / "39.bin").read_bytes() == b"039"
    assert (tmp_path / "out" / "Kitfile").read_text() == "manifestVersion: 1.0.0\n"
    assert peer.made("kits.plan") == [{"reference": "team/s:v1", "filters": ["model"]}]
    assert len(peer.made("kits.open")) == 2


def test_unpack_goes_here_without_a_directory(kitctl, kit, tmp_path):
    (tmp_path / "here").mkdir()
    done = kitctl("unpack", "team/s:v1", cwd=tmp_path / "here")
    assert done.stdout.endswith(f" to {tmp_path / 'here'}: 41 files, 143 B\n")
    assert (tmp_path / "here" / "models" / "0.bin").exists()


def test_unpack_tells_what_is_in_the_way_and_how_to_go_on(kitctl, kit, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "7.bin").write_text("mine")
    done = kitctl("unpack", "team/s:v1", "-d", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == (
        "kitctl: already there: models/7.bin "
        "(--overwrite replaces them, --ignore-existing keeps them)\n"
    )
    assert kitctl("unpack", "team/s:v1", "-d", str(tmp_path), "-i").returncode == 0
    assert (tmp_path / "models" / "7.bin").read_text() == "mine"
    assert kitctl("unpack", "team/s:v1", "-d", str(tmp_path), "-o").returncode == 0
    assert (tmp_path / "models" / "7.bin").read_text() == "007"


def test_unpack_pulls_a_kit_that_the_cache_does_not_have(
    peer, kitctl, kit, job, ended, refusal, tmp_path
):
    peer.on("kits.plan", refusal("not_found"), kit.plan)
    peer.on("kits.pull", {"job": job(state="ready", kind="pull")})
    ended({"kind": "pull", "result": MOVED})
    reference = "registry.example.com/team/s:v1"
    done = kitctl("unpack", reference, "-d", str(tmp_path / "out"), "--json")
    assert json.loads(done.stdout)["files"] == 41
    assert done.stderr == f"pulling {reference}\n"
    assert peer.made("kits.pull") == [{"reference": reference, "parents": False}]


KIT = {"repo": "team/sentiment", "digest": "sha256:" + "ab" * 32, "tags": ["v1"], "size": 1}


@pytest.mark.parametrize(
    ("line", "method", "near"),
    [
        ("projects hold sentimnt", "projects.hold", "sentiment"),
        ("why sentimnt", "system.why", "sentiment"),
        ("inspect team/sentimnt:v1", "kits.inspect", "team/sentiment:v1"),
        ("diff team/sentiment:v1 team/sentiment:v2", "kits.diff", "team/sentiment:v1"),
    ],
)
def test_a_name_that_there_is_not_is_told_with_the_nearest(
    peer, kitctl, refusal, line, method, near
):
    peer.on(method, refusal("not_found", "there is none", "look yourself"))
    peer.on("projects.list", {"projects": [PROJECT]})
    peer.on("kits.list", {"kits": [KIT]})
    peer.on("jobs.list", {"jobs": []})
    done = kitctl(*line.split())
    assert done.stderr == f"kitctl: there is none (did you mean {near}?)\n"
    far = kitctl(*line.replace("sentim", "z" * 12).split())
    assert far.stderr == "kitctl: there is none (look yourself)\n"


@pytest.mark.parametrize("command", ["tag", "push"])
def test_a_name_that_is_to_be_given_is_no_mistake(peer, kitctl, refusal, command):
    peer.on(f"kits.{command}", refusal("not_found", "there is none", "look yourself"))
    peer.on("kits.list", {"kits": [KIT]})
    done = kitctl(command, "other/thing:v1", "team/sentiment:v9")
    assert done.stderr == "kitctl: there is none (look yourself)\n"


def test_unpack_does_not_pull_what_has_no_registry(peer, kitctl, refusal):
    peer.on("kits.plan", refusal("not_found", "no kit team/s:v1"))
    peer.on("kits.list", {"kits": []})
    done = kitctl("unpack", "team/s:v1")
    assert (done.returncode, done.stderr) == (1, "kitctl: no kit team/s:v1\n")
    assert peer.made("kits.pull") == []


def test_quiet_leaves_the_result(peer, kitctl, kit, job, ended, refusal, tmp_path):
    peer.on("kits.plan", refusal("not_found"), kit.plan)
    peer.on("kits.pull", {"job": job(state="ready", kind="pull")})
    ended({"kind": "pull", "result": MOVED})
    done = kitctl("-q", "unpack", "r.example.com/s:v1", "-d", str(tmp_path / "out"))
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.startswith("unpacked ")


@pytest.fixture
def waiting(peer, answer):
    """A layer that is half sent and goes no further."""
    here, there = socket.socketpair()
    content = block_of("model.bin", 10_000)
    there.sendall(len(content).to_bytes(4) + content)
    digest = "sha256:" + "bb" * 32
    layer = {
        "digest": digest,
        "size": 20_480,
        "mediaType": "application/vnd.kitops.modelkit.model.v1.tar",
        "diffId": digest,
        "kind": "model",
        "name": None,
        "path": "model.bin",
        "elsewhere": True,
    }
    plan = {"digest": Kit.digest, "reference": "s:v1", "yaml": None, "layers": [layer]}
    peer.on("kits.plan", plan)
    peer.on("kits.open", answer({"count": 1}, (here.fileno(),)))
    with here, there:
        yield


def block_of(name: str, size: int) -> bytes:
    """Return a tar's header of a file, and half of the file."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf() + bytes(size // 2)


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_an_unpack_that_is_told_to_end_takes_back_what_it_began(peer, tmp_path, number):
    target = tmp_path / "on" / "the" / "way"
    (tmp_path / "on").mkdir()
    command = [sys.executable, "-m", "kitd.ctl.main", "--socket", str(peer.path)]
    kitctl = subprocess.Popen(
        [*command, "unpack", "s:v1", "-d", str(target)], stderr=subprocess.PIPE
    )
    with kitctl:
        deadline_s = time.monotonic() + 30
        while not any(path.stat().st_size for path in target.glob(".kitd-unpack-*/1")):
            assert time.monotonic() < deadline_s
            assert kitctl.poll() is None
            time.sleep(0.01)
        kitctl.send_signal(number)
        _, said = kitctl.communicate(timeout=30)
    assert kitctl.returncode == (130 if number == signal.SIGINT else -number)
    assert b"Traceback" not in said
    assert list((tmp_path / "on").iterdir()) == []


def test_files_that_a_killed_unpack_had_replaced_are_told(kitctl, kit, tmp_path):
    left = tmp_path / "out" / (".kitd-unpack-" + "0" * 16)
    left.mkdir(parents=True, mode=0o700)
    (left / "unpack").write_bytes(mark(left.name, left.stat()))
    (left / "old-1").touch()
    done = kitctl("unpack", "team/s:v1", "-d", str(tmp_path / "out"))
    assert done.returncode == 0
    assert done.stderr.startswith(f"warning: {left} has files that an unpack which was killed")


def test_completion_is_printed(kitctl):
    assert "complete -F _kitctl kitctl" in kitctl("completion", "bash").stdout
