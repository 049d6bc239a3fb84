"""What every `kitd.gateway.catalog.Catalog` promises."""

import json
from dataclasses import replace

import pytest

from kitd.content.store import CollectedError, ContentNotFoundError
from kitd.oci.descriptor import describe
from kitd.oci.digest import digest_of
from kitd.oci.manifest import parse_manifest
from kitd.oci.media_type import OCI_EMPTY, OCI_INDEX, OCI_MANIFEST
from kitd.oci.reference import Repository

HERE = Repository("localhost", "team/model")
ELSEWHERE = Repository("registry.example.com:5000", "team/model")


def image(mark, *, subject=None, artifact_type=None, config_type=OCI_EMPTY):
    """Return the descriptor and the manifest of an image that nothing but `mark` tells apart."""
    config = describe(config_type, b"{}")
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": config.media_type, "digest": config.digest, "size": config.size},
        "layers": [],
        "annotations": {"mark": mark},
    }
    if artifact_type:
        document["artifactType"] = artifact_type
    if subject:
        document["subject"] = {
            "mediaType": subject.media_type,
            "digest": subject.digest,
            "size": subject.size,
        }
    content = json.dumps(document).encode()
    return describe(OCI_MANIFEST, content), parse_manifest(content)


async def commit(catalog, repository, committed, *tags):
    target, manifest = committed
    await catalog.commit(repository, target, tags, manifest)
    return target


async def test_a_manifest_resolves_by_tag_and_by_digest(catalog):
    target = await commit(catalog, HERE, image("a"), "v1", "latest")
    for identifier in ("v1", "latest", target.digest):
        found = await catalog.resolve(HERE, identifier)
        assert (found.media_type, found.digest, found.size) == (
            OCI_MANIFEST,
            target.digest,
            target.size,
        )


async def test_a_manifest_without_a_tag_resolves_by_digest(catalog):
    target = await commit(catalog, HERE, image("a"))
    assert (await catalog.resolve(HERE, target.digest)).digest == target.digest
    assert list(await catalog.tags(HERE, after=None, limit=10)) == []


async def test_names_of_one_repository_mean_nothing_in_another(catalog):
    target = await commit(catalog, HERE, image("a"), "v1")
    await commit(catalog, ELSEWHERE, image("b"), "v2")
    for identifier in ("v1", target.digest):
        with pytest.raises(ContentNotFoundError):
            await catalog.resolve(ELSEWHERE, identifier)


async def test_what_was_never_committed_is_not_found(catalog):
    await commit(catalog, HERE, image("a"), "v1")
    for identifier in ("v2", digest_of(b"nothing")):
        with pytest.raises(ContentNotFoundError):
            await catalog.resolve(HERE, identifier)


async def test_a_tag_moves_and_its_old_manifest_stays(catalog):
    old = await commit(catalog, HERE, image("a"), "latest")
    new = await commit(catalog, HERE, image("b"), "latest")
    assert (await catalog.resolve(HERE, "latest")).digest == new.digest
    assert (await catalog.resolve(HERE, old.digest)).digest == old.digest


async def test_committing_again_adds_tags_and_takes_none_away(catalog):
    await commit(catalog, HERE, image("a"), "v1")
    await commit(catalog, HERE, image("a"), "v1", "v2")
    await commit(catalog, HERE, image("a"))
    assert list(await catalog.tags(HERE, after=None, limit=10)) == ["v1", "v2"]


async def test_tags_are_sorted_by_their_bytes(catalog):
    await commit(catalog, HERE, image("a"), "b", "B", "a.1", "a-1", "_x", "10", "9", "a")
    assert list(await catalog.tags(HERE, after=None, limit=10)) == [
        "10",
        "9",
        "B",
        "_x",
        "a",
        "a-1",
        "a.1",
        "b",
    ]


@pytest.mark.parametrize(
    ("after", "limit", "page"),
    [
        (None, 2, ["a", "b"]),
        ("b", 2, ["c", "d"]),
        ("bb", 9, ["c", "d"]),
        ("d", 9, []),
        ("zzz", 9, []),
        (None, 0, []),
    ],
)
async def test_tags_come_in_pages(catalog, after, limit, page):
    await commit(catalog, HERE, image("a"), "d", "b")
    await commit(catalog, HERE, image("b"), "a", "c")
    assert list(await catalog.tags(HERE, after=after, limit=limit)) == page


async def test_an_unknown_repository_has_no_list_of_tags(catalog):
    await commit(catalog, ELSEWHERE, image("a"), "v1")
    with pytest.raises(ContentNotFoundError):
        await catalog.tags(HERE, after=None, limit=10)


async def test_untagging_leaves_the_manifest_and_its_other_tags(catalog):
    target = await commit(catalog, HERE, image("a"), "v1", "v2")
    await catalog.untag(HERE, "v1")
    assert list(await catalog.tags(HERE, after=None, limit=10)) == ["v2"]
    assert (await catalog.resolve(HERE, target.digest)).digest == target.digest
    with pytest.raises(ContentNotFoundError):
        await catalog.resolve(HERE, "v1")


async def test_removing_takes_the_manifest_with_its_tags_out_of_one_repository(catalog):
    target = await commit(catalog, HERE, image("a"), "v1", "v2")
    await commit(catalog, HERE, image("b"), "v3")
    await commit(catalog, ELSEWHERE, image("a"), "v1")
    await catalog.remove(HERE, target.digest)
    assert list(await catalog.tags(HERE, after=None, limit=10)) == ["v3"]
    for identifier in ("v1", "v2", target.digest):
        with pytest.raises(ContentNotFoundError):
            await catalog.resolve(HERE, identifier)
    assert (await catalog.resolve(ELSEWHERE, "v1")).digest == target.digest


async def test_a_repository_ends_with_its_last_manifest(catalog):
    target = await commit(catalog, HERE, image("a"), "v1")
    await catalog.remove(HERE, target.digest)
    with pytest.raises(ContentNotFoundError):
        await catalog.tags(HERE, after=None, limit=10)


async def test_a_removed_manifest_comes_back_without_its_old_tags(catalog):
    target = await commit(catalog, HERE, image("a"), "v1")
    await catalog.remove(HERE, target.digest)
    await commit(catalog, HERE, image("a"), "v2")
    assert list(await catalog.tags(HERE, after=None, limit=10)) == ["v2"]


async def test_untagging_or_removing_what_is_not_there_is_an_error(catalog):
    target = await commit(catalog, ELSEWHERE, image("a"), "v1")
    for repository in (HERE, replace(ELSEWHERE, name="team/other")):
        with pytest.raises(ContentNotFoundError):
            await catalog.untag(repository, "v1")
        with pytest.raises(ContentNotFoundError):
            await catalog.remove(repository, target.digest)


async def test_referrers_carry_type_and_annotations_by_ascending_digest(catalog):
    subject = await commit(catalog, HERE, image("subject"), "v1")
    signature = image("signature", subject=subject, artifact_type="application/vnd.example.sig")
    report = image("report", subject=subject, config_type="application/vnd.example.report")
    for referrer in (signature, report):
        await commit(catalog, HERE, referrer)
    await commit(catalog, HERE, image("bystander"))
    found = await catalog.referrers(HERE, subject.digest)
    expected = {
        signature[0].digest: ("application/vnd.example.sig", {"mark": "signature"}),
        report[0].digest: ("application/vnd.example.report", {"mark": "report"}),
    }
    assert [item.digest for item in found] == sorted(expected)
    assert {item.digest: (item.artifact_type, dict(item.annotations)) for item in found} == expected


async def test_an_index_without_a_type_refers_without_one(catalog):
    subject, _ = image("subject")
    reference = {"mediaType": OCI_MANIFEST, "digest": subject.digest, "size": subject.size}
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "subject": reference}
    content = json.dumps(document).encode()
    await commit(catalog, HERE, (describe(OCI_INDEX, content), parse_manifest(content)))
    (found,) = await catalog.referrers(HERE, subject.digest)
    assert (found.media_type, found.artifact_type) == (OCI_INDEX, None)


async def test_a_referrer_may_come_before_its_subject_and_outlive_it(catalog):
    subject = image("subject")
    referrer = await commit(catalog, HERE, image("signature", subject=subject[0]))
    await commit(catalog, HERE, subject, "v1")
    await catalog.remove(HERE, subject[0].digest)
    (found,) = await catalog.referrers(HERE, subject[0].digest)
    assert found.digest == referrer.digest
    await catalog.remove(HERE, referrer.digest)
    assert list(await catalog.referrers(HERE, subject[0].digest)) == []


async def test_an_index_is_refused_whose_manifest_was_removed_just_before(catalog):
    child, _ = made = image("a")
    listed = [{"mediaType": OCI_MANIFEST, "digest": child.digest, "size": child.size}]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
    content = json.dumps(document).encode()
    index = describe(OCI_INDEX, content), parse_manifest(content)
    await commit(catalog, HERE, made)
    await catalog.remove(HERE, child.digest)
    with pytest.raises(CollectedError):
        await commit(catalog, HERE, index, "v1")
    with pytest.raises(ContentNotFoundError):
        await catalog.resolve(HERE, "v1")
    await commit(catalog, ELSEWHERE, made)
    await commit(catalog, HERE, index, "v1")


async def test_referrers_stay_in_their_repository(catalog):
    subject, _ = image("subject")
    await commit(catalog, ELSEWHERE, image("signature", subject=subject))
    assert list(await catalog.referrers(HERE, subject.digest)) == []
