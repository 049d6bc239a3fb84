"""Secrets in what is said, in each of the spellings that they come back in."""

import base64
from urllib.parse import quote

import pytest

from kitd.errors import KitdError
from kitd.secret import MAX_SECRETS, REDACTED, Secrets

SECRET = 'p"ss w/rd+1'


@pytest.fixture
def secrets():
    known = Secrets()
    known.learn(SECRET, username="robot")
    return known


@pytest.mark.parametrize(
    "spelling",
    [
        SECRET,
        quote(SECRET, safe=""),
        'p\\"ss w/rd+1',
        base64.b64encode(f"robot:{SECRET}".encode()).decode(),
        base64.b64encode(SECRET.encode()).decode(),
    ],
    ids=["plain", "url", "json", "basic", "base64"],
)
def test_a_secret_is_taken_out_however_it_is_spelt(secrets, spelling):
    assert secrets.redact(f"before {spelling}, after") == f"before {REDACTED}, after"


def test_a_secret_that_holds_another_is_taken_out_whole(secrets):
    secrets.learn("token")
    secrets.learn("token-and-more")
    assert secrets.redact("x token-and-more y token") == f"x {REDACTED} y {REDACTED}"


def test_a_text_without_secrets_is_left_alone(secrets):
    assert secrets.redact("nothing of that kind") == "nothing of that kind"
    assert Secrets().redact(SECRET) == SECRET


def test_a_secret_of_three_letters_is_not_looked_for(secrets):
    secrets.learn("the")
    assert secrets.redact("the weather") == "the weather"


def test_the_oldest_are_forgotten(secrets):
    """Registries hand out a token for every few minutes."""
    secrets.learn("token-in-use")
    for number in range(MAX_SECRETS):
        secrets.learn("token-in-use")
        secrets.learn(f"token-{number}")
    assert secrets.redact("token-0 token-in-use") == f"token-0 {REDACTED}"
    assert secrets.redact(f"token-{MAX_SECRETS - 1}") == REDACTED


def test_an_error_that_passes_loses_its_secrets(secrets):
    with pytest.raises(KitdError) as caught, secrets.redacted():
        raise KitdError(f"the answer was {SECRET}", hint=f"not {SECRET}")
    assert caught.value.describe() == f"the answer was {REDACTED} (not {REDACTED})"


def test_a_repr_tells_nothing(secrets):
    assert "ss w" not in repr(secrets)
