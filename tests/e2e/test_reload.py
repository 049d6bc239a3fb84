"""A new configuration while kitd runs: all of it, or nothing of it and the reasons."""

import json
import signal

import pytest


@pytest.fixture
def edit():
    """Change the configuration file of a daemon; what is None is taken out."""

    def write(daemon, **changes):
        path = daemon.place / "kitd.yaml"
        config = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in config.items() if value != {}}))

    return write


def events(daemon, kind):
    """Return the data of the events of a kind, in order."""
    lines = daemon.kitctl("--json", "events").out.splitlines()
    found = [json.loads(line) for line in lines]
    return [event["data"] for event in found if event["type"] == kind]


def names(daemon):
    return [project["name"] for project in daemon.json("projects", "list")]


def test_what_changed_is_in_force_at_once(kitd, new_project, tmp_path, edit, eventually):
    """Projects come, change and go as at a restart; what was added by hand stays."""
    for name in ("first", "second", "third", "byhand"):
        new_project(tmp_path / name)

    def watch(name, **settings):
        return {
            "path": str(tmp_path / name),
            "reference": f"127.0.0.1:9/team/{name}",
            "push": False,
            "settle": {"quiet": "200ms"},
            **settings,
        }

    daemon = kitd({"projects": {"first": watch("first"), "second": watch("second")}}).start()
    assert daemon.kitctl("projects", "add", "byhand", tmp_path / "byhand", "-t", "b:v1").code == 0
    eventually("the first kits", lambda: daemon.project("first")["last_digest"])

    edit(
        daemon,
        projects={"first": watch("first", tags=["other"]), "third": watch("third")},
        log={"format": "json", "level": "debug"},
        workers={"pack": 1},
        cache={"use_at_most": "1GiB"},
        registries={"127.0.0.1:9": {"credentials": "anonymous"}},
    )
    answer = daemon.kitctl("reload")

    assert answer.code == 0, answer.err
    for key in ("projects.first", "projects.second", "projects.third", "log.level", "workers.pack"):
        assert key in answer.out
    assert names(daemon) == ["byhand", "first", "third"]
    assert daemon.json("config", "show")["cache"]["use_at_most"] == "1GiB"
    eventually("the new project's kit", lambda: daemon.project("third")["last_digest"])
    eventually(
        "the new tag", lambda: daemon.kitctl("info", "127.0.0.1:9/team/first:other").code == 0
    )
    (said,) = events(daemon, "config.reloaded")
    assert "projects.third" in said["changed"]
    assert daemon.kitctl("reload").out.strip() == "nothing changed"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"workers": {"pack": "many"}, "log": {"level": "loud"}}, ["workers.pack", "log.level"]),
        ({"rpc": {"access": [{"group": "nobody-has-this", "role": "read"}]}}, ["nobody-has-this"]),
        ({"state_dir": "/nowhere/else", "workers": {"pack": 7}}, ["state_dir", "restart"]),
        ({"registry": {"listen": "127.0.0.1:0"}}, ["registry.listen", "restart"]),
    ],
    ids=["wrong", "group", "place", "listener"],
)
def test_a_configuration_that_cannot_be_applied_changes_nothing(kitd, edit, changes, says):
    """Every problem is told, by the command and by the events; the old one stays in force."""
    daemon = kitd().start()
    before = daemon.json("config", "show")

    edit(daemon, **changes)
    answer = daemon.kitctl("reload")

    assert answer.code == 1
    assert all(word in answer.err for word in says), answer.err
    assert daemon.json("config", "show") == before
    (rejected,) = events(daemon, "config.rejected")
    assert all(word in " ".join(rejected["problems"]) for word in says)


def test_a_hangup_reloads(kitd, edit, eventually):
    daemon = kitd().start()
    edit(daemon, workers={"pack": 5})
    daemon.process.send_signal(signal.SIGHUP)
    eventually("the reload", lambda: daemon.json("config", "show")["workers"]["pack"] == 5)
    assert events(daemon, "config.reloaded") == [{"changed": ["workers.pack"]}]
