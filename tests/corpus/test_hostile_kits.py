"""Every hostile kit: refused by a code that fits, nothing is written, and kitd goes on."""

import hashlib
import json
from contextlib import closing
from pathlib import Path

import pytest

from corpus.artifact import config_of, kit, modelpack, raw
from corpus.frank_registry import frank_registry
from corpus.kits import CASES, ESCAPES, HARMLESS
from corpus.real_registry import offer
from kitd.client import Client, request
from kitd.client.record import Job
from kitd.errors import KitdError
from tests.conftest import docker_registries
from tests.e2e.conftest import Kitd, wait_until

MARKS = {0x202E: None, 0x2066: None}
"""Those of `ESCAPES` that say in which direction a text runs."""
MALFORMED = ("invalid_manifest", "invalid_descriptor", "media_type_mismatch")
NUMBERS = {name: number for number, name in enumerate((*CASES, *HARMLESS))}


class World:
    """A daemon, a registry that checks what it is sent, and one that serves anything."""

    def __init__(self, place, daemon, client, real, frank):
        self.place = place
        self.daemon = daemon
        self.client = client
        self.real = real
        self.frank = frank
        self._sound = set()

    def serve(self, name, make):
        """Have an artifact in a repository of its own; return its name with its tag.

        By the real registry, if that takes it.
        """
        path = f"hostile/case-{NUMBERS[name]}"
        artifact = make(f"{self.real}/{path}")
        if not artifact.headers and max(offer(self.real, path, artifact)) < 300:
            return f"{self.real}/{path}:v1"
        self.frank.serve(path, make(f"{self.frank.host}/{path}"))
        return f"{self.frank.host}/{path}:v1"

    def pull(self, reference):
        """Return why the first attempt at a pull failed, or None."""
        job = self.client.call(request.pull(reference))
        with closing(self.client.follow(job.id, timeout_s=40)) as states:
            for state in states:
                if isinstance(state, Job) and state.state == "succeeded":
                    return None
                if isinstance(state, Job) and state.error is not None:
                    if not state.is_terminal:
                        self.client.call(request.cancel_job(job.id))
                    return state.error
        raise AssertionError("a job has an end")

    def require_sound(self):
        """Check that the cache has no blob that is another, and that kitd is well."""
        cache = self.daemon.cache
        # What is on its way there is the list of what the cache has.
        wait_until("nothing to be left", lambda: not list((cache / "ingest").iterdir()))
        for path in set((cache / "blobs" / "sha256").iterdir()) - self._sound:
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
            self._sound.add(path)
        assert "Traceback" not in self.daemon.log.read_text()
        assert self.client.call(request.status())


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    place = tmp_path_factory.mktemp("hostile")
    (place / "kitd").mkdir()
    with docker_registries(place) as start, frank_registry() as frank:
        daemon = Kitd(place / "kitd", {}).start()
        try:
            with Client.connect(daemon.socket) as client:
                yield World(place, daemon, client, start().host, frank)
        finally:
            daemon.kill()


def refused(action, *arguments, **options):
    """Return the error that an action ends with, or None."""
    try:
        action(*arguments, **options)
    except KitdError as error:
        return error
    return None


def code_of(error):
    """Return the code of an error that can be shown to a person, or None."""
    if error is None:
        return None
    assert error.message.isprintable()
    assert len(error.message) < 2000
    return error.code


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_kit_is_refused_and_leaves_no_trace(world, name, tmp_path):
    case = CASES[name]
    reference = world.serve(name, case.make)
    call = world.client.call
    assert code_of(refused(call, request.inspect_kit(reference, remote=True))) == case.show
    assert code_of(refused(call, request.kit_info(reference, remote=True))) == case.show
    failure = world.pull(reference)
    assert code_of(failure) == case.pull
    if failure is None:
        # By another name it is not another kit.
        call(request.tag_kit(reference, f"{reference}-again"))
        target = tmp_path / "world" / "target"
        for name in (reference, f"{reference}-again"):
            assert code_of(refused(world.client.unpack, name, target)) == case.code
    else:
        assert case.pull == case.code
        assert code_of(refused(call, request.plan_unpack(reference))) == "not_found"
    assert not list(tmp_path.iterdir())
    assert not Path("/tmp/kitd-evil").exists()
    world.require_sound()


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_no_harm_is_unpacked(world, name, tmp_path):
    reference = world.serve(name, HARMLESS[name])
    world.client.unpack(reference, tmp_path / "target")
    found = {path.name for path in (tmp_path / "target").iterdir()}
    assert found - {"Kitfile"} == {"model.bin"}
    world.require_sound()


def test_other_places_are_not_asked_for_layers(world):
    """Whatever URLs a kit gives."""
    names = [name for name in CASES if "canary" in str(CASES[name].make("h/r").root.content)]
    assert len(names) == 2
    for name in names:
        world.pull(world.serve(name, CASES[name].make))
    assert not [path for path in world.frank.asked if "canary" in path]


def test_a_terminal_is_told_no_commands(world, tmp_path):
    """By names and texts of a kit, whatever shows them."""
    packed = modelpack(
        raw(ESCAPES), raw(f"../{ESCAPES}", kind="doc"), config={"descriptor": {"name": ESCAPES}}
    )
    said = kit(
        config=config_of(package={"name": ESCAPES, "authors": [ESCAPES], "description": ESCAPES}),
        annotations={"ml.kitops.modelkit.cli-version": ESCAPES, ESCAPES: ESCAPES},
    )
    for number, artifact in enumerate((packed, said)):
        world.frank.serve(f"terminal/{number}", artifact)
        reference = f"{world.frank.host}/terminal/{number}:v1"
        shown = []
        for command in (
            ("info", reference, "--remote"),
            ("inspect", reference, "--remote"),
            ("list", reference, "--remote"),
            ("pull", reference),
            ("info", reference),
            ("inspect", reference),
            ("list",),
            ("diff", reference, reference),
            ("unpack", reference, "-d", tmp_path / str(number)),
            ("unpack", reference, "-f", "docs", "-d", tmp_path / f"docs-{number}"),
            ("jobs", "list"),
        ):
            answer = world.daemon.kitctl(*command)
            # A Kitfile goes to a pipe as it is; what YAML writes has no control characters.
            out = answer.out.translate(MARKS) if command[0] == "info" else answer.out
            shown += [out, answer.err]
        for text in shown:
            assert [c for c in text if not c.isprintable() and c != "\n"] == []


def test_kitd_s_own_registry_takes_none_that_is_no_manifest(tmp_path, free_address):
    """It answers each with a refusal of the specification or takes it, and never fails."""
    registry = {"listen": free_address, "writable": True}
    daemon = Kitd(tmp_path, {"registry": registry}).start()
    try:
        for name, number in NUMBERS.items():
            make = CASES[name].make if name in CASES else HARMLESS[name]
            path = f"hostile/case-{number}"
            statuses = offer(free_address, path, make(f"{free_address}/{path}"))
            assert max(statuses) < 500, name
            if name in CASES and CASES[name].show in MALFORMED:
                assert statuses[-1] in (400, 404), name
            if name in HARMLESS:
                assert max(statuses) < 300, name
        assert "Traceback" not in daemon.log.read_text()
        assert daemon.json("status")
    finally:
        daemon.kill()


@pytest.fixture
def crowded(world):
    """A repository whose tags are all those that cannot be pulled, and a kit that is in order."""
    tags = {}
    for name, case in CASES.items():
        if case.pull is not None:
            tags[f"bad-{NUMBERS[name]}"] = name
            artifact = case.make(f"{world.frank.host}/crowded/all")
            world.frank.serve("crowded/all", artifact, f"bad-{NUMBERS[name]}")
    world.frank.serve("crowded/all", kit(), "good")
    return f"{world.frank.host}/crowded/all", tags


def test_hostile_kits_do_not_hide_the_others_of_a_repository(world, crowded):
    repository, _ = crowded
    listed = world.daemon.json("list", repository, "--remote")
    assert "good" in [tag for each in listed for tag in each["tags"]]


def test_a_mirror_copies_the_others_of_a_repository(
    crowded, tmp_path, start_docker_registry, skopeo
):
    """Each that is refused has its reason, and none is at the target."""
    repository, tags = crowded
    target = start_docker_registry().host
    rule = {"source": repository, "targets": [f"{target}/crowded/all"]}
    daemon = Kitd(tmp_path, {"mirrors": {"all": rule}}).start()
    try:
        with Client.connect(daemon.socket) as client:
            (job,) = client.call(request.run_mirror("all"))
            with closing(client.follow(job.id, timeout_s=50)) as states:
                next(item for item in states if isinstance(item, Job) and item.error is not None)
            client.call(request.cancel_job(job.id))
            edges = client.call(request.mirror_edges("all", limit=1000))
        assert "Traceback" not in daemon.log.read_text()
    finally:
        daemon.kill()
    told = {edge.source.rpartition(":")[2]: edge.document["error"] for edge in edges.edges}
    copied = {tag for tag in tags if told[tag] is None}
    # A mirror copies artifacts, whatever is in them; where it reads a tag, no header counts.
    assert {tags[tag] for tag in copied} - {"a header with another digest"} == {
        "a config of 17 MiB",
        "a kit that builds on itself",
    }
    for tag, name in tags.items():
        if tag not in copied and name != "5 MiB":
            assert told[tag]["code"] in (CASES[name].pull, "invalid_manifest"), name
            assert told[tag]["message"].isprintable()
    listed = skopeo("list-tags", "--tls-verify=false", f"docker://{target}/crowded/all")
    assert set(json.loads(listed)["Tags"]) == {"good", *copied}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a digest that leads out", "layers[0].digest: 'sha256:../../../../etc/passwd'"),
        ("a negative size", "layers[0].size"),
        ("data of something else", "layers[0].data"),
        ("a number without end", "100000 digits"),
        ("a type that its sender does not know", "its sender 'application/vnd.oci.image.index"),
        ("an entry's digest that leads out", "model.digest: 'sha256:../../../../etc/passwd'"),
        ("a diffId that leads out", "modelfs.diffIds: 'sha256:../../../../etc/passwd'"),
        (
            "a ModelKit that calls itself a ModelPack",
            "itself application/vnd.cncf.model.manifest.v1+json",
        ),
    ],
)
def test_the_message_says_where_it_is(world, name, words):
    """In which manifest or config, and which part of that."""
    reference = world.serve(name, CASES[name].make)
    error = refused(world.client.call, request.inspect_kit(reference, remote=True))
    assert words in error.message
