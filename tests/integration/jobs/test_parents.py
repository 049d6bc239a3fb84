"""How far a pull and a push follow the kits that a kit builds on, and for whom."""

import pytest

from kitd.content.store import ContentNotFoundError
from kitd.jobs.pull import PULL, PullArgs
from kitd.jobs.push import PUSH, PushArgs
from kitd.modelkit.chain import ReferenceCycleError, TooManyParentsError
from kitd.modelkit.config_blob import encode_config
from kitd.modelkit.kitfile import parse_kitfile
from kitd.modelkit.media_type import CONFIG
from kitd.oci.descriptor import Descriptor
from kitd.oci.media_type import OCI_MANIFEST
from kitd.queue.effect import FollowTags, MoveTags
from kitd.queue.fact import RepositoryChanged

ANYWHERE = ("**",)


class Names:
    """A catalogue of what was put there by hand."""

    def __init__(self):
        self.kits = {}
        self.ahead = set()
        """Names of what is not pushed."""
        self.meanwhile = lambda: None
        """What happens once the layers of a kit were pushed, and before it gets its tags."""

    async def resolve(self, repository, identifier):
        try:
            return self.kits[str(repository), identifier]
        except KeyError:
            raise ContentNotFoundError(f"no {repository}:{identifier}") from None

    async def manifest(self, digest):
        return next(kit for kit in self.kits.values() if kit.digest == digest)

    async def unpushed(self, repository, tag):
        name = (str(repository), tag)
        return self.kits[name] if name in self.ahead else None

    async def referrers(self, _repository, _subject):
        self.meanwhile()
        return ()


@pytest.fixture
def names():
    return Names()


@pytest.fixture
def pull(world, names):
    async def pull(reference, parents=ANYWHERE, filters=()):
        ports = world.make_ports(
            world.cache, catalog=names, keeps=lambda _size: True, remote=world.mirror_remote
        )
        args = PullArgs(reference=reference, parents=parents, filters=filters)
        with world.attempt() as context:
            done = await PULL.run(args, context, ports)
        # As an executor would write it down.
        for effect in done.effects:
            if isinstance(effect, MoveTags | FollowTags):
                size = world.store.size_of(effect.digest)
                kit = Descriptor(OCI_MANIFEST, effect.digest, size)
                for identifier in (*effect.tags, effect.digest):
                    names.kits[str(effect.repository), identifier] = kit
        return done

    return pull


@pytest.fixture
def push(world, names):
    async def push(source, tag, target, parents=ANYWHERE, with_parents=False):
        ports = world.make_ports(world.cache, catalog=names, remote=world.mirror_remote)
        root = names.kits[source, tag]
        args = PushArgs(
            source=source,
            digest=root.digest,
            target=target,
            tags=(tag,),
            parents=parents,
            with_parents=with_parents,
        )
        with world.attempt() as context:
            return await PUSH.run(args, context, ports)

    return push


def kit(shelf, tag=None, parent=None, name="kit"):
    """Put a kit without layers into a repository."""
    model = f"model: {{path: '{parent}'}}" if parent else ""
    config = encode_config(parse_kitfile(f"package: {{name: {name}}}\n{model}".encode()))
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {**shelf.blob(config), "mediaType": CONFIG},
        "layers": [shelf.blob(f"{name}'s layer".encode())],
    }
    return shelf.manifest(document, tag)


async def test_a_pull_brings_each_kit_to_its_own_repository(world, pull, names):
    base, child = await world.registry("base"), await world.registry("child")
    expected = kit(base, "v1", name="base")
    kit(child, "v1", f"{base.reference}:v1")
    done = await pull(f"{child.reference}:v1")
    assert done.result.parents == (f"{base.reference}:v1",)
    assert names.kits[base.reference, "v1"].digest == expected["digest"]
    assert set(names.kits) >= {(base.reference, "v1"), (child.reference, "v1")}
    assert (child.reference, expected["digest"]) not in names.kits


@pytest.mark.parametrize(
    ("parents", "noted"), [((), False), (("child.example.com/**",), True)], ids=["none", "others"]
)
async def test_who_may_not_go_to_a_parent_is_not_sent_there(world, pull, parents, noted):
    """Whoever wrote the kit has named it: kitd does not even ask whether there is one."""
    base, child = await world.registry("base"), await world.registry("child")
    kit(base, "v1")
    kit(child, "v1", f"{base.reference}:v1")
    done = await pull(f"{child.reference}:v1", parents)
    assert done.result.parents == ()
    assert any(base.reference in note for note in done.result.notes) is noted
    assert not base.registry.tally.requests


async def test_filters_without_a_model_leave_parents_alone(world, pull):
    base, child = await world.registry("base"), await world.registry("child")
    kit(base, "v1")
    kit(child, "v1", f"{base.reference}:v1")
    done = await pull(f"{child.reference}:v1", filters=("datasets",))
    assert done.result.parents == ()
    assert not base.registry.tally.requests


async def test_a_loop_is_found_though_every_name_is_new(world, pull):
    """The same manifest under another tag is the same kit."""
    one, two = await world.registry("one"), await world.registry("two")
    kit(two, "v1", f"{one.reference}:again")
    kit(one, "v1", f"{two.reference}:v1")
    one.tags["again"] = one.tags["v1"]
    with pytest.raises(ReferenceCycleError):
        await pull(f"{one.reference}:v1")


async def test_a_chain_without_an_end_is_left(world, pull):
    shelf = await world.registry("chain")
    for number in range(12):
        kit(shelf, f"v{number}", f"{shelf.reference}:v{number + 1}", name=f"kit-{number}")
    with pytest.raises(TooManyParentsError):
        await pull(f"{shelf.reference}:v0")


async def test_a_parent_that_is_no_kit_ends_the_chain(world, pull):
    base, child = await world.registry("base"), await world.registry("child")
    base.kit("v1")
    kit(child, "v1", f"{base.reference}:v1")
    done = await pull(f"{child.reference}:v1")
    assert done.result.parents == (f"{base.reference}:v1",)


async def test_a_parent_that_names_no_registry_is_said(world, pull):
    child = await world.registry("child")
    kit(child, "v1", "team/base:v1")
    done = await pull(f"{child.reference}:v1")
    assert [note for note in done.result.notes if "team/base:v1" in note]


async def test_a_parent_that_is_not_pushed_keeps_its_name(world, pull, names):
    """It is newer here than in its registry: nobody asked to have the old one back."""
    base, child = await world.registry("base"), await world.registry("child")
    old, new = kit(base, "v1", name="old"), kit(child, "new", name="new")
    kit(child, "v1", f"{base.reference}:v1")
    await pull(f"{child.reference}:new")
    names.kits[base.reference, "v1"] = names.kits[child.reference, "new"]
    names.ahead.add((base.reference, "v1"))
    done = await pull(f"{child.reference}:v1")
    assert done.result.parents == ()
    assert [new["digest"] in note and base.reference in note for note in done.result.notes] == [
        True
    ]
    assert names.kits[base.reference, "v1"].digest == new["digest"]

    names.ahead.clear()
    done = await pull(f"{child.reference}:v1")
    assert (done.result.parents, done.result.notes) == ((f"{base.reference}:v1",), ())
    followed = [effect for effect in done.effects if isinstance(effect, FollowTags)]
    assert [(effect.former, effect.digest) for effect in followed] == [
        (new["digest"], old["digest"])
    ]


async def test_a_parent_that_is_only_here_is_no_reason_to_fail(world, pull, names):
    base, child = await world.registry("base"), await world.registry("child")
    kit(child, "new", name="new")
    kit(child, "v1", f"{base.reference}:v1")
    await pull(f"{child.reference}:new")
    names.kits[base.reference, "v1"] = names.kits[child.reference, "new"]
    names.ahead.add((base.reference, "v1"))
    done = await pull(f"{child.reference}:v1")
    assert ["not pushed" in note for note in done.result.notes] == [True]


async def test_a_push_says_what_is_missing_and_sends_it_if_asked_to(world, pull, push):
    """Parents first, and whoever follows their repositories is told of them."""
    base, child = await world.registry("base"), await world.registry("child")
    expected = kit(base, "v1", name="base")
    kit(child, "v1", f"{base.reference}:v1")
    await pull(f"{child.reference}:v1")
    base.tags.clear()
    base.repository.manifests.clear()

    alone = await push(child.reference, "v1", child.reference)
    assert [f"{base.reference}:v1 is not there" in note for note in alone.result.notes] == [True]
    assert base.tags == {}
    done = await push(child.reference, "v1", child.reference, with_parents=True)
    assert done.result.parents == (f"{base.reference}:v1",)
    assert base.tags == {"v1": expected["digest"]}
    assert [fact.tags for fact in done.facts if isinstance(fact, RepositoryChanged)] == [
        ("v1",),
        ("v1",),
    ]
    assert base.missing() == set()


async def test_a_tag_of_a_parent_that_somebody_else_puts_there_meanwhile_stays(
    world, pull, push, names
):
    """A push may take hours, and moves no tag that it was not asked to move."""
    base, child = await world.registry("base"), await world.registry("child")
    old = kit(base, "v1", name="old")
    kit(child, "v1", f"{base.reference}:v1")
    await pull(f"{child.reference}:v1")
    base.tags.clear()
    base.repository.manifests.clear()
    theirs = kit(base, name="theirs")
    names.meanwhile = lambda: base.tags.setdefault("v1", theirs["digest"])
    done = await push(child.reference, "v1", child.reference, with_parents=True)

    assert base.tags == {"v1": theirs["digest"]}
    assert (done.result.parents, done.result.tags) == ((), ("v1",))
    assert [theirs["digest"] in note for note in done.result.notes] == [True]
    assert [fact.tags for fact in done.facts if isinstance(fact, RepositoryChanged)] == [("v1",)]
    assert old["digest"] in base.repository.manifests


async def test_a_push_asks_nobody_for_whom_it_may_not(world, pull, push):
    base, child = await world.registry("base"), await world.registry("child")
    kit(base, "v1")
    kit(child, "v1", f"{base.reference}:v1")
    await pull(f"{child.reference}:v1")
    base.registry.tally.requests.clear()
    for parents in ((), (f"{child.reference.partition('/')[0]}/**",)):
        done = await push(child.reference, "v1", child.reference, parents, with_parents=True)
        assert done.result.parents == ()
        assert not base.registry.tally.requests


async def test_a_push_does_not_fail_for_a_parent_that_cannot_be_looked_for(
    world, pull, push, names
):
    """Unless it is to be pushed as well."""
    base, child = await world.registry("base"), await world.registry("child")
    kit(base, "v1")
    kit(child, "v1", f"{base.reference}:v1")
    await pull(f"{child.reference}:v1")
    names.kits[base.reference, "v1"] = names.kits[child.reference, "v1"]
    done = await push(child.reference, "v1", child.reference)
    assert ["nothing is known" in note for note in done.result.notes] == [True]
    assert child.tags == {"v1": done.result.digest}
    with pytest.raises(ReferenceCycleError):
        await push(child.reference, "v1", child.reference, with_parents=True)
