"""Names of kits, given and taken away by a person: in the cache, and in registries."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from kitd.client import Client, request
from kitd.oci.digest import digest_of
from kitd.oci.media_type import OCI_INDEX


def pack(daemon, project, name):
    return daemon.json("pack", project, "-t", name)["digest"]


def names(daemon, *repository):
    return {kit["repo"]: kit["tags"] for kit in daemon.json("list", *repository)}


def test_a_kit_gets_a_name_in_a_registry_and_is_pushed_under_it(kitd, project, docker_registry):
    """As with kit: `tag` is local, and `push` follows."""
    daemon = kitd().start()
    digest = pack(daemon, project, "demo:v1")
    there = f"{docker_registry.host}/team/demo"
    said = daemon.kitctl("tag", "demo:v1", f"{there}:v1,latest")
    assert said.out.splitlines() == [
        f"tagged demo:v1 as {there}:v1",
        f"tagged demo:v1 as {there}:latest",
    ]
    assert daemon.json("push", f"{there}:latest")["digest"] == digest
    assert names(daemon) == {"demo": ["v1"], there: ["latest", "v1"]}


def test_remove_tells_what_can_be_collected(kitd, project):
    daemon = kitd().start()
    pack(daemon, project, "demo:v1,stable")
    assert daemon.kitctl("remove", "demo:stable").out.splitlines() == [
        "untagged demo:stable",
        "nothing more can be collected",
    ]
    removed = daemon.json("remove", "demo:v1")
    blobs = sum(path.stat().st_size for path in (daemon.cache / "blobs/sha256").iterdir())
    assert removed["collectable_bytes"] == blobs
    assert names(daemon) == {}
    refused = daemon.kitctl("remove", "demo:v1")
    assert (refused.code, "not in the cache" in refused.err) == (1, True)
    assert daemon.kitctl("remove").code == 2
    assert daemon.kitctl("remove", "demo:v1", "--all").code == 2


def test_remove_all_takes_kits_that_no_tag_names(kitd, project):
    daemon = kitd().start()
    first = pack(daemon, project, "demo:v1")
    (project / "model.bin").write_bytes(b"other weights")
    pack(daemon, project, "demo:v1")
    said = daemon.kitctl("remove", "--all")
    assert said.out.splitlines()[0] == f"removed demo@{first}"
    assert said.out.endswith("can be collected (kitctl cache gc)\n")
    assert names(daemon) == {"demo": ["v1"]}
    daemon.json("remove", "--all", "--force")
    assert names(daemon) == {}
    assert daemon.kitctl("remove", "--all").out == "nothing to remove\n"


def test_a_registry_that_takes_no_tags_away_is_not_made_to_delete_a_kit(
    kitd, project, docker_registry
):
    """Debian's docker-registry deletes manifests only: that is said, and done when asked for."""
    daemon = kitd().start()
    there = f"{docker_registry.host}/team/demo"
    digest = daemon.json("pack", project, "-t", f"{there}:v1", "--push")["digest"]
    refused = daemon.kitctl("remove", "--remote", f"{there}:v1")
    assert refused.code == 1
    assert f"kitctl remove --remote --force {there}:v1 deletes {digest}" in refused.err
    assert daemon.kitctl("inspect", "--remote", f"{there}:v1").code == 0

    said = daemon.kitctl("remove", "--remote", "--force", f"{there}:v1")
    assert said.out == f"removed {there}:v1 ({digest[7:19]})\n"
    assert daemon.kitctl("inspect", "--remote", f"{there}:v1").code == 1
    assert names(daemon) == {there: ["v1"]}, "the cache is another thing"


def test_a_tag_goes_alone_where_the_registry_can(kitd, project, free_address):
    """kitd's own registry takes tags away."""
    serving = kitd({"registry": {"listen": free_address}}).start()
    daemon = kitd().start()
    there = f"{free_address}/team/demo"
    digest = daemon.json("pack", project, "-t", f"{there}:v1", "--push")["digest"]
    said = daemon.kitctl("remove", "--remote", f"{there}:v1")
    assert said.out == f"untagged {there}:v1\n"
    assert daemon.json("inspect", "--remote", f"{there}@{digest}")["digest"] == digest
    daemon.json("remove", "--remote", f"{there}@{digest}")
    assert names(serving) == {}


def test_of_several_tags_one_that_is_not_there_is_told_before_any_goes(kitd, project, free_address):
    kitd({"registry": {"listen": free_address}}).start()
    daemon = kitd().start()
    there = f"{free_address}/team/demo"
    daemon.json("pack", project, "-t", f"{there}:a,b", "--push")
    refused = daemon.kitctl("remove", "--remote", f"{there}:a,absent")
    assert (refused.code, "absent" in refused.err) == (1, True)
    assert daemon.kitctl("inspect", "--remote", f"{there}:a").code == 0
    said = daemon.kitctl("remove", "--remote", f"{there}:a,b")
    assert said.out.splitlines() == [f"untagged {there}:a", f"untagged {there}:b"]


class Balky(BaseHTTPRequestHandler):
    """A registry of one manifest that has all tags, and takes only the tag `a` away."""

    protocol_version = "HTTP/1.1"
    manifest = b'{"schemaVersion":2,"mediaType":"%s","manifests":[]}' % OCI_INDEX.encode()

    def do_GET(self):
        self.answer(200, self.manifest if "/manifests/" in self.path else b"{}")

    def do_HEAD(self):
        self.do_GET()

    def do_DELETE(self):
        self.answer(202 if self.path.endswith("/a") else 403, b"")

    def answer(self, status, content):
        self.send_response(status)
        self.send_header("Content-Type", OCI_INDEX)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Docker-Content-Digest", digest_of(self.manifest))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_arguments):
        pass


def test_a_removal_that_fails_on_its_way_tells_what_went(kitd):
    with ThreadingHTTPServer(("127.0.0.1", 0), Balky) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            daemon = kitd().start()
            there = f"127.0.0.1:{server.server_port}/team/demo"
            refused = daemon.kitctl("--json", "remove", "--remote", f"{there}:a,b").json["error"]
            daemon.stop()
        finally:
            server.shutdown()
    assert refused["code"] == "partly_removed"
    assert f"{there}:a went before {there}:b: " in refused["message"]


def test_the_same_call_again_removes_nothing_more(kitd, project):
    """By its key; a call with another key finds nothing."""
    daemon = kitd().start()
    pack(daemon, project, "demo:v1,v2")
    with Client.connect(daemon.socket) as client:
        asked = request.remove_kit("demo:v1", idempotency_key="once")
        assert client.call(asked) == client.call(asked)
    assert names(daemon) == {"demo": ["v2"]}


def test_a_waiting_push_goes_on_though_its_name_is_gone(kitd, project, free_address):
    """Another repository has the kit, so that nobody was kept from removing the name."""
    daemon = kitd().start()
    digest = pack(daemon, project, "demo:v1")
    daemon.json("tag", "demo:v1", "other:v1")
    there = f"{free_address}/team/demo:v1"
    job = str(daemon.json("push", "demo:v1", there, "--detach")["job"])
    daemon.json("remove", "demo:v1")
    refused = daemon.kitctl("remove", "other:v1")
    assert (refused.code, f"needed by job {job}" in refused.err) == (1, True)
    kitd({"registry": {"listen": free_address}}).start()
    # It would wait for a while, and need not.
    daemon.json("jobs", "cancel", job)
    daemon.json("jobs", "retry", job)
    assert daemon.kitctl("jobs", "wait", job).code == 0
    assert daemon.json("inspect", there, "--remote")["digest"] == digest
