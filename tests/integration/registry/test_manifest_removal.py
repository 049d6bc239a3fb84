"""Tags that go with their manifests, at a registry that removes no tags: Debian's."""

import json
from collections import Counter

import pytest
from aiohttp import web

from kitd.mirror.removal import Fate, Outcome
from kitd.oci.digest import digest_of
from kitd.oci.media_type import OCI_EMPTY, OCI_INDEX, OCI_MANIFEST
from kitd.oci.reference import InvalidReferenceError
from kitd.oci.referrer import referrers_tag
from kitd.registry.errors import (
    RegistryNotFoundError,
    RegistryServerError,
    RegistryUnsupportedError,
    UnsafeRemovalError,
)
from tests.integration.registry.manifests import put_manifest

REMOVED, ABSENT = Fate(Outcome.REMOVED), Fate(Outcome.ABSENT)


def index_of(cache, *entries):
    """Put an index into the cache and return its descriptor."""
    listed = [
        {"mediaType": entry.media_type, "digest": entry.digest, "size": entry.size}
        for entry in entries
    ]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
    return cache.put(json.dumps(document).encode(), OCI_INDEX)


@pytest.fixture
async def remote(docker_registry, connect):
    return await connect(docker_registry.host)


@pytest.fixture
async def publish(remote, cache):
    await remote.push(cache.put(b"{}", OCI_EMPTY), cache)

    async def under(target, *tags):
        if not tags:
            await remote.push(target, cache)
        for tag in tags:
            await remote.publish(target, cache, tag)
        return target

    return under


async def names(remote):
    try:
        return {tag.name async for tag in remote.tags()}
    except RegistryNotFoundError:
        return set()


async def test_a_manifest_goes_with_all_the_tags_that_are_to_go(remote, publish, cache):
    root = await publish(put_manifest(cache, "a"), "v1", "latest")
    other = await publish(put_manifest(cache, "b"), "v2")
    going = {"v1": root.digest, "latest": root.digest, "v0": root.digest, "v2": root.digest}

    assert await remote.remove_with_manifests(going) == {
        "v1": REMOVED,
        "latest": REMOVED,
        "v0": ABSENT,
        "v2": Fate(Outcome.MOVED),
    }
    assert await names(remote) == {"v2"}
    assert not await remote.exists(root)
    assert await remote.resolve("v2") == other
    assert set((await remote.remove_with_manifests(going)).values()) == {
        ABSENT,
        Fate(Outcome.MOVED),
    }


async def test_a_manifest_that_another_tag_names_stays(remote, publish, cache):
    root = await publish(put_manifest(cache, "a"), "v1", "stable")

    fates = await remote.remove_with_manifests({"v1": root.digest})

    assert fates == {"v1": Fate(Outcome.SHARED, "stable")}
    assert await remote.resolve("v1") == await remote.resolve("stable") == root


async def test_what_an_index_lists_stays_until_that_goes_too(remote, publish, cache):
    leaf, second = (
        await publish(put_manifest(cache, "leaf"), "arm"),
        await publish(put_manifest(cache, "b")),
    )
    inner = await publish(index_of(cache, leaf, second))
    outer = await publish(index_of(cache, inner), "all")

    fates = await remote.remove_with_manifests({"arm": leaf.digest})
    assert fates == {"arm": Fate(Outcome.LISTED, "all")}
    assert await remote.exists(leaf)

    fates = await remote.remove_with_manifests({"arm": leaf.digest, "all": outer.digest})
    assert fates == {"arm": REMOVED, "all": REMOVED}
    assert await names(remote) == set()


async def test_a_list_of_referrers_keeps_what_it_lists_and_not_its_subject(remote, publish, cache):
    root = await publish(put_manifest(cache, "a"), "v1")
    signature = await publish(put_manifest(cache, "signature", subject=root), "signed")
    listing = referrers_tag(root.digest)
    assert await names(remote) == {"v1", "signed", listing}

    fates = await remote.remove_with_manifests({"v1": root.digest, "signed": signature.digest})

    assert fates == {"v1": REMOVED, "signed": Fate(Outcome.LISTED, listing)}
    assert await names(remote) == {"signed", listing}


async def test_a_registry_that_deletes_nothing_says_so(start_docker_registry, connect, cache):
    remote = await connect(start_docker_registry(deletes=False).host)
    await remote.push(cache.put(b"{}", OCI_EMPTY), cache)
    root = put_manifest(cache, "a")
    await remote.publish(root, cache, "v1")

    with pytest.raises(RegistryUnsupportedError, match="deletes no manifests") as refused:
        await remote.remove_with_manifests({"v1": root.digest})

    assert refused.value.code == "registry_rejected"
    assert "storage.delete.enabled" in refused.value.hint
    assert await remote.resolve("v1") == root


async def test_a_repository_that_is_not_there_has_lost_all_its_tags(remote):
    assert await remote.remove_with_manifests({"v1": digest_of(b"a kit")}) == {"v1": ABSENT}


async def test_what_is_no_tag_is_not_asked_for(remote):
    with pytest.raises(InvalidReferenceError):
        await remote.remove_with_manifests({"../x": digest_of(b"a kit")})


# What cannot be seen whole, and what changes meanwhile.


@pytest.mark.parametrize(
    ("bound", "said"),
    [
        ("MAX_TAGS", "more than 1 tags"),
        ("MAX_INDEXES", "more than 1 indexes"),
        ("MAX_LISTED", "list more than 1 manifests"),
        ("MAX_DEPTH", "more than 1 deep"),
    ],
)
async def test_a_repository_that_is_too_large_to_be_seen_is_left(
    remote, publish, cache, monkeypatch, bound, said
):
    leaf, second = (
        await publish(put_manifest(cache, "leaf"), "arm"),
        await publish(put_manifest(cache, "b")),
    )
    inner = await publish(index_of(cache, leaf, second))
    await publish(index_of(cache, inner), "all")
    monkeypatch.setattr(f"kitd.registry.manifest_removal.{bound}", 1)

    with pytest.raises(UnsafeRemovalError, match=said) as refused:
        await remote.remove_with_manifests({"arm": leaf.digest})

    assert refused.value.code == "unsafe_removal"
    assert await remote.resolve("arm") == leaf


class Repository:
    """A repository of two kits and an index, which somebody changes once it was looked at."""

    def __init__(self):
        self.manifests = {}
        self.tags = {}
        self.looks = 0
        self.deleted = []
        self.asked = Counter()
        self.changes_at_look = 2
        self.change = lambda: None

    def put(self, document, *tags):
        media_type = document["mediaType"]
        content = json.dumps({"schemaVersion": 2, **document}).encode()
        digest = digest_of(content)
        self.manifests[digest] = content, media_type
        self.tags.update(dict.fromkeys(tags, digest))
        return digest

    async def answer(self, request):
        _, _, what = request.path.removeprefix("/v2/team/model/").rpartition("/")
        if what == "list":
            # The second look is the one right before the first deletion.
            self.looks += 1
            if self.looks == self.changes_at_look:
                self.change()
            return web.json_response({"name": "team/model", "tags": list(self.tags)})
        digest = self.tags.get(what, what)
        self.asked[what] += 1
        if digest not in self.manifests:
            raise web.HTTPNotFound
        if request.method == "DELETE":
            self.deleted.append(digest)
            del self.manifests[digest]
            self.tags = {tag: named for tag, named in self.tags.items() if named != digest}
            return web.Response(status=202)
        content, media_type = self.manifests[digest]
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest}
        return web.Response(body=content, headers=headers)


@pytest.fixture
def repository():
    return Repository()


def kit_of(mark):
    config = {"mediaType": OCI_EMPTY, "digest": digest_of(b"{}"), "size": 2}
    kit = {"mediaType": OCI_MANIFEST, "config": config, "layers": []}
    return kit | {"annotations": {"mark": mark}}


@pytest.fixture
def kits(repository):
    """Two kits, v1 and v2."""
    return [repository.put(kit_of(tag), tag) for tag in ("v1", "v2")]


def moves(repository, kits):
    repository.tags["v1"] = kits[1]


def goes(repository, _kits):
    del repository.tags["v1"]


def is_named_anew(repository, kits):
    repository.tags["new"] = kits[0]


def may_be_listed(repository, _kits):
    repository.put({"mediaType": OCI_INDEX, "manifests": []}, "new")


@pytest.mark.parametrize("changes", [moves, goes, is_named_anew, may_be_listed])
async def test_what_changes_meanwhile_keeps_all_that_has_not_gone(
    serve, connect, repository, kits, changes
):
    repository.change = lambda: changes(repository, kits)
    remote = await connect(await serve(repository.answer))
    # The first one in the order of the digests is the first to go.
    first = min(kits)
    kits.sort(key=lambda digest: digest != first)
    repository.tags = {"v1": kits[0], "v2": kits[1]}

    fates = await remote.remove_with_manifests({"v1": kits[0], "v2": kits[1]})

    assert set(fates.values()) == {Fate(Outcome.CHANGED)}
    assert repository.deleted == []


def names_what_goes(repository, last):
    repository.tags["stays"] = last


def lists_what_goes(repository, last):
    listed = {"mediaType": OCI_MANIFEST, "digest": last, "size": 1}
    repository.put({"mediaType": OCI_INDEX, "manifests": [listed]}, "stays")


@pytest.mark.parametrize("changes", [names_what_goes, lists_what_goes])
async def test_a_tag_that_stays_may_move_onto_what_goes_next(
    serve, connect, repository, kits, changes
):
    """The first has gone then, and the second stays with the tag of somebody else."""
    repository.put(kit_of("other"), "stays")
    first, last = sorted(kits)
    tags = {digest: tag for tag, digest in repository.tags.items()}
    repository.changes_at_look = 3
    repository.change = lambda: changes(repository, last)
    remote = await connect(await serve(repository.answer))

    fates = await remote.remove_with_manifests({"v1": kits[0], "v2": kits[1]})

    assert fates == {tags[first]: REMOVED, tags[last]: Fate(Outcome.CHANGED)}
    assert repository.deleted == [first]


async def test_many_tags_are_looked_at_once_for_several_deletions(
    serve, connect, repository, monkeypatch
):
    """What is asked for each deletion has a bound, whatever else the repository holds."""
    monkeypatch.setattr("kitd.registry.manifest_removal.LOOKS_AGAIN", 4)
    going = {f"v{n}": repository.put(kit_of(f"v{n}"), f"v{n}") for n in range(4)}
    for n in range(4):
        repository.put(kit_of(f"stays{n}"), f"stays{n}")
    remote = await connect(await serve(repository.answer))

    assert set((await remote.remove_with_manifests(going)).values()) == {REMOVED}

    assert repository.asked["stays0"] == 1 + len(going) // 2


async def test_a_new_tag_of_something_else_changes_nothing(serve, connect, repository, kits):
    repository.change = lambda: repository.tags.update(new=kits[1])
    remote = await connect(await serve(repository.answer))
    assert await remote.remove_with_manifests({"v1": kits[0]}) == {"v1": REMOVED}
    assert repository.deleted == [kits[0]]


async def test_an_index_that_lies_about_itself_is_a_reason_to_delete_nothing(
    serve, connect, repository, kits
):
    index = repository.put({"mediaType": OCI_INDEX, "manifests": []}, "all")
    repository.manifests[index] = (b"x" * len(repository.manifests[index][0]), OCI_INDEX)
    remote = await connect(await serve(repository.answer))
    with pytest.raises(UnsafeRemovalError, match="cannot be read"):
        await remote.remove_with_manifests({"v1": kits[0]})
    assert repository.deleted == []


async def test_what_fails_for_now_is_no_reason_to_believe_anything(
    serve, connect, repository, kits
):
    async def answer(request):
        if request.path.endswith("/v2"):
            raise web.HTTPBadGateway
        return await repository.answer(request)

    remote = await connect(await serve(answer))
    with pytest.raises(RegistryServerError):
        await remote.remove_with_manifests({"v1": kits[0]})
    assert repository.deleted == []
