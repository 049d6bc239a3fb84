"""What a hub may say is in a repository, and what people may call one."""

import json

import pytest

from kitd.hub.error import HubError, InvalidHubTreeError
from kitd.hub.tree import (
    MAX_FILES,
    Choice,
    HubFile,
    check_tree,
    hub_source,
    parse_page,
    parse_revision,
)

BLOB, SHA256 = "a" * 40, "b" * 64


def entry(path, **more):
    return {"type": "file", "path": path, "size": 3, "oid": BLOB, **more}


def parse(*entries):
    return parse_page(json.dumps(entries).encode())


def file(path, size=1):
    return HubFile(path=path, size=size, blob=BLOB, sha256="")


@pytest.mark.parametrize(
    ("text", "kind", "repository"),
    [
        ("org/name", "model", "org/name"),
        ("gpt2", "model", "gpt2"),
        ("Org-1/Name_2.0", "model", "Org-1/Name_2.0"),
        ("datasets/org/name", "dataset", "org/name"),
    ],
)
def test_repositories_have_names(text, kind, repository):
    source = hub_source(text, None)
    assert (source.type, source.repository, source.revision) == (kind, repository, "main")
    assert str(source) == text


@pytest.mark.parametrize(
    "text",
    ["", "a/b/c", "../x", "a/..", "a/b?x", "a b", "/a", "a/", "a/b#c", "ä/b", "a..b/c", "x" * 300],
)
def test_other_names_are_refused(text):
    with pytest.raises(InvalidHubTreeError, match="name of a repository"):
        hub_source(text, None)


@pytest.mark.parametrize("revision", ["../x", "a b", "-x", "x?y", "a..b", "r" * 300])
def test_revisions_that_are_none_are_refused(revision):
    with pytest.raises(InvalidHubTreeError, match="name of a revision"):
        hub_source("a/b", revision)


def test_a_page_gives_files_with_what_they_have_to_be():
    lfs = {"oid": f"sha256:{SHA256}", "size": 10**12, "pointerSize": 130}
    found = parse(
        {"type": "directory", "path": "d", "oid": BLOB, "size": 0},
        entry("d/a.json"),
        entry("w.bin", lfs=lfs, xetHash="x"),
    )
    assert found.files == (
        HubFile(path="d/a.json", size=3, blob=BLOB, sha256=""),
        HubFile(path="w.bin", size=10**12, blob="", sha256=SHA256),
    )
    assert found.entries == 3


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", HubError),
        (b"{}", HubError),
        (b'[{"type": "file"}]', HubError),
        (b'[{"type": "file", "path": "a", "size": "1"}]', HubError),
        (b"[" * 100_000, HubError),
        (b'[{"type":"file","path":"\xff"}]', HubError),
        (json.dumps([entry("a", type="link")]).encode(), InvalidHubTreeError),
        (json.dumps([entry("a", size=-1)]).encode(), InvalidHubTreeError),
        (json.dumps([entry("a", size=2**62)]).encode(), InvalidHubTreeError),
        (json.dumps([entry("a", oid="x")]).encode(), InvalidHubTreeError),
        (json.dumps([entry("a", lfs={"oid": "x", "size": 1})]).encode(), InvalidHubTreeError),
    ],
)
def test_a_page_that_is_none_is_an_error(content, error):
    with pytest.raises(error):
        parse_page(content)


@pytest.mark.parametrize(
    "path",
    [
        "", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/.", "..", "a\0b", "a\nb",
        "a\\b", ".git/hooks/post-checkout", "a/.GIT/config", "x" * 256, "a/" * 49 + "b",
        "b" * 200 + "/" + "c" * 200 + "/" + "d" * 200 + "/" + "e" * 200 + "/" + "f" * 250,
        "\u202eexe.txt", "\ud800",
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(path):
    with pytest.raises(InvalidHubTreeError):
        check_tree([file("fine.txt"), file(path)])


def test_names_that_clash_and_too_much_are_refused():
    with pytest.raises(InvalidHubTreeError, match="twice"):
        check_tree([file("a"), file("a")])
    with pytest.raises(InvalidHubTreeError, match="a file and a directory"):
        check_tree([file("a/b/c"), file("a/b")])
    with pytest.raises(InvalidHubTreeError, match="more than 20000 files"):
        check_tree([file(f"f{n}") for n in range(MAX_FILES + 1)])
    with pytest.raises(InvalidHubTreeError, match="bytes"):
        check_tree([file("a", 2**45), file("b", 2**46)])
    check_tree([file("a/b"), file("a/c"), file("ab"), file("A")])


def test_a_revision_is_a_commit_and_maybe_a_licence():
    def revision(*tags, sha="d" * 40):
        return parse_revision(json.dumps({"sha": sha, "tags": tags}).encode())

    assert revision("pytorch", "license:apache-2.0") == ("d" * 40, "apache-2.0")
    assert revision("license:other") == ("d" * 40, "")
    assert revision("license:mit", "license:gpl-3.0") == ("d" * 40, "")
    for sha in ("main", "", "D" * 40, "../../x"):
        with pytest.raises(HubError, match="no commit"):
            revision(sha=sha)


def test_patterns_choose():
    files = [file(path) for path in ("a.json", "d/b.json", "d/c.bin", "x.bin")]

    def chosen(include=(), exclude=()):
        choice = Choice(tuple(include), tuple(exclude))
        return [each.path for each in choice.of(files)]

    assert chosen() == ["a.json", "d/b.json", "d/c.bin", "x.bin"]
    assert chosen(["*.json"]) == ["a.json", "d/b.json"]
    assert chosen(["d/"]) == ["d/b.json", "d/c.bin"]
    assert chosen(["d/*", "a*"], ["*.bin"]) == ["a.json", "d/b.json"]
    assert chosen((), ["*"]) == []


def test_a_hash_is_gits_or_that_of_the_content():
    blob = HubFile(path="a", size=6, blob="ce013625030ba8dba906f756967f9e9ca394464a", sha256="")
    hasher = blob.hasher()
    hasher.update(b"hello\n")
    assert hasher.hexdigest() == blob.identity
