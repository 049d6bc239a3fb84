"""Copying what refers to content into every content store, from lists that cannot be trusted."""

import json
from collections import defaultdict
from contextlib import asynccontextmanager

import pytest

from kitd.content.copy import copy_graph
from kitd.content.referrers import MAX_REFERRERS, copy_referrers
from kitd.content.store import ContentError, ContentNotFoundError
from kitd.errors import UnavailableError
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import digest_of
from kitd.oci.media_type import OCI_EMPTY, OCI_INDEX, OCI_MANIFEST
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent


def plain(target):
    return {"mediaType": target.media_type, "digest": target.digest, "size": target.size}


class Listed:
    """A source with lists of referrers, which a test may fill with lies."""

    def __init__(self, source):
        self.source = source
        self.lists = defaultdict(list)
        self.asked = []

    def manifest(self, mark, *, subject=None, layers=(), listed=True):
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": plain(self.source.add(b"{}", OCI_EMPTY)),
            "layers": [plain(layer) for layer in layers],
            "annotations": {"mark": mark},
        }
        return self.add(document, OCI_MANIFEST, subject, listed=listed)

    def index(self, manifests, *, subject=None):
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [plain(manifest) for manifest in manifests],
        }
        return self.add(document, OCI_INDEX, subject)

    def add(self, document, media_type, subject, *, listed=True):
        named = {} if subject is None else {"subject": plain(subject)}
        target = self.source.add(json.dumps(document | named).encode(), media_type)
        if subject is not None and listed:
            self.lists[subject.digest].append(target)
        return target

    async def referrers(self, subject):
        self.asked.append(subject)
        return self.lists[subject]

    async def resolve(self, digest):
        if digest not in self.source.contents:
            raise ContentNotFoundError(f"there is no {digest}")
        content = self.source.contents[digest]
        media_type = OCI_INDEX if b'"manifests"' in content else OCI_MANIFEST
        return Descriptor(media_type, digest, len(content))

    async def copy(self, target, root, *, listed=None, source=None):
        source = source or self.source
        report = await copy_graph(
            source, target, root, concurrency=2, progress=lambda _done, _total: None
        )
        return await copy_referrers(
            source,
            target,
            report.manifests,
            listed=listed or self.referrers,
            resolve=self.resolve,
            concurrency=3,
        )


@pytest.fixture
def listed(source):
    return Listed(source)


async def test_referrers_and_what_refers_to_them_come_along_whole(store, source, listed):
    root = listed.manifest("kit")
    blob = source.add(b"a signature", "application/vnd.example.signature")
    signature = listed.manifest("signature", subject=root, layers=[blob])
    sbom = listed.manifest("sbom", subject=root)
    countersigned = listed.manifest("countersigned", subject=signature)

    report = await listed.copy(store, root)

    assert {node.digest for node in report.manifests} == {
        each.digest for each in (signature, sbom, countersigned)
    }
    assert report.notes == ()
    for each in (blob, signature, sbom, countersigned):
        assert await store.exists(each)
    assert report.sent_bytes == sum(each.size for each in (blob, signature, sbom, countersigned))
    again = await listed.copy(store, root)
    assert (again.sent_bytes, len(again.copies)) == (0, 3)


async def test_referrers_of_what_an_index_lists_come_along(store, listed):
    inner = listed.manifest("inner")
    signature = listed.manifest("signature of inner", subject=inner)
    await listed.copy(store, listed.index([inner]))
    assert await store.exists(signature)


async def test_lists_that_go_in_a_circle_are_followed_once(store, listed):
    root = listed.manifest("kit")
    signature = listed.manifest("signature", subject=root)
    listed.lists[signature.digest] += [root, signature]
    listed.lists[root.digest] += [root, signature, signature]
    # An index that refers to what it lists.
    bundle = listed.index([root, signature], subject=root)

    report = await listed.copy(store, root)

    assert await store.exists(bundle)
    assert {report.manifests[-1].digest for report in report.copies} == {
        signature.digest,
        bundle.digest,
    }
    assert len(report.notes) == 1
    assert "does not name it" in report.notes[0]


def not_there(listed, root):
    listed.lists[root.digest].append(Descriptor(OCI_MANIFEST, digest_of(b"gone"), 10))
    return "there is no sha256:"


def about_something_else(listed, root):
    listed.lists[root.digest].append(listed.manifest("other", subject=listed.manifest("else")))
    return "does not name it"


def about_nothing(listed, root):
    listed.lists[root.digest].append(listed.manifest("loner"))
    return "does not name it"


def without_its_blobs(listed, root):
    blob = listed.source.add(b"lost", "application/vnd.example.layer")
    listed.manifest("incomplete", subject=root, layers=[blob])
    del listed.source.contents[blob.digest]
    return f"there is no {blob.digest}"


def with_other_bytes(listed, root):
    damaged = listed.manifest("damaged", subject=root)
    listed.source.lies[damaged.digest] = bytes(damaged.size)
    return "got content with digest"


def of_no_kind(listed, root):
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": [], "layers": []}
    listed.add(document, OCI_MANIFEST, root)
    return "expected an object"


@pytest.mark.parametrize(
    "bogus",
    [
        not_there,
        about_something_else,
        about_nothing,
        without_its_blobs,
        with_other_bytes,
        of_no_kind,
    ],
)
async def test_a_bogus_referrer_is_left_out_with_a_note(store, listed, bogus):
    root = listed.manifest("kit")
    said = bogus(listed, root)
    signature = listed.manifest("signature", subject=root)
    report = await listed.copy(store, root)
    assert [node.digest for node in report.manifests] == [signature.digest], report.notes
    assert await store.exists(signature)
    (note,) = report.notes
    assert note.startswith("not every referrer was copied: ")
    assert said in note


async def test_sizes_and_types_of_a_list_are_not_believed(store, listed):
    root = listed.manifest("kit")
    signature = listed.manifest("signature", subject=root, listed=False)
    listed.lists[root.digest].append(Descriptor("application/x", signature.digest, 1))
    report = await listed.copy(store, root)
    assert report.notes == ()
    assert await store.exists(signature)


async def test_a_list_that_is_refused_keeps_nobody_from_the_kit(store, listed):
    async def refused(subject):
        raise ContentError("the list is not for you")

    root = listed.manifest("kit")
    report = await listed.copy(store, root, listed=refused)
    assert report.notes == ("not every referrer was copied: the list is not for you",)
    assert await store.exists(root)


async def test_what_may_pass_ends_the_copy_so_that_it_is_tried_again(store, listed):
    async def later(subject):
        raise UnavailableError("come back later")

    root = listed.manifest("kit")
    with pytest.raises(UnavailableError):
        await listed.copy(store, root, listed=later)

    class Failing:
        """Has every manifest but those of referrers, for now."""

        exists = listed.source.exists

        @asynccontextmanager
        async def fetch(self, target, *, offset=0):
            if b"subject" in listed.source.contents[target.digest]:
                raise UnavailableError("come back later")
            async with listed.source.fetch(target, offset=offset) as stream:
                yield stream

    for number in range(5):
        listed.manifest(f"signature {number}", subject=root)
    with pytest.raises(UnavailableError):
        await listed.copy(store, root, source=Failing())


async def test_an_absurd_number_of_referrers_is_cut_off(listed, tmp_path):
    store = BlobStore(tmp_path / "cache")
    store.create()
    root = listed.manifest("kit")
    gone = [
        Descriptor(OCI_MANIFEST, digest_of(str(number).encode()), 10)
        for number in range(MAX_REFERRERS + 10)
    ]
    signature = listed.manifest("signature", subject=root)
    listed.lists[root.digest] += gone
    with CacheContent(store).hold() as cache:
        report = await listed.copy(cache, root)
    assert [node.digest for node in report.manifests] == [signature.digest], report.notes
    assert "more than 4096" in report.notes[0]
