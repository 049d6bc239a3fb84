"""What Prometheus and those who restart services see of a daemon."""

import json
import signal
import socket
import sqlite3
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import pytest

from exposition import parse, value
from kitd.metrics.catalogue import CATALOGUE
from kitd.metrics.server import BOUNDS

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
MANY = 100_000


@pytest.fixture
def watch(kitd, free_address):
    """Make a daemon with `/metrics`, and other settings."""

    def watch(config=None):
        return kitd({"metrics": {"listen": free_address}, **(config or {})})

    return watch


@pytest.fixture
def get(free_address):
    """Ask for a path; returns status, headers and text."""

    def get(path, accept="*/*", method="GET"):
        url = f"http://{free_address}{path}"
        request = urllib.request.Request(url, headers={"Accept": accept}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read().decode()

    return get


@pytest.fixture
def scrape(get):
    """Return what a scrape finds, in numbers of its own."""

    def scrape():
        # Those of a second ago would be shared.
        time.sleep(1.1)
        return parse(get("/metrics")[2])

    return scrape


def test_a_scrape_tells_of_work_and_goes_on_after_a_restart(
    watch, watched, scrape, get, docker_registry, eventually
):
    reference = f"{docker_registry.host}/team/demo"
    daemon = watch(watched(reference)).start()
    daemon.quiet()

    seen = scrape()
    for kind in ("pack", "push"):
        assert value(seen, "kitd_jobs_total", kind=kind, state="succeeded") == 1
    samples = seen["kitd_job_duration_seconds"].samples
    labels = frozenset({("kind", "push"), ("outcome", "succeeded")})
    assert samples["kitd_job_duration_seconds_count", labels] == 1
    assert value(seen, "kitd_pack_layers_total", how="built") == 2
    sent = value(seen, "kitd_registry_sent_bytes_total", registry=docker_registry.host)
    blobs = sum(
        path.stat().st_size for path in (daemon.cache / "blobs").rglob("*") if path.is_file()
    )
    assert blobs <= sent < 2 * blobs
    assert value(seen, "kitd_transfer_bytes_total", kind="push", how="sent") <= sent
    answers = seen["kitd_registry_requests_total"].samples
    assert {dict(labels)["registry"] for _, labels in answers} == {docker_registry.host}
    assert value(seen, "kitd_ready") == 1
    assert value(seen, "kitd_starts_total") == 1
    named = {metric.name: metric for metric in CATALOGUE}
    for name, family in seen.items():
        assert (family.kind, family.help) == (named[name].kind, named[name].help.replace("\n", " "))
        for _, labels in family.samples:
            assert {label for label, _ in labels} - {"le"} == set(named[name].labels)

    assert daemon.stop() == 0
    daemon.start()
    again = scrape()
    assert value(again, "kitd_starts_total") == 2
    assert value(again, "kitd_jobs_total", kind="push", state="succeeded") == 1
    assert value(again, "kitd_pack_layers_total", how="built") == 0
    assert value(again, "kitd_events_total") > value(seen, "kitd_events_total")

    def project_is_seen():
        return value(scrape(), "kitd_projects", state="idle") == 1

    eventually("the project to be looked at", project_is_seen)
    status, headers, text = get("/metrics", OPENMETRICS)
    assert status == 200
    assert headers["Content-Type"].startswith(OPENMETRICS.replace(";", "; "))
    everything = parse(text, openmetrics=True)
    shown = {
        f"{name}_total" if family.kind == "counter" else name for name, family in everything.items()
    }
    # What is about things that this daemon has not got, or that have not happened.
    assert {metric.name for metric in CATALOGUE} - shown == {
        "kitd_degraded",
        "kitd_job_duration_seconds",
        "kitd_transfer_bytes_total",
        "kitd_registry_requests_total",
        "kitd_registry_retries_total",
        "kitd_registry_sent_bytes_total",
        "kitd_registry_received_bytes_total",
        "kitd_mirror_edges_total",
        "kitd_mirror_tags",
        "kitd_mirror_last_equal_timestamp_seconds",
        "kitd_webhook_deliveries_total",
        "kitd_notification_lag_events",
        "kitd_notification_failures",
        "kitd_notification_dropped_total",
    }


def test_nothing_that_grows_is_a_label(watch, watched, scrape, project, docker_registry):
    """Neither digests nor references nor jobs nor users, whatever kitd does with them."""
    daemon = watch(watched(f"{docker_registry.host}/secret-team/demo")).start()
    daemon.quiet()
    daemon.kitctl("pull", f"{docker_registry.host}/secret-team/absent:v1")
    digest = daemon.project()["last_digest"]

    seen = scrape()
    values = {
        text for family in seen.values() for _, labels in family.samples for _, text in labels
    }
    for told in values:
        assert "secret-team" not in told
        assert digest.partition(":")[2][:12] not in told
        assert str(project) not in told


def test_the_probes(watch, get, free_address):
    daemon = watch().start()
    assert get("/healthz")[::2] == (200, "ok\n")
    assert get("/readyz")[::2] == (200, "ready\n")
    status, headers, text = get("/readyz", "application/json")
    assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    assert json.loads(text) == {"state": "ready", "reasons": {}}
    host, _, port = free_address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        # One list, though in several lines.
        accept = "Accept: text/plain;q=0.1\r\nAccept: application/json\r\n"
        client.sendall(f"GET /healthz HTTP/1.0\r\n{accept}\r\n".encode())
        assert b"application/json" in client.makefile("rb").read()
    assert get("/readyz", method="HEAD")[::2] == (200, "")
    assert get("/readyz", method="POST")[0] == 405
    assert get("/elsewhere")[0] == 404
    logged = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    (ready,) = (line for line in logged if line["event"] == "daemon.ready")
    assert ready["metrics"] == free_address
    assert "not_acted_upon" not in daemon.log.read_text()
    assert daemon.stop() == 0


def test_what_hinders_kitd_is_told_by_its_code(watch, get, eventually, tmp_path):
    """In the body of an answer that is good all the same, and without a path or a name."""
    gone = tmp_path / "gone"
    project = {"path": str(gone), "reference": "localhost/demo", "push": False}
    watch({"projects": {"demo": project}}).start()

    eventually("the look that finds it", lambda: "project_blocked" in get("/readyz")[2])
    assert get("/readyz")[::2] == (200, "degraded\nproject_blocked 1\n")


def test_a_stop_is_told_while_it_lasts(watch, get, kitd, watched, eventually, slow_stop):
    """Whoever routes requests sees it coming."""
    daemon = watch().start()
    with slow_stop(daemon):
        daemon.process.send_signal(signal.SIGTERM)
        eventually("kitd to say that it stops", lambda: get("/readyz")[::2] == (503, "stopping\n"))
        assert get("/healthz")[0] == 200
        assert value(parse(get("/metrics")[2]), "kitd_ready") == 0
    assert daemon.process.wait(timeout=30) == 0


@pytest.fixture
def slow_stop():
    """Hold up a daemon's stop: a call is in flight whose answer nobody reads."""

    @contextmanager
    def slow_stop(daemon):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(daemon.socket))
            call = {"jsonrpc": "2.0", "id": 1, "method": "system.discover", "params": {}}
            client.sendall((json.dumps(call) + "\n").encode() * 200)
            yield

    return slow_stop


def test_readers_that_are_slow_or_many_hold_up_nobody(watch, get, free_address, eventually):
    watch().start()
    host, _, port = free_address.rpartition(":")
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda _: get("/metrics")[2], range(200)))
    assert all(parse(text) for text in texts)
    crowd = []

    def is_alive():
        # Of those that there is no place for, not all are told.
        with suppress(OSError):
            return get("/healthz")[0] == 200

    try:
        for number in range(BOUNDS.connections):
            crowd.append(socket.create_connection((host, int(port))))
            if number % 2:
                crowd[-1].sendall(b"GET /metrics HT")
        eventually("one that says nothing to leave", is_alive)
        for _ in range(BOUNDS.connections + 8):
            client = socket.create_connection((host, int(port)))
            # Answers that nobody reads.
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
            crowd.append(client)
        eventually("one that reads nothing to leave", is_alive)
    finally:
        for client in crowd:
            client.close()
    eventually("a place", is_alive)


def test_a_ledger_with_many_jobs_makes_no_scrape_slow(watch, get, scrape):
    """With 100,000 jobs that wait, and while kitd answers others."""
    daemon = watch({"workers": {"pull": 1}}).start()
    assert daemon.stop() == 0
    row = (
        "INSERT INTO jobs (kind, lane, key, lock, state, args, priority, max_attempts, run_at_us,"
        " created_us) VALUES ('pull', 'pull', ?, 'one', 'scheduled', ?, 0, 3, ?, 1)"
    )
    due_us = time.time_ns() // 1000 + 3_000_000_000
    with closing(sqlite3.connect(daemon.place / "state" / "ledger.sqlite3")) as ledger, ledger:
        ledger.executemany(row, ((f"k{n}", b"x" * 500, due_us) for n in range(MANY)))
    daemon.start()

    took_s = []
    for _ in range(5):
        time.sleep(1.1)
        began_s = time.monotonic()
        seen = parse(get("/metrics")[2])
        took_s.append(time.monotonic() - began_s)
    assert value(seen, "kitd_queue_jobs", lane="pull", state="scheduled") == MANY
    assert sorted(took_s)[len(took_s) // 2] < 0.5
    lag = seen["kitd_loop_lag_seconds"].samples
    late = {dict(labels).get("le"): count for (_, labels), count in lag.items()}
    assert late["0.25"] == late["+Inf"] > 0
