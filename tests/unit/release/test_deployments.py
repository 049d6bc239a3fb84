"""The compose file and the manifests of config/ fit kitd, its image and each other."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kitd.registry.credentials import parse_auth_file
from kitd.secret_file import MIN_SHARED_BYTES

ROOT = Path(__file__).parents[3]
KUBERNETES = ROOT / "config" / "kubernetes"
COMPOSE = yaml.safe_load((ROOT / "config" / "compose.yaml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
LONGEST_STOP_S = 30
"""`STOP_S` of kitd/daemon/guardian.py."""


class Strict(yaml.SafeLoader):
    """A key that is given twice is an error."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"given twice, line {node.start_mark.line + 1}: {keys}"
        return super().construct_mapping(node, deep)


def documents(path):
    """Return the documents of a file."""
    return list(yaml.load_all(path.read_text(encoding="utf-8"), Strict))


RESOURCES = [
    document
    for path in sorted(KUBERNETES.rglob("*.yaml"))
    for document in documents(path)
    if document["kind"] != "Kustomization"
]


KUSTOMIZATIONS = {
    path.parent: documents(path)[0] for path in KUBERNETES.rglob("kustomization.yaml")
}


def of_kind(kind):
    """Return the manifests of a kind, by name."""
    return {each["metadata"]["name"]: each for each in RESOURCES if each["kind"] == kind}


def pods():
    """Return the name and the pod of everything that makes pods."""
    for each in [*of_kind("StatefulSet").values(), *of_kind("Job").values()]:
        yield each["metadata"]["name"], each["spec"]["template"]["spec"]


def containers():
    """Return all containers, each with its pod's name and its pod."""
    for name, pod in pods():
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            yield pytest.param(pod, container, id=f"{name}-{container['name']}")


def configurations():
    """Return every configuration of kitd that these files have."""
    for name, each in of_kind("ConfigMap").items():
        yield pytest.param(each["data"]["kitd.yaml"], id=name)
    text = (ROOT / "config/compose/kitd.yaml").read_text(encoding="utf-8")
    yield pytest.param(text, id="compose")


@pytest.mark.parametrize("text", list(configurations()))
def test_kitd_takes_the_configuration(tmp_path, text):
    """`kitd check-config` has nothing to say."""
    text = text.replace("/etc/kitd-secrets", str(tmp_path))
    (tmp_path / "harbor").write_text("not-a-secret-of-this-length\n")
    (tmp_path / "harbor").chmod(0o440)
    (tmp_path / "kitd.yaml").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "kitd", "check-config", tmp_path / "kitd.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_secrets_are_of_a_form_that_kitd_takes():
    """Those of docker, and as long as a shared secret has to be."""
    secrets = of_kind("Secret")
    content = secrets["kitd-registry-auth"]["stringData"][".dockerconfigjson"].encode()

    assert parse_auth_file(content, Path("config.json"))
    assert len(secrets["kitd-webhooks"]["stringData"]["harbor"]) >= MIN_SHARED_BYTES


@pytest.mark.parametrize(("pod", "container"), list(containers()))
def test_containers_have_no_privileges(pod, container):
    """No root, no capabilities, no new ones, a file system that stays as it is, no token."""
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    user = re.search(r"^ARG UID=(\d+)$", DOCKERFILE, re.MULTILINE)[1]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert str(pod["securityContext"]["runAsUser"]) == user
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    # A service with kitd's name would otherwise put variables with kitd's prefix into them.
    assert pod["enableServiceLinks"] is False


@pytest.mark.parametrize(("pod", "container"), list(containers()))
def test_containers_use_one_image_and_what_there_is(pod, container):
    """One name, which the kustomizations replace; volumes of the pod; probes that can be run."""
    volumes = {volume["name"] for volume in pod["volumes"]}
    for each in of_kind("StatefulSet").values():
        volumes |= {claim["metadata"]["name"] for claim in each["spec"]["volumeClaimTemplates"]}

    assert container["image"] == "kitd:dev"
    for kustomization in KUSTOMIZATIONS.values():
        assert [image["name"] for image in kustomization["images"]] == ["kitd"]
    assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    ports = {port["name"] for port in container.get("ports", [])}
    for probe in (value for key, value in container.items() if key.endswith("Probe")):
        if "httpGet" in probe:
            assert probe["httpGet"]["path"] in ("/healthz", "/readyz")
            assert probe["httpGet"]["port"] in ports
        else:
            assert probe["exec"]["command"] == ["kitctl", "status"]
        # The kubelet's default of a second is less than a busy node needs.
        assert probe["timeoutSeconds"] >= 10


@pytest.mark.parametrize(("pod", "container"), list(containers()))
def test_a_daemon_has_somewhere_to_write(pod, container):
    """State, socket and temporary files are volumes; nothing else has to be written."""
    if "command" in container:
        return
    writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
    declared = set(
        re.findall(r"/[a-z/]+", re.search(r"^VOLUME (.*)$", DOCKERFILE, re.MULTILINE)[1])
    )

    assert writable == declared - {"/projects"} | {"/tmp"}
    assert pod["terminationGracePeriodSeconds"] > LONGEST_STOP_S


@pytest.mark.parametrize(("pod", "container"), list(containers()))
def test_a_daemon_that_hangs_is_started_anew(pod, container):
    """As docs/metrics.md has it: start and life by `kitctl status`, readiness by the port."""
    if "command" in container:
        return
    probes = {key: value for key, value in container.items() if key.endswith("Probe")}

    assert probes.pop("startupProbe")["exec"] == {"command": ["kitctl", "status"]}
    life = probes.pop("livenessProbe")
    assert life["exec"] == {"command": ["kitctl", "status"]}
    # No restart for a moment's load.
    assert life["periodSeconds"] * life["failureThreshold"] >= 90
    assert all(each["httpGet"]["path"] == "/readyz" for each in probes.values())


def test_names_that_manifests_ask_for_are_given():
    """Config maps, secrets, the service of the set, ports of services and labels of pods."""
    for _, pod in pods():
        for volume in pod["volumes"]:
            if "configMap" in volume:
                assert volume["configMap"]["name"] in of_kind("ConfigMap")
            if "secret" in volume:
                assert volume["secret"]["secretName"] in of_kind("Secret")
    (daemon,) = of_kind("StatefulSet").values()
    template = daemon["spec"]["template"]
    ports = {
        port["name"]: port["containerPort"]
        for container in template["spec"]["containers"]
        for port in container["ports"]
    }
    assert daemon["spec"]["serviceName"] in of_kind("Service")
    assert daemon["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    for service in of_kind("Service").values():
        assert service["spec"]["selector"] == template["metadata"]["labels"]
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports.keys()
    config = yaml.safe_load(of_kind("ConfigMap")["kitd"]["data"]["kitd.yaml"])
    assert {name: int(config[name]["listen"].rpartition(":")[2]) for name in ports} == ports


def test_secrets_that_the_configuration_names_are_mounted():
    """A path in kitd.yaml is a key of a secret below a mount."""
    (daemon,) = of_kind("StatefulSet").values()
    pod = daemon["spec"]["template"]["spec"]
    mounts = {m["name"]: m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
    files = {
        f"{mounts[volume['name']]}/{key}"
        for volume in pod["volumes"]
        if "secret" in volume
        for key in of_kind("Secret")[volume["secret"]["secretName"]]["stringData"]
    }
    text = of_kind("ConfigMap")["kitd"]["data"]["kitd.yaml"]
    named = set(re.findall(r"_file: (\S+)", text))
    named |= {variable["value"] for variable in pod["containers"][0]["env"]}

    assert named == files


def test_the_sidecar_starts_first_and_the_rest_in_order():
    """kitd is a native sidecar, the training ends before what is published begins."""
    ((name, pod),) = [(name, pod) for name, pod in pods() if "initContainers" in pod]
    order = [container["name"] for container in pod["initContainers"]]
    sidecars = [c["name"] for c in pod["initContainers"] if c.get("restartPolicy") == "Always"]

    assert name == "train-sentiment"
    assert sidecars == ["kitd"]
    # What would refuse the kit in the end shows before the training.
    assert order.index("kitd") < order.index("prove") < order.index("train")
    assert [container["name"] for container in pod["containers"]] == ["publish"]
    assert pod["restartPolicy"] == "Never"


def test_kustomizations_name_their_files_but_no_secrets():
    """Each has the manifests of its directory; no example replaces anybody's secret."""
    manifests = {
        path.parent: {each.name for each in path.parent.glob("*.yaml")} - {"kustomization.yaml"}
        for path in KUBERNETES.rglob("kustomization.yaml")
    }
    named = {place: set(each["resources"]) for place, each in KUSTOMIZATIONS.items()}

    assert len(named) == 2
    assert manifests == {
        place: names | ({"secrets.example.yaml"} if place == KUBERNETES else set())
        for place, names in named.items()
    }


def test_what_was_trained_outlives_the_pod():
    """The directory of the training is a claim's, and the claim is not made by what is deleted."""
    for name, pod in pods():
        if name == "train-sentiment":
            (run,) = [volume for volume in pod["volumes"] if volume["name"] == "run"]
            assert run.keys() == {"name", "persistentVolumeClaim"}
    assert not of_kind("PersistentVolumeClaim")


def test_compose_services_have_no_privileges():
    """As the manifests; what they write to are volumes that are declared."""
    for service in COMPOSE["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        named = [v.partition(":")[0] for v in service["volumes"] if isinstance(v, str)]
        assert set(named) <= COMPOSE["volumes"].keys()
        assert set(service.get("depends_on", [])) <= COMPOSE["services"].keys()
    grace = COMPOSE["services"]["kitd"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > LONGEST_STOP_S


def test_compose_binds_what_is_there():
    """The directory of the configuration, for one who sets no other, is the one beside the file."""
    binds = {v["target"]: v for v in COMPOSE["services"]["kitd"]["volumes"] if isinstance(v, dict)}
    default = re.fullmatch(r"\$\{KITD_ETC:-(\./\S+)\}", binds["/etc/kitd"]["source"])[1]

    assert (ROOT / "config" / default / "kitd.yaml").is_file()
    assert all(bind["read_only"] for bind in binds.values())


def test_compose_writes_nothing_into_a_container():
    """Compose would copy what is no file into the container: not where the root is read-only."""
    page = (ROOT / "docs/containers.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    added = yaml.safe_load(block)
    given = [
        each
        for file in (COMPOSE, added)
        for kind in ("configs", "secrets")
        for each in file.get(kind, {}).values()
    ]

    assert given
    assert all(each.keys() == {"file"} for each in given)


def test_no_image_is_a_moving_one():
    """Every image has a tag or a digest, and none is `latest`."""
    text = [(ROOT / "config/compose.yaml"), *KUBERNETES.rglob("*.yaml")]
    images = itertools.chain.from_iterable(
        re.findall(r"^\s*image: (\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        for path in text
    )
    for image in images:
        assert re.search(r":[a-z0-9.]+\}?$", image), image
        assert "latest" not in image
