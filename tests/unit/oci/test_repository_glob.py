import pytest

from kitd.oci.reference import InvalidReferenceError, parse_repository
from kitd.oci.repository_glob import parse_repository_glob


@pytest.mark.parametrize(
    ("glob", "repository"),
    [
        ("r.example.com/team/model", "r.example.com/team/model"),
        ("r.example.com/team/*", "r.example.com/team/model"),
        ("r.example.com/team/*-dev", "r.example.com/team/a-dev"),
        ("r.example.com/team/**", "r.example.com/team/a/b/c"),
        ("r.example.com/**/model", "r.example.com/a/b/model"),
        ("**", "r.example.com/team/model"),
        ("*/public/*", "localhost:5000/public/model"),
        ("r.example.com:5000/a/*", "r.example.com:5000/a/b"),
        ("R.Example.COM/team/*", "r.example.com/team/model"),
        ("r.example.com/team/*", "R.EXAMPLE.com/team/model"),
        ("docker.io/me/*", "index.docker.io/me/model"),
        ("docker.io/me/*", "registry-1.docker.io/me/model"),
        ("index.docker.io/me/*", "docker.io/me/model"),
        ("[::1]:5000/a", "[::1]:5000/a"),
    ],
)
def test_a_glob_names_a_repository_however_its_host_is_spelt(glob, repository):
    assert parse_repository_glob(glob).matches(parse_repository(repository))


@pytest.mark.parametrize(
    ("glob", "repository"),
    [
        ("r.example.com/team/*", "r.example.com/team/a/b"),
        ("r.example.com/team/*", "r.example.com/team"),
        ("r.example.com/team/*", "r.example.com/teams/a"),
        ("r.example.com/team/*", "r.example.com:443/team/a"),
        ("r.example.com:5000/team/*", "r.example.com/team/a"),
        ("r.example.com/team/*", "r.example.com.evil.net/team/a"),
        ("r.example.com/team/*", "rxexample.com/team/a"),
        ("r.example.com/team/*", "evil.net/r.example.com/team/a"),
        ("*/team/*", "r.example.com/x/team/a"),
        ("docker.io/me/*", "docker.io.evil.net/me/a"),
        ("docker.io/me/*", "docker.io/library/me/a"),
        ("**", "team/model"),
        ("localhost/*", "model"),
    ],
)
def test_what_only_looks_like_it_is_not_named(glob, repository):
    assert not parse_repository_glob(glob).matches(parse_repository(repository))


@pytest.mark.parametrize(
    "text",
    ["", "*", "team", "/a", "r.example.com/", "r.example.com/a/../b/", "r.example.com/Team/*",
     "r.example.com/a:tag", "r.example.com/a@x", "r.example.com/***", "r/a b", "r/" + "a" * 300,
     "r.example.com//a", "https://r.example.com/a", "r/[a]", "r/a\n"],
)  # fmt: skip
def test_what_is_no_glob_is_refused(text):
    with pytest.raises(InvalidReferenceError):
        parse_repository_glob(text)


@pytest.mark.parametrize("name", ["r.example.com/team/../prod", "r.example.com/./a"])
def test_a_path_that_climbs_is_no_repository_in_the_first_place(name):
    with pytest.raises(InvalidReferenceError):
        parse_repository(name)
