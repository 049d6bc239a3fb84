"""Facts and the jobs that follow from them."""

import json

import msgspec
import pytest

from kitd.jobs.assembly import PackArgs
from kitd.jobs.pack import PACK
from kitd.oci.descriptor import describe
from kitd.oci.media_type import OCI_MANIFEST
from kitd.oci.reference import parse_reference, parse_repository
from kitd.queue.fact import (
    CacheCrowded,
    CollectAsked,
    KitPacked,
    PackAsked,
    PackSource,
    ProjectSettled,
    PullAsked,
    PushAsked,
    VerifyAsked,
)
from kitd.queue.job import Job, JobRequest, JobState, Lane
from kitd.queue.kind import HUMAN
from kitd.queue.transition import Admission, admit
from kitd.triggers import requests_for

KIT = describe(OCI_MANIFEST, b"{}")
REMOTE = parse_repository("registry.example.com/team/model")
OTHER = parse_repository("mirror.example.com:5000/team/model")
LOCAL = parse_repository("team/model")


def source(**fields) -> PackSource:
    plain = {
        "project": "demo",
        "path": "/srv/demo",
        "kitfile": None,
        "repository": REMOTE,
        "tags": ("latest", "{package.version}"),
        "push": True,
    }
    return PackSource(**{**plain, **fields})


def packed(**fields) -> KitPacked:
    plain = {
        "project": "demo",
        "repository": REMOTE,
        "target": KIT,
        "tags": ("latest", "1.0"),
        "push": True,
        "priority": 0,
    }
    return KitPacked(**{**plain, **fields})


@pytest.mark.parametrize(
    ("fact", "kind", "lane", "key", "lock", "reference", "project", "priority"),
    [
        pytest.param(
            ProjectSettled(source(), "f"),
            *("pack", Lane.PACK, "pack:demo", "pack:/srv/demo", str(REMOTE), "demo", 0),
            id="a project came to rest",
        ),
        pytest.param(
            PackAsked(source(project=None, tags=("a", "b"))),
            *("pack", Lane.PACK, f"pack:/srv/demo>{REMOTE}:a,b", "pack:/srv/demo"),
            *(str(REMOTE), None, HUMAN),
            id="a person packs a directory",
        ),
        pytest.param(
            CacheCrowded(5),
            *("collect", Lane.COLLECT, "collect:cache", "collect:cache", None, None, 0),
            id="the cache is over its limits",
        ),
        pytest.param(
            CollectAsked(),
            *("collect", Lane.COLLECT, "collect:cache", "collect:cache", None, None, HUMAN),
            id="a person wants room",
        ),
        pytest.param(
            VerifyAsked(repair=True),
            *("verify", Lane.VERIFY, "verify:repair", "verify:cache", None, None, HUMAN),
            id="a person wants the cache mended",
        ),
        pytest.param(
            packed(priority=HUMAN),
            *("push", Lane.PUSH, f"push:{REMOTE}:latest,1.0", f"push:{REMOTE}"),
            *(f"{REMOTE}:latest", "demo", HUMAN),
            id="a kit was packed, as urgent as its pack",
        ),
        pytest.param(
            packed(tags=()),
            *("push", Lane.PUSH, f"push:{REMOTE}@{KIT.digest}", f"push:{REMOTE}"),
            *(f"{REMOTE}@{KIT.digest}", "demo", 0),
            id="a kit without a tag is pushed by digest",
        ),
        pytest.param(
            PushAsked(source=LOCAL, digest=KIT.digest, target=OTHER, tags=("v1",)),
            *("push", Lane.PUSH, f"push:{OTHER}:v1", f"push:{OTHER}", f"{OTHER}:v1", None, HUMAN),
            id="a person pushes elsewhere",
        ),
        pytest.param(
            PullAsked(parse_reference(f"{REMOTE}:v1")),
            *("pull", Lane.PULL, f"pull:{REMOTE}:v1", f"pull:{REMOTE}:v1", f"{REMOTE}:v1"),
            *(None, HUMAN),
            id="a person pulls",
        ),
        pytest.param(
            PullAsked(parse_reference(str(REMOTE))),
            *("pull", Lane.PULL, f"pull:{REMOTE}:latest", f"pull:{REMOTE}:latest"),
            *(f"{REMOTE}:latest", None, HUMAN),
            id="a pull without a tag is of latest",
        ),
    ],
)
def test_a_fact_asks_for_one_job(fact, kind, lane, key, lock, reference, project, priority):
    (request,) = requests_for(fact)
    assert (request.kind, request.lane) == (kind, lane)
    assert (request.key, request.lock) == (key, lock)
    assert (request.reference, request.project, request.priority) == (reference, project, priority)


@pytest.mark.parametrize(
    "fact",
    [
        pytest.param(packed(push=False), id="nobody wants it elsewhere"),
        pytest.param(packed(repository=LOCAL), id="its repository is the cache"),
        pytest.param(packed(repository=LOCAL, push=False), id="neither"),
    ],
)
def test_a_kit_that_stays_here_is_never_pushed(fact):
    assert requests_for(fact) == ()


def test_a_push_after_a_pack_names_the_kit_by_digest():
    """A tag may have moved on by the time the push runs; the digest has not."""
    (request,) = requests_for(packed())
    assert json.loads(request.args) == {
        "source": str(REMOTE),
        "target": str(REMOTE),
        "digest": KIT.digest,
        "tags": ["latest", "1.0"],
        "parents": [],
        "with_parents": False,
    }


def test_a_newer_kit_takes_over_a_waiting_push_to_the_same_names():
    newer = describe(OCI_MANIFEST, b"{ }")
    (one,), (other,) = requests_for(packed()), requests_for(packed(target=newer))
    assert one.key == other.key
    assert one.args != other.args


def test_two_kits_without_names_are_two_pushes():
    newer = describe(OCI_MANIFEST, b"{ }")
    (one,), (other,) = requests_for(packed(tags=())), requests_for(packed(tags=(), target=newer))
    assert one.key != other.key


def test_a_person_and_the_watcher_never_pack_one_directory_at_once():
    (watched,) = requests_for(ProjectSettled(source(), "f"))
    (asked,) = requests_for(PackAsked(source(project=None)))
    assert watched.key != asked.key
    assert watched.lock == asked.lock


def pack_args(fact) -> PackArgs:
    (request,) = requests_for(fact)
    return msgspec.json.decode(request.args, type=PackArgs)


def test_a_project_that_came_to_rest_is_packed_in_that_state_or_not_at_all():
    args = pack_args(ProjectSettled(source(), "0123abcd"))
    assert args.fingerprint == "0123abcd"
    assert msgspec.structs.replace(args, fingerprint=None) == pack_args(PackAsked(source()))


def test_what_a_person_asks_for_is_packed_as_it_is():
    assert pack_args(PackAsked(source())).fingerprint is None


def test_states_of_one_project_are_one_wish_after_the_other():
    (one,) = requests_for(ProjectSettled(source(), "f"))
    (other,) = requests_for(ProjectSettled(source(), "g"))
    assert (one.key, one.lock) == (other.key, other.lock)
    assert one.args != other.args


def wish(fingerprint, **fields):
    args = msgspec.structs.replace(pack_args(PackAsked(source(**fields))), fingerprint=fingerprint)
    return PACK.request(args, project="demo")


def waiting(request: JobRequest) -> Job:
    """Return the job that a wish became."""
    shared = ("kind", "lane", "key", "lock", "args", "project", "reference", "priority")
    return Job(
        **{name: getattr(request, name) for name in shared},
        id=1,
        state=JobState.READY,
        attempt=0,
        max_attempts=request.max_attempts,
        run_at_us=0,
        created_us=0,
    )


@pytest.mark.parametrize(
    ("waits", "comes", "admission"),
    [
        pytest.param(wish("f"), wish("f"), Admission.JOIN, id="the same state"),
        pytest.param(wish("f"), wish("g"), Admission.REPLACE, id="a newer state"),
        pytest.param(wish("f"), wish("f", tags=("v2",)), Admission.REPLACE, id="under other tags"),
        pytest.param(wish("f"), wish("f", push=False), Admission.REPLACE, id="not to be pushed"),
    ],
)
def test_how_a_pack_of_a_project_meets_one_that_waits(waits, comes, admission):
    assert waits.key == comes.key
    assert admit(comes, waiting(waits), None) is admission


def test_pushes_to_one_repository_run_one_after_the_other():
    (one,) = requests_for(packed())
    (other,) = requests_for(PushAsked(source=LOCAL, digest=KIT.digest, target=REMOTE, tags=("x",)))
    assert one.key != other.key
    assert one.lock == other.lock


def test_an_equal_fact_is_an_equal_wish():
    fact = ProjectSettled(source(), "f")
    assert requests_for(fact) == requests_for(ProjectSettled(source(), "f"))
