"""Addresses of git repositories: which ones kitd goes to, and what it calls what is there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitd.hub.git_source import (
    InvalidGitSourceError,
    git_source,
    is_git_address,
    parse_git_url,
)

SECRET = "s3cret-word"


@pytest.mark.parametrize(
    ("url", "scheme", "authority", "name"),
    [
        ("https://git.example.com/org/name.git", "https", "git.example.com", "org/name"),
        ("https://Git.Example.com:443/org/name", "https", "git.example.com", "org/name"),
        ("https://git.example.com:8443/a/b/c.git/", "https", "git.example.com:8443", "a/b/c"),
        ("https://git.example.com/a%20b/c", "https", "git.example.com", "a b/c"),
        ("http://127.0.0.1:3000/org/name", "http", "127.0.0.1:3000", "org/name"),
        ("https://[2001:db8::1]/org/name", "https", "[2001:db8::1]", "org/name"),
        ("git@git.example.com:org/name.git", "ssh", "git.example.com", "org/name"),
        ("git.example.com:org/name.git", "ssh", "git.example.com", "org/name"),
        ("ssh://git@git.example.com:2222/org/name.git", "ssh", "git.example.com:2222", "org/name"),
        ("ssh://git@git.example.com:22/~ada/name", "ssh", "git.example.com", "~ada/name"),
        ("https://git.example.com/Org/Name.git", "https", "git.example.com", "Org/Name"),
        ("https://git.example.com/a/b.git/.git", "https", "git.example.com", "a/b.git/.git"),
        ("https://git.example.com/a/b.git.git", "https", "git.example.com", "a/b.git"),
        ("file:///srv/git/name.git", "file", "", "name"),
        ("file:///home/ada/work/.git", "file", "", "work"),
    ],
)
def test_where_addresses_lead(url, scheme, authority, name):
    place = parse_git_url(url)
    assert (place.scheme, place.authority, place.name) == (scheme, authority, name)
    assert str(git_source(url, None)) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "name",
        "org/name",
        "/srv/name.git",
        "ext::sh -c x",
        "ext::sh",
        "fd::7/x",
        "transport::https://git.example.com/x",
        "git://git.example.com/org/name",
        "ftp://git.example.com/org/name",
        "http://git.example.com/org/name",
        "https://git.example.com",
        "https://git.example.com/",
        "https:///org/name",
        "https://-option/org/name",
        "https://git.example.com/../name",
        "https://git.example.com/org/%2e%2e/name",
        "https://git.example.com/org%2fname",
        "https://git.example.com/org//name",
        "https://git.example.com//org/name",
        "https://git.example.com/org/name//",
        "https://git.example.com/org%252fname",
        "https://git.example.com/org/x%252f..%252fname",
        "git@git.example.com://org/name",
        "git@git.example.com:org/%2e%2e/name",
        "https://git.example.com/org/--upload-pack=x",
        "https://git.example.com/org/name?x=y",
        "https://git.example.com/org/name#x",
        "https://git.example.com/org\\name",
        "https://git.example.com/org/na me",
        "https://git.example.com/org/na\nme",
        "https://git.example.com:99999/org/name",
        f"https://ada:{SECRET}@git.example.com/org/name",
        f"https://{SECRET}@git.example.com/org/name",
        f"ssh://ada:{SECRET}@git.example.com/org/name",
        "ssh://-oProxyCommand=x/org/name",
        "ssh://-x@git.example.com/org/name",
        "-oProxyCommand=x:org/name",
        "git@-oProxyCommand=x:org/name",
        "-l@git.example.com:org/name",
        "git@git.example.com:-option",
        "file://elsewhere/srv/name",
        "file:///srv/../name",
        "https://git.example.com/" + "x" * 3000,
    ],
)
def test_what_is_no_address_is_refused_and_not_repeated(url):
    with pytest.raises(InvalidGitSourceError) as caught:
        parse_git_url(url)
    assert SECRET not in caught.value.message


@given(st.text())
def test_whatever_is_written_is_an_address_or_refused(text):
    for url in (text, f"https://git.example.com/{text}", f"git@{text}", f"ssh://{text}/x/y"):
        try:
            place = parse_git_url(url)
        except InvalidGitSourceError:
            continue
        assert not url.startswith("-")
        assert not place.host.startswith("-")
        assert ".." not in place.path.split("/")


@pytest.mark.parametrize(
    "revision", ["-x", "a b", "a..b", "a:b", "^a", "+a", "a~1", "x.lock", "@{-1}"]
)
def test_revisions_that_mean_something_else_to_git_are_refused(revision):
    with pytest.raises(InvalidGitSourceError):
        git_source("https://git.example.com/org/name", revision)


@pytest.mark.parametrize(
    ("text", "is_git"),
    [
        ("org/name", False),
        ("datasets/org/name", False),
        ("https://huggingface.co/org/name", False),
        ("git@git.example.com:org/name", True),
        ("ssh://git.example.com/org/name", True),
        ("file:///srv/name", True),
    ],
)
def test_some_addresses_can_only_be_gits(text, is_git):
    assert is_git_address(text) is is_git
