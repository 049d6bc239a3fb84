import pytest
from yarl import URL

from kitd.oci.digest import digest_of
from kitd.registry.location import (
    InvalidLocationError,
    resolve_location,
    resolve_upload,
    same_origin,
    with_digest,
)

BASE = URL("https://r.example.com:8443/v2/team/model/blobs/uploads/")


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/v2/x/1?_state=a%2Fb%3D", "https://r.example.com:8443/v2/x/1?_state=a%2Fb%3D"),
        ("one", "https://r.example.com:8443/v2/team/model/blobs/uploads/one"),
        ("?_state=1", "https://r.example.com:8443/v2/team/model/blobs/uploads/?_state=1"),
        ("https://r.example.com/v2/one", "https://r.example.com:8443/v2/one"),
        ("https://storage.example.com/one", "https://storage.example.com/one"),
        ("//storage.example.com:99/one", "https://storage.example.com:99/one"),
    ],
)
def test_an_upload_goes_on_where_the_registry_says(location, target):
    assert str(resolve_upload(BASE, location)) == target


@pytest.mark.parametrize(
    "location",
    [
        "http://r.example.com:8443/v2/one",
        "http://storage.example.com/",
        "file:///etc/passwd",
        "https://ada:pw@storage.example.com/",
        "https://[broken/",
        "https://host:99999999/",
        "mailto:ada@storage.example.com",
    ],
)
def test_what_leads_down_or_nowhere_is_refused(location):
    """And not quoted: it may be signed."""
    with pytest.raises(InvalidLocationError) as caught:
        resolve_location(BASE, f"{location}?signature=s3cret")
    assert "s3cret" not in str(caught.value)


def test_a_redirect_keeps_the_port_it_names():
    assert resolve_location(BASE, "https://r.example.com/blob").port == 443


def test_a_port_that_is_the_default_is_the_same_origin():
    assert same_origin(URL("https://r.example.com/a"), URL("https://r.example.com:443/b"))
    assert not same_origin(URL("http://r.example.com"), URL("https://r.example.com"))
    assert not same_origin(URL("https://r.example.com"), URL("https://r.example.com:8443"))


@pytest.mark.parametrize("query", ["", "?_state=a%2Fb%3D&x=%20"])
def test_the_digest_is_added_to_whatever_query_there_is(query):
    ended = str(with_digest(URL(f"https://r/u{query}", encoded=True), digest_of(b"")))
    assert ended.startswith(f"https://r/u{query}" + ("&" if query else "?") + "digest=sha256%3A")
