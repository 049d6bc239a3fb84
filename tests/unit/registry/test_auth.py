import pytest
from yarl import URL

from kitd.oci.challenge import Challenge
from kitd.oci.json_reader import InvalidJsonError
from kitd.registry.auth.basic import basic_authorization
from kitd.registry.auth.bearer import (
    EARLY_S,
    MOST_LIFE_S,
    USUAL_LIFE_S,
    parse_token,
    realm_of,
)
from kitd.registry.auth.scope import Scope, merge, parse_scopes, pull, push
from kitd.registry.credentials import Password


def test_scopes_are_written_as_token_servers_read_them():
    assert str(pull("team/model")) == "repository:team/model:pull"
    assert str(push("team/model")) == "repository:team/model:pull,push"


def test_scopes_are_read_whatever_is_between_them():
    assert parse_scopes("repository:host:5000/x:pull,push registry:catalog:* junk") == (
        Scope("repository:host:5000/x", frozenset({"pull", "push"})),
        Scope("registry:catalog", frozenset({"*"})),
    )


def test_a_scope_is_extended_and_not_repeated():
    assert merge((pull("a"), push("b"), push("a"))) == (push("a"), push("b"))


@pytest.mark.parametrize(
    ("body", "used_s"),
    [
        (b'{"token": "t"}', USUAL_LIFE_S - EARLY_S),
        (b'{"token": "t", "expires_in": 5}', 2.5),
        (b'{"token": "t", "expires_in": 12}', 7),
        (b'{"access_token": "t", "expires_in": 300}', 300 - EARLY_S),
        (b'{"token": "t", "access_token": "u", "expires_in": "300"}', USUAL_LIFE_S - EARLY_S),
        (b'{"token": "t", "expires_in": 999999999}', MOST_LIFE_S - EARLY_S),
        (b'{"token": "t", "expires_in": 0}', USUAL_LIFE_S - EARLY_S),
        (b'{"token": "t", "expires_in": -1, "issued_at": "2001-01-01T00:00:00Z"}', 60 - EARLY_S),
    ],
)
def test_a_token_is_used_until_shortly_before_its_end(body, used_s):
    token = parse_token(body, now=1000.0)
    assert token.value == "t"
    assert token.use_until == 1000.0 + used_s


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"token": ""}', b'{"token": "a b"}', b'{"token": "a\\nb"}']
)
def test_an_answer_without_a_token_is_refused(body):
    with pytest.raises(InvalidJsonError):
        parse_token(body, now=0.0)


@pytest.mark.parametrize(
    ("origin", "realm", "url"),
    [
        ("https://r.example.com", "https://auth.example.com/t", "https://auth.example.com/t"),
        ("https://r.example.com", "/token", "https://r.example.com/token"),
        ("https://r.example.com", "http://auth.example.com/t", None),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5001/t", "http://127.0.0.1:5001/t"),
        ("http://127.0.0.1:5000", "https://auth.example.com/t", "https://auth.example.com/t"),
        ("https://r.example.com", "https://ada@auth.example.com/t", None),
        ("https://r.example.com", "javascript:alert(1)", None),
        ("https://r.example.com", "https://[broken", None),
    ],
)
def test_credentials_go_to_token_servers_behind_tls_only(origin, realm, url):
    found = realm_of(Challenge("bearer", {"realm": realm}), URL(origin))
    assert (None if found is None else str(found)) == url


def test_a_challenge_without_a_realm_names_no_token_server():
    assert realm_of(Challenge("bearer", {}), URL("https://r.example.com")) is None


def test_secrets_are_not_shown():
    assert "pw" not in repr(Password("ada", "pw"))
    assert "abc" not in repr(parse_token(b'{"token": "abc"}', now=0.0))


def test_basic_takes_any_password():
    assert basic_authorization("ada", "a:ü") == "Basic YWRhOmE6w7w="
