"""Pages of tags and of repositories, as registries in use and hostile ones write them."""

import json

import pytest

from kitd.oci.tag_list import (
    MAX_NAMES_A_PAGE,
    MAX_PAGE_BYTES,
    InvalidListError,
    ListedTag,
    parse_repositories,
    parse_tags,
)

A, B = (f"sha256:{letter * 64}" for letter in "ab")


def page(**document):
    return json.dumps(document).encode()


def described(*tags, **more):
    """Return what Artifact Registry says of a manifest."""
    return {
        "imageSizeBytes": "1234",
        "layerId": "",
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "tag": list(tags),
        "timeCreatedMs": "0",
        "timeUploadedMs": "1700000000000",
        **more,
    }


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ({"name": "team/model", "tags": ["v2", "latest", "v1"]}, ["v2", "latest", "v1"]),
        ({"name": "team/model", "tags": []}, []),
        ({"name": "team/model", "tags": None}, []),
        ({"name": "team/model"}, []),
        ({"tags": ["x" * 128, "_", "1.0-rc"], "more": {"of": "it"}}, ["x" * 128, "_", "1.0-rc"]),
    ],
)
def test_tags_are_listed_in_the_registrys_order(document, names):
    assert parse_tags(page(**document)) == [ListedTag(name) for name in names]


def test_a_list_with_manifests_says_what_each_tag_names():
    found = parse_tags(
        page(
            child=[],
            manifest={A: described("v1", "latest"), B: described()},
            name="project/team/model",
            tags=["latest", "v1", "v0"],
        )
    )
    assert found == [ListedTag("latest", A), ListedTag("v1", A), ListedTag("v0")]


def test_a_tag_that_only_the_manifests_know_is_not_listed():
    assert parse_tags(page(tags=["v1"], manifest={A: described("v1", "v2")})) == [
        ListedTag("v1", A)
    ]


@pytest.mark.parametrize(
    "manifest",
    [
        *(None, [], "v1", 5, {}, {A: None}, {A: []}, {A: "v1"}, {A: {}}, {A: {"tag": None}}),
        *({A: {"tag": "v1"}}, {A: {"tag": {"v1": 1}}}, {A: {"tag": [["v1"], None, 5]}}),
        *({"latest": described("v1")}, {"sha256:ab": described("v1")}),
        *({A.upper(): described("v1")}, {"": described("v1")}, {A: {"tags": ["v1"]}}),
    ],
)
def test_manifests_that_make_no_sense_are_not_believed(manifest):
    assert parse_tags(page(tags=["v1"], manifest=manifest)) == [ListedTag("v1")]


def test_of_manifests_in_part_nonsense_the_rest_is_believed():
    manifest = {"nonsense": described("v1"), A: described("v1"), B: 5}
    assert parse_tags(page(tags=["v1"], manifest=manifest)) == [ListedTag("v1", A)]


@pytest.mark.parametrize(
    "name",
    [*("", ".", "-x", "a b", "a/b", "a:b", "x" * 129, "é", "v1\n", "../x"), None, 5, True, [], {}],
)
def test_a_page_with_what_is_no_tag_is_refused(name):
    with pytest.raises(InvalidListError):
        parse_tags(page(tags=["v1", name]))


@pytest.mark.parametrize("parse", [parse_tags, parse_repositories])
@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"null", b"[]", b'["v1"]', b"tags", b"<html></html>", b"\xff\xfe", b"{"),
        *(b'{"tags":["a"],"tags":["b"]}', b'{"tags":["a"]} more', b'{"tags":[NaN]}'),
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"tags":[]}' + b" " * MAX_PAGE_BYTES,
    ],
    ids=lambda value: repr(value)[:30] if isinstance(value, bytes) else value.__name__,
)
def test_what_is_no_document_is_no_list(parse, body):
    with pytest.raises(InvalidListError):
        parse(body)


@pytest.mark.parametrize("listed", ["v1", "", 5, 0, False, {}, {"v1": 1}])
def test_what_is_no_list_of_names_is_refused(listed):
    with pytest.raises(InvalidListError, match="the tags are not a list"):
        parse_tags(page(tags=listed))
    with pytest.raises(InvalidListError, match="the repositories are not a list"):
        parse_repositories(page(repositories=listed))


def test_a_page_has_so_many_names_and_no_more():
    most = ["v1"] * MAX_NAMES_A_PAGE
    assert len(parse_tags(page(tags=most))) == MAX_NAMES_A_PAGE
    assert len(parse_repositories(page(repositories=most))) == MAX_NAMES_A_PAGE
    with pytest.raises(InvalidListError, match="more than"):
        parse_tags(page(tags=[*most, "v1"]))
    with pytest.raises(InvalidListError, match="more than"):
        parse_repositories(page(repositories=[*most, "v1"]))


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ({"repositories": ["team/model", "model", "a/b/c"]}, ["team/model", "model", "a/b/c"]),
        ({"repositories": None}, []),
        ({"repositories": []}, []),
        ({}, []),
    ],
)
def test_repositories_are_listed(document, names):
    assert parse_repositories(page(**document)) == names


@pytest.mark.parametrize(
    "name",
    [*("", "/", "Team/model", "team//model", "../x", "a/../b", "x:v1", "x" * 256), None, 5, ["x"]],
)
def test_what_is_no_repository_is_left_out(name):
    assert parse_repositories(page(repositories=["a", name, "b"])) == ["a", "b"]


def test_the_first_component_of_a_name_is_no_registry():
    assert parse_repositories(page(repositories=["docker.io/x", "host:5000/x"])) == ["docker.io/x"]
