"""What goes wrong outside of kitd: one clear line each, the right state, nothing half done."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


def leftovers(daemon):
    """Return the temporary files in the cache."""
    return list((daemon.cache / "ingest").iterdir())


def test_a_broken_kitfile_blocks_until_it_is_mended(
    kitd, watched, project, docker_registry, eventually
):
    """The project says what is wrong and where; mending it is all that is needed."""
    kitfile = project / "Kitfile"
    good = kitfile.read_text()
    kitfile.write_text(good.replace("model:", "modell:"))
    daemon = kitd(watched(f"{docker_registry.host}/team/demo")).start()
    blocked = eventually(
        "the project to be blocked",
        lambda: (p := daemon.project())["state"] == "blocked" and p,
    )

    assert "Kitfile:3:1" in blocked["reason"]
    assert "did you mean 'model'" in blocked["reason"]
    assert daemon.jobs() == []
    assert daemon.json("status")["daemon"]["state"] == "degraded"
    why = daemon.json("why", "demo")
    assert "did you mean 'model'" in json.dumps(why["reasons"])

    kitfile.write_text(good)
    assert daemon.quiet()["last_digest"]


@pytest.mark.parametrize(
    ("kitfile", "says"),
    [
        ("manifestVersion: 1.0.0\nmodel:\n\tpath: m\n", "tab"),
        ("manifestVersion: 1.0.0\ncode: [{path: x}]\ndocs: [{path: x}]\n", "same path"),
        ("manifestVersion: 1.0.0\ncode: [{path: /etc}]\n", "absolute"),
        ("manifestVersion: 1.0.0\ncode: [{path: ../x}]\n", "outside"),
        ("manifestVersion: 1.0.0\ncode: [{path: nowhere}]\n", "does not exist"),
    ],
    ids=["tab", "duplicate", "absolute", "escaping", "missing"],
)
def test_kitctl_pack_says_what_is_wrong_with_a_kitfile(kitd, project, kitfile, says):
    """The job fails at once, the command too, on one line."""
    (project / "Kitfile").write_text(kitfile)
    daemon = kitd().start()
    answer = daemon.kitctl("pack", project, "-t", "demo:v1")

    assert answer.code == 1
    assert says in answer.err
    assert "Traceback" not in answer.err
    assert [job["state"] for job in daemon.jobs()] == ["failed"]
    assert leftovers(daemon) == []
    assert daemon.json("list") == []


def test_a_missing_project_directory_blocks_until_it_is_there(
    kitd, watched, project, docker_registry, eventually
):
    """Watching begins when the directory appears."""
    away = project.rename(project.with_name("away"))
    daemon = kitd(watched(f"{docker_registry.host}/team/demo")).start()
    blocked = eventually(
        "the project to be blocked",
        lambda: (p := daemon.project())["state"] == "blocked" and p,
    )

    assert str(project) in blocked["reason"]

    away.rename(project)
    assert daemon.quiet()["last_digest"]


def test_a_typo_in_the_configuration_is_refused_with_its_place(kitd, watched):
    """Exit code 78, file, line and the key that was meant."""
    config = watched("registry.example.com/team/demo")
    config["projects"]["demo"]["settel"] = config["projects"]["demo"].pop("settle")
    daemon = kitd(config).start(ready=False)

    assert daemon.process.wait(timeout=30) == 78
    said = daemon.log.read_text()
    assert "kitd.yaml:1:" in said
    assert "settle" in said
    assert "Traceback" not in said


def test_a_second_kitd_on_the_same_state_is_refused(kitd):
    """It names the first one and leaves it alone."""
    first = kitd().start()
    second = kitd()
    second.config["state_dir"] = str(first.place / "state")
    second.start(ready=False)

    assert second.process.wait(timeout=30) == 75
    assert f"pid {first.process.pid}" in second.log.read_text()
    assert first.kitctl("status").code == 0


def test_a_registry_that_is_down_is_tried_again(
    kitd, watched, start_docker_registry, eventually, skopeo, free_address
):
    """The push waits with the reason, and succeeds once the registry is there."""
    daemon = kitd(watched(f"{free_address}/team/demo")).start()
    waiting = eventually(
        "the push to back off",
        lambda: [job for job in daemon.jobs("push") if job["error"]],
    )[0]

    assert waiting["state"] in ("scheduled", "ready", "running")
    assert waiting["error"]["code"] == "registry_unreachable"
    assert free_address in waiting["error"]["message"]
    assert daemon.project()["last_digest"]

    start_docker_registry(http={"addr": free_address})
    daemon.kitctl("jobs", "retry", waiting["id"])
    daemon.quiet()
    skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{free_address}/team/demo:latest")


def test_refused_credentials_fail_with_a_hint(
    kitd, watched, docker_registry_with_login, eventually
):
    """No endless knocking: the job fails and says how to log in."""
    host = docker_registry_with_login.host
    daemon = kitd(watched(f"{host}/team/demo")).start()
    failed = eventually(
        "the push to fail", lambda: [j for j in daemon.jobs("push") if j["state"] == "failed"]
    )[0]

    assert failed["error"]["code"] == "registry_denied"
    assert host in failed["error"]["message"]
    assert "login" in failed["error"]["hint"]
    assert daemon.project()["state"] == "blocked"


def test_credentials_from_a_file_are_used_and_never_shown(
    kitd, watched, docker_registry_with_login, tmp_path
):
    """The push succeeds; the password is in no log, no event, no answer and not in the ledger."""
    registry = docker_registry_with_login
    secret = tmp_path / "secret"
    secret.write_text(registry.password + "\n")
    config = watched(f"{registry.host}/team/demo")
    config["registries"] = {
        registry.host: {
            "credentials": {"username": registry.username, "password_file": str(secret)}
        }
    }
    daemon = kitd(config).start()
    daemon.quiet()
    shown = daemon.kitctl("--json", "events").out + daemon.kitctl("config", "show").out
    daemon.stop()

    assert registry.password not in shown
    for path in (daemon.place / "state").rglob("*"):
        if path.is_file():
            assert registry.password.encode() not in path.read_bytes(), path
    assert registry.password not in daemon.log.read_text()


class HtmlPage(BaseHTTPRequestHandler):
    """A login page where a registry should be."""

    def answer(self):
        page = b"<html><head><title>Please log in</title></head></html>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page)

    do_HEAD = do_GET = answer  # noqa: N815 - the names that http.server calls

    def log_message(self, *_):
        pass


@pytest.fixture
def html_host():
    """The address of a server that answers everything with a page."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), HtmlPage)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_page_instead_of_a_registry_is_called_that(kitd, project, html_host):
    """One line that says what answered, and asks whether it is a registry at all."""
    daemon = kitd().start()
    answer = daemon.kitctl("pull", f"{html_host}/team/demo:v1")

    assert answer.code == 1
    assert "it answered with an HTML page" in answer.err
    assert f"is {html_host} really a registry" in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_a_cache_that_is_gone_is_told_by_status(kitd):
    """Whoever asks how kitd is hears what is wrong, and not only that he cannot be answered."""
    daemon = kitd().start()
    daemon.cache.rename(daemon.place / "elsewhere")
    status = daemon.json("status")
    assert status["cache"] is None
    assert any(str(daemon.cache) in reason for reason in status["degraded"])
    shown = daemon.kitctl("status")
    assert shown.code == 0
    assert f"degraded: {daemon.cache} cannot be looked at" in shown.out
    (daemon.place / "elsewhere").rename(daemon.cache)
    assert daemon.json("status")["cache"]["blobs"] == 0


def test_a_full_disk_fails_the_attempt_and_publishes_nothing(kitd, project, mount_disk, eventually):
    """The job says so and comes back by itself once there is room; no part of a kit is named."""
    small_disk = mount_disk("16m")
    with (project / "model.bin").open("r+b") as file:
        file.truncate(32 << 20)
    daemon = kitd({"cache": {"dir": str(small_disk / "cache")}}).start()
    job = int(daemon.kitctl("pack", project, "-t", "demo:v1", "--detach").out)
    waiting = eventually(
        "the attempt to fail",
        lambda: (j := daemon.json("jobs", "show", job))["error"] and j,
    )

    assert waiting["error"]["code"] == "no_space"
    assert str(small_disk) in waiting["error"]["message"]
    assert list((small_disk / "cache" / "ingest").iterdir()) == []
    assert daemon.json("list") == []

    with (project / "model.bin").open("r+b") as file:
        file.truncate(1 << 20)
    assert daemon.kitctl("jobs", "wait", job).code == 0
    assert daemon.json("list")[0]["tags"] == ["v1"]


def test_a_disk_that_others_filled_up_while_kitd_was_away_does_not_keep_it_away(kitd, mount_disk):
    """It starts with what its last life kept back for that."""
    disk = mount_disk("48m")
    daemon = kitd({"state_dir": str(disk / "state")}).start()
    daemon.stop()
    for name in ("state/reserve", "others"):
        with (disk / name).open("wb") as file:
            room = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            os.posix_fallocate(file.fileno(), 0, 16 << 20 if name == "state/reserve" else room)
    daemon.start()
    assert not (disk / "state" / "reserve").exists()
