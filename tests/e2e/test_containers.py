"""What docs/containers.md and the examples have kitd do in containers, without an engine."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from process_1 import ALONE, require_namespace

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "containers.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
RELEASING = (ROOT / "docs" / "releasing.md").read_text(encoding="utf-8")


def commands(page):
    """Return the commands at the prompts of a page, and of those in its lists."""
    blocks = re.findall(r"^ *```console\n(.*?)^ *```$", page, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^ *\$ (.+)$", "".join(blocks), flags=re.MULTILINE)


@pytest.fixture
def training():
    """The training job's configuration, its Kitfile and its containers by name."""
    text = (ROOT / "config/kubernetes/training/job.yaml").read_text(encoding="utf-8")
    config, job = yaml.safe_load_all(text)
    pod = job["spec"]["template"]["spec"]
    containers = {each["name"]: each for each in [*pod["initContainers"], *pod["containers"]]}
    return config["data"], containers


@pytest.fixture
def job(kitd, training, tmp_path):
    """Start the daemon of the training job for a registry; returns it and what runs the others."""
    data, containers = training
    run, etc = tmp_path / "run", tmp_path / "etc"
    run.mkdir()
    etc.mkdir()
    for name in data:
        (etc / name).write_text(data[name])

    def start(registry):
        def here(text):
            text = text.replace("/projects/run", str(run)).replace("/etc/kitd", str(etc))
            return text.replace("registry.example.com", registry.host)

        return _start(kitd, data, containers, here, tmp_path)

    return start


def _start(kitd, data, containers, here, tmp_path):

    def live(name):
        container = containers[name]
        command = [here(part) for part in (*container["command"], *container.get("args", []))]
        return subprocess.run(
            [part.replace("$(JOB)", "train-sentiment") for part in command],
            cwd=here(container.get("workingDir", str(tmp_path))),
            env={
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "HOME": str(tmp_path),
                "KITD_SOCKET": str(daemon.socket),
            },
            check=False,
            capture_output=True,
            text=True,
            timeout=50,
        )

    daemon = kitd(yaml.safe_load(here(data["kitd.yaml"])))
    assert live("kitfile").returncode == 0
    daemon.start()
    return daemon, live


def test_a_training_job_ends_with_its_output_in_the_registry(job, docker_registry):
    """Each container does what it has to in the order that the kubelet keeps."""
    daemon, live = job(docker_registry)
    for name in ("prove", "train", "publish"):
        done = live(name)
        assert done.returncode == 0, done.stderr
    repository = f"{docker_registry.host}/team/sentiment"

    assert "weights" in json.dumps(
        daemon.json("inspect", "--remote", f"{repository}:train-sentiment")
    )
    assert "weights" not in json.dumps(
        daemon.json("inspect", "--remote", f"{repository}:train-sentiment-proof")
    )


def test_a_login_that_is_refused_stops_a_job_before_the_training(job, docker_registry_with_login):
    """The kubelet begins no container after one that failed."""
    _, live = job(docker_registry_with_login)
    done = live("prove")

    assert done.returncode != 0
    assert "HTTP 401" in done.stderr


def wrong_places(daemon):
    """Return what the doctor has against the directories of kitd."""
    answer = daemon.kitctl("--json", "doctor")
    return [
        (check["detail"], check["fix"])
        for check in answer.json["checks"]
        if check["name"].endswith("directory") and not check["ok"]
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be another user")
@pytest.mark.parametrize(
    ("owner", "mode", "user", "groups"),
    [
        pytest.param((0, 65532), 0o2775, (65532, 65532), "65532", id="a claim with fsGroup"),
        pytest.param((65532, 0), 0o770, (1000, 0), "0", id="compose with KITD_USER"),
        pytest.param((65532, 0), 0o770, (65532, 65532), "65532", id="compose"),
    ],
)
def test_the_doctor_finds_volumes_as_they_should_be(public_place, kitd, owner, mode, user, groups):
    """What kitd's group may write to need not be kitd's own."""
    daemon = kitd()
    daemon.place = public_place
    public_place.chmod(0o777)
    state = public_place / "state"
    state.mkdir()
    os.chown(state, *owner)
    state.chmod(mode)
    daemon.start_command = (
        "setpriv", f"--reuid={user[0]}", f"--regid={user[1]}", f"--groups={groups}",
        # This Python may be where only root can read.
        "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
    )  # fmt: skip
    daemon.start()

    assert wrong_places(daemon) == []
    state.chmod(0o777)
    ((detail, fix),) = wrong_places(daemon)
    assert "everybody may write" in detail
    assert f"chmod o-w {state}" in fix


def test_the_doctor_finds_nothing_wrong_with_the_state_of_a_training_job(kitd, training, tmp_path):
    """An emptyDir is everybody's; what kitd makes in it is not."""
    _, containers = training
    environ = {each["name"]: each["value"] for each in containers["kitd"]["env"]}
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o2777)
    place = environ["KITD_STATE_DIR"].replace("/var/lib/kitd", str(volume))
    daemon = kitd({"state_dir": place}).start()

    assert Path(place).parent == volume
    assert wrong_places(daemon) == []


def test_kitd_as_process_1_stops_in_good_order(kitd):
    """SIGTERM to process 1 of a container ends kitd, with exit code 0 and its socket gone."""
    require_namespace()
    daemon = kitd()
    daemon.start_command = ALONE
    daemon.start()
    (first,) = daemon.children()
    os.kill(first, signal.SIGTERM)

    assert daemon.process.wait(timeout=30) == 0
    assert not daemon.socket.exists()


def test_health_is_the_exit_code_of_status(kitd):
    """0 while kitd answers, 4 if there is none: what the health check and the probes go by."""
    daemon = kitd().start()
    assert daemon.kitctl("status").code == 0
    assert daemon.stop() == 0
    assert daemon.kitctl("status").code == 4


def test_the_commands_of_the_page(kitd, docker_registry, tmp_path):
    """What is run inside of a container works on a daemon; files that are named are there."""
    model = tmp_path / "models" / "sentiment"
    model.mkdir(parents=True)
    (model / "Kitfile").write_text("manifestVersion: 1.0.0\npackage: {name: sentiment}\n")
    daemon = kitd({"registries": {docker_registry.host: {"plain_http": True}}}).start()
    inside = []
    for command in commands(PAGE):
        for name in re.findall(r"config/\S+", command):
            assert (ROOT / name).exists(), command
        if " kitctl " in command:
            line = "kitctl " + command.partition(" kitctl ")[2].replace("~", str(tmp_path))
            inside.append(shlex.split(line.replace("registry:5000", docker_registry.host)))
    for _, *arguments in inside:
        answer = daemon.kitctl(*arguments)
        # doctor exits with 1 where it has found something about this machine.
        assert answer.code == 0 or arguments == ["doctor"], (arguments, answer.err)
    assert len(inside) >= 5


def test_targets_that_pages_name_are_there():
    """Each `make` of the pages is a target, with variables that the Makefile has."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    made = [shlex.split(c) for c in commands(PAGE) + commands(RELEASING) if c.startswith("make ")]
    for _, target, *variables in made:
        assert re.search(rf"^{target}:.*##", makefile, re.MULTILINE)
        for variable in variables:
            assert re.search(rf"^{variable.partition('=')[0]} \?=", makefile, re.MULTILINE)
    assert made


def test_arguments_that_the_page_names_are_those_of_the_dockerfile():
    """The table has every argument, with its default."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    arguments = set(re.findall(r"^ARG (\w+)", dockerfile, re.MULTILINE))
    table = PAGE[PAGE.index("| argument |") : PAGE.index("Only what the locks")]

    assert arguments == set(re.findall(r"`([A-Z_]+)`", table))
    assert f"`{re.search(r'^ARG UID=(.*)$', dockerfile, re.MULTILINE)[1]}`" in table


def test_yaml_of_the_page_extends_the_compose_file():
    """Services and keys that the page adds fit the file."""
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    added = yaml.safe_load(block)
    compose = yaml.safe_load((ROOT / "config/compose.yaml").read_text(encoding="utf-8"))

    assert added["services"].keys() <= compose["services"].keys()
    assert set(added["services"]["kitd"]["secrets"]) == added["secrets"].keys()
    (name,) = added["secrets"]
    assert added["services"]["kitd"]["environment"] == {
        "REGISTRY_AUTH_FILE": f"/run/secrets/{name}"
    }
