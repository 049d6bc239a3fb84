"""A project that is defined anew while a pack of it runs."""

import os


def test_new_tags_are_given_although_a_pack_under_the_old_ones_is_running(
    kitd, project, docker_registry, eventually
):
    """What the old pack made has the same content, and is no reason to leave the new tag out."""
    os.truncate(project / "model.bin", 400 << 20)
    name = f"{docker_registry.host}/team/demo"
    daemon = kitd().start()
    daemon.kitctl("projects", "add", "demo", project, "-t", f"{name}:old")
    eventually("the pack to run", lambda: any(j["state"] == "running" for j in daemon.jobs("pack")))
    daemon.kitctl("projects", "add", "demo", project, "-t", f"{name}:new")
    assert daemon.jobs("pack")[0]["state"] == "running"

    (kit,) = eventually(
        "the new tag", lambda: [k for k in daemon.json("list") if "new" in k["tags"]], 15
    )
    assert sorted(kit["tags"]) == ["new", "old"]
