"""The main story: save a file, find the kit in the registry."""

import hashlib
import json
import os
import time


def raw(skopeo, host, name, tag="latest"):
    """Return the manifest's bytes as skopeo reads them from a registry."""
    return skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{host}/{name}:{tag}")


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def tags(skopeo, host, name):
    """Return a repository's tags as skopeo lists them."""
    listed = skopeo("list-tags", "--tls-verify=false", f"docker://{host}/{name}")
    return set(json.loads(listed)["Tags"])


def test_a_saved_file_becomes_a_kit_in_the_registry(
    kitd, watched, project, docker_registry, skopeo
):
    """The kit that skopeo finds is the one that kitctl tells of, with every configured tag."""
    name = f"{docker_registry.host}/team/demo"
    daemon = kitd(watched(name, tags=["latest", "{package.version}", "{digest:12}"])).start()
    first = daemon.quiet()
    manifest = raw(skopeo, docker_registry.host, "team/demo")

    assert first["last_digest"] == digest(manifest)
    assert json.loads(manifest)["artifactType"].startswith("application/vnd.kitops.modelkit.")

    (project / "data" / "b.csv").write_text("text,label\nbad,0\n")
    second = daemon.quiet()
    deadline = time.monotonic() + 30
    while second["last_digest"] == first["last_digest"] and time.monotonic() < deadline:
        second = daemon.quiet()

    assert second["last_digest"] == digest(raw(skopeo, docker_registry.host, "team/demo"))
    short = [d["last_digest"].removeprefix("sha256:")[:12] for d in (first, second)]
    assert tags(skopeo, docker_registry.host, "team/demo") == {"latest", "0.1.0", *short}


def test_ten_saves_in_a_row_make_one_kit(kitd, watched, project, docker_registry, eventually):
    """A burst settles into one pack and one push."""
    daemon = kitd(watched(f"{docker_registry.host}/team/demo")).start()
    first = daemon.quiet()
    for number in range(10):
        (project / "data" / "a.csv").write_text(f"text,label\nsave {number},1\n")
        time.sleep(0.05)
    eventually("the second kit", lambda: daemon.quiet()["last_digest"] != first["last_digest"])

    assert [job["state"] for job in daemon.jobs("pack")] == ["succeeded"] * 2
    assert [job["state"] for job in daemon.jobs("push")] == ["succeeded"] * 2


def test_touching_a_file_makes_no_kit(kitd, watched, project, docker_registry, skopeo, eventually):
    """New times and equal content: no new version, no new tag, no push."""
    daemon = kitd(watched(f"{docker_registry.host}/team/demo", tags=["v-{time}"])).start()
    before = daemon.quiet()
    named = tags(skopeo, docker_registry.host, "team/demo")
    os.utime(project / "model.bin")
    looked = eventually(
        "kitd to look at the touched file",
        lambda: [job for job in daemon.jobs("pack")[:-1] if job["state"] == "succeeded"],
    )

    assert looked[0]["result"]["unchanged"] is True
    assert daemon.quiet()["last_digest"] == before["last_digest"]
    assert daemon.quiet()["last_packed"] == before["last_packed"]
    assert len(daemon.jobs("push")) == 1
    assert tags(skopeo, docker_registry.host, "team/demo") == named


def test_going_back_to_an_old_version_names_the_old_kit_again(
    kitd, watched, project, docker_registry, skopeo, eventually
):
    """Content that was packed before is the kit that it was, and latest follows it."""
    daemon = kitd(watched(f"{docker_registry.host}/team/demo")).start()
    file = project / "data" / "a.csv"
    old_content, old = file.read_text(), daemon.quiet()["last_digest"]
    file.write_text("something else\n")
    eventually("the new version", lambda: daemon.quiet()["last_digest"] != old)
    file.write_text(old_content)
    eventually("the old version", lambda: daemon.quiet()["last_digest"] == old)

    assert digest(raw(skopeo, docker_registry.host, "team/demo")) == old


def test_a_restart_catches_what_changed_meanwhile(
    kitd, watched, project, docker_registry, skopeo, eventually
):
    """A change while kitd is down is packed at the next start; no change is not."""
    daemon = kitd(watched(f"{docker_registry.host}/team/demo")).start()
    first = daemon.quiet()
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.quiet()["last_digest"] == first["last_digest"]
    assert len(daemon.jobs("pack")) == 1
    assert daemon.stop() == 0

    (project / "data" / "while-away.csv").write_text("x\n")
    daemon.start()
    eventually("the change", lambda: daemon.quiet()["last_digest"] != first["last_digest"])
    latest = raw(skopeo, docker_registry.host, "team/demo")
    assert digest(latest) == daemon.quiet()["last_digest"]


def test_the_cache_is_an_image_layout_that_skopeo_reads_in_place(
    kitd, watched, docker_registry, skopeo, eventually
):
    """`oci:<cache>:<reference>` names the same manifest as the registry does."""
    name = f"{docker_registry.host}/team/demo"
    daemon = kitd(watched(name)).start()
    daemon.quiet()
    index = daemon.cache / "index.json"
    eventually("the index", lambda: name in index.read_text())

    local = skopeo("inspect", "--raw", f"oci:{daemon.cache}:{name}:latest")
    assert local == raw(skopeo, docker_registry.host, "team/demo")


def test_two_projects_share_the_layer_of_an_equal_dataset(
    kitd, project, new_project, tmp_path, docker_registry
):
    """The cache holds it once; kitctl and the disk agree on every byte."""
    other = new_project(tmp_path / "other")
    (other / "model.bin").write_bytes(b"another model" * 1000)
    settle = {"quiet": "500ms"}
    daemon = kitd(
        {
            "projects": {
                name: {
                    "path": str(path),
                    "reference": f"{docker_registry.host}/team/{name}",
                    "settle": settle,
                }
                for name, path in (("demo", project), ("other", other))
            }
        }
    ).start()
    daemon.quiet("demo")
    daemon.quiet("other")
    layers = [
        {layer["mediaType"]: layer["digest"] for layer in job["result"]["layers"]}
        for job in daemon.jobs("pack")
    ]
    dataset = "application/vnd.kitops.modelkit.dataset.v1.tar"
    stats = daemon.json("cache", "stats")
    blobs = [path for path in (daemon.cache / "blobs").rglob("*") if path.is_file()]
    shared = daemon.cache / "blobs" / "sha256" / layers[0][dataset].removeprefix("sha256:")

    assert layers[0][dataset] == layers[1][dataset]
    assert stats["blobs"] == len(blobs)
    assert stats["physical_bytes"] == sum(path.stat().st_size for path in blobs)
    assert stats["shared_bytes"] == shared.stat().st_size
    assert stats["logical_bytes"] == stats["physical_bytes"] + stats["shared_bytes"]
    assert stats["evictable_bytes"] == 0


def test_any_oci_tool_pulls_from_kitds_own_registry(
    kitd, watched, docker_registry, skopeo, tmp_path
):
    """What was packed for a registry is served under that registry's name, byte for byte."""
    config = watched(f"{docker_registry.host}/team/demo")
    config["registry"] = {"listen": "127.0.0.1:0"}
    daemon = kitd(config).start()
    kit = daemon.quiet()["last_digest"]
    ready = next(
        line
        for line in map(json.loads, daemon.log.read_text().splitlines())
        if line["event"] == "daemon.ready"
    )
    host = docker_registry.host.replace(":", "_")
    copied = tmp_path / "copied"
    skopeo(
        "copy",
        "--src-tls-verify=false",
        f"docker://{ready['registry']}/{host}/team/demo:latest",
        f"dir:{copied}",
    )

    assert digest((copied / "manifest.json").read_bytes()) == kit
