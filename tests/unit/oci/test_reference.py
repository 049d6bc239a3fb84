"""References: kit's grammar under the strict rules of the distribution specification."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitd.oci.digest import digest_of
from kitd.oci.reference import (
    LOCAL,
    MAX_NAME,
    InvalidReferenceError,
    Reference,
    Repository,
    check_tag,
    parse_reference,
    parse_repository,
    parse_tagged,
)

DIGEST = digest_of(b"")


@pytest.mark.parametrize(
    ("text", "registry", "name", "tag", "digest"),
    [
        ("model", LOCAL, "model", None, None),
        ("model:v1", LOCAL, "model", "v1", None),
        ("a/b/c/d", LOCAL, "a/b/c/d", None, None),
        ("team/model:v1", LOCAL, "team/model", "v1", None),
        ("localhost/team/model:v1", LOCAL, "team/model", "v1", None),
        ("localhost:5000/model", "localhost:5000", "model", None, None),
        ("localhost:65535/model", "localhost:65535", "model", None, None),
        ("[::1]:5000/model", "[::1]:5000", "model", None, None),
        ("localhost:5000/model:v1", "localhost:5000", "model", "v1", None),
        ("registry.example.com/team/model", "registry.example.com", "team/model", None, None),
        ("registry.example.com/a/b/c:v1", "registry.example.com", "a/b/c", "v1", None),
        ("registry.example.com:80/a:v1", "registry.example.com:80", "a", "v1", None),
        (f"model@{DIGEST}", LOCAL, "model", None, DIGEST),
        (f"registry.example.com/model@{DIGEST}", "registry.example.com", "model", None, DIGEST),
        (f"registry.example.com/model:v1@{DIGEST}", "registry.example.com", "model", None, DIGEST),
        ("a.b", LOCAL, "a.b", None, None),
        ("a.b:1", LOCAL, "a.b", "1", None),
        ("[::1]:5000/model:v1", "[::1]:5000", "model", "v1", None),
        ("127.0.0.1:5000/a__b/c--d/e_f.g", "127.0.0.1:5000", "a__b/c--d/e_f.g", None, None),
        ("Registry.Example.COM:80/a", "registry.example.com:80", "a", None, None),
        ("LOCALHOST:5000/a", "localhost:5000", "a", None, None),
        ("index.docker.io/a/b:v1", "docker.io", "a/b", "v1", None),
        ("Registry-1.Docker.io/a/b", "docker.io", "a/b", None, None),
        ("index.docker.io:443/a", "index.docker.io:443", "a", None, None),
        ("localhost:443/a", "localhost:443", "a", None, None),
        ("model:_Tag.with-all_9", LOCAL, "model", "_Tag.with-all_9", None),
    ],
)
def test_a_reference_is_registry_repository_and_one_of_tag_and_digest(
    text, registry, name, tag, digest
):
    reference = parse_reference(text)
    assert reference == Reference(Repository(registry, name), tag, digest)
    assert reference.identifier == (digest or tag or "latest")
    assert reference.repository.is_local == (registry == LOCAL)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "/model",
        "model/",
        "a//b",
        "Model",
        "registry.example.com/Team/model",
        "localhost:65536/model",
        "localhost:0/model",
        "[::g]:5000/model",
        "[1:2]/model",
        f"{'a' * 64}.example.com/model",
        "registry.example.com/",
        "registry.example.com/-a",
        "registry.example.com/a-",
        "registry.example.com/a..b",
        "registry.example.com/a___b",
        "registry.example.com/../b",
        "a/.",
        "_",
        "modèle",
        "model:",
        "model:-v1",
        "model:.v1",
        "model:v 1",
        "model:v1\n",
        "model:" + "a" * 129,
        "model:v1:v2",
        "model@",
        "model@v1",
        "model@sha256:abc",
        f"model@{DIGEST}@{DIGEST}",
        f"@{DIGEST}",
        "-host.example.com/model",
        "host_name.example.com/model",
        "host.example.com:/model",
        "host.example.com:port/model",
        "host.example.com:123456/model",
        "user@host.example.com/model",
        "https://host.example.com/model",
        "./models/film:champion",
        "host.example.com/model?x",
        "host.example.com/model#x",
        "host.example.com/model%2e",
        "host.example.com/model\0",
        "host.example.com/" + "a" * MAX_NAME,
    ],
)
def test_what_is_not_a_reference_is_refused(text):
    with pytest.raises(InvalidReferenceError) as caught:
        parse_reference(text)
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("text", ["a" * 1_000_000, "a." * 500_000 + "/x", "A:" * 500_000])
def test_long_text_is_refused_in_a_short_line(text):
    with pytest.raises(InvalidReferenceError) as caught:
        parse_reference(text)
    assert len(caught.value.message) < 250


def test_the_longest_name_is_accepted():
    registry = "registry.example.com"
    name = "a" * (MAX_NAME - len(registry) - 1)
    assert parse_repository(f"{registry}/{name}") == Repository(registry, name)
    with pytest.raises(InvalidReferenceError):
        parse_repository(f"{registry}/{name}a")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("localhost/model:v1", "model:v1"),
        ("localhost/localhost/model", "localhost/localhost/model"),
        ("localhost/a.b/c", "localhost/a.b/c"),
        ("registry.example.com/model:v1", "registry.example.com/model:v1"),
        (f"model:v1@{DIGEST}", f"model@{DIGEST}"),
    ],
)
def test_a_reference_is_written_as_briefly_as_it_can_be_read(text, written):
    assert str(parse_reference(text)) == written
    assert parse_reference(written) == parse_reference(text)


COMPONENT = st.from_regex(r"[a-z0-9]{1,6}(?:(?:[._]|__|-{1,3})[a-z0-9]{1,6}){0,2}", fullmatch=True)
NAMES = st.lists(st.just(LOCAL) | COMPONENT, min_size=1, max_size=4).map("/".join)
REGISTRIES = st.sampled_from(
    [LOCAL, "localhost:5000", "registry.example.com", "10.0.0.1:5000", "[::1]", "h:1"]
)
TAGS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True)


@st.composite
def references(draw):
    repository = Repository(draw(REGISTRIES), draw(NAMES))
    kind = draw(st.sampled_from(["bare", "tag", "digest"]))
    if kind == "tag":
        return Reference(repository, tag=draw(TAGS))
    return Reference(repository, digest=digest_of(draw(st.binary())) if kind == "digest" else None)


@given(references())
def test_what_is_written_reads_as_the_same_reference(reference):
    assert parse_reference(str(reference)) == reference


@given(st.text(alphabet="aA0.:/@-_[]%, \n", max_size=40))
def test_any_text_is_a_reference_that_reads_back_or_is_refused(text):
    try:
        reference = parse_reference(text)
    except InvalidReferenceError:
        return
    assert parse_reference(str(reference)) == reference


def test_further_tags_follow_commas():
    reference, tags = parse_tagged("registry.example.com/model:v1,v2,latest")
    assert (str(reference), tags) == ("registry.example.com/model:v1", ("v2", "latest"))
    assert parse_tagged("model") == (Reference(Repository(LOCAL, "model")), ())


@pytest.mark.parametrize(
    "text", ["model:v1,", "model,bad tag!", "model,a/b:c", f"m@{DIGEST},v1", f"m@{DIGEST}"]
)
def test_further_tags_are_checked(text):
    with pytest.raises(InvalidReferenceError):
        parse_tagged(text)


def test_references_to_other_content_of_the_same_repository():
    bare = parse_reference("registry.example.com/model")
    assert str(bare.with_default_tag()) == "registry.example.com/model:latest"
    tagged = parse_reference("registry.example.com/model:v2")
    assert tagged.with_default_tag() == tagged
    assert str(tagged.pinned(DIGEST)) == f"registry.example.com/model@{DIGEST}"
    assert bare.pinned(DIGEST).with_default_tag() == bare.pinned(DIGEST)


def test_a_tag_has_at_most_128_characters():
    assert check_tag("a" * 128) == "a" * 128
    with pytest.raises(InvalidReferenceError):
        check_tag("a" * 129)
