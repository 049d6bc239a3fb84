"""What LFS servers are asked, and what of their answers is believed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitd.errors import KitdError
from kitd.hub.error import HubDeniedError, HubError, HubNotFoundError, HubUnavailableError
from kitd.hub.git_source import parse_git_url
from kitd.hub.lfs import (
    authenticate_command,
    batch_request,
    lfs_endpoint,
    parse_authenticated,
    parse_batch,
)
from kitd.hub.tree import HubFile

OID = "ab" * 32
FILE = HubFile(path="m.bin", size=5, blob="", sha256=OID)
HREF = "https://storage.example.com/x?signed=yes"


def answer(**changes):
    link = {"href": HREF, "header": {"Authorization": "Basic x"}} | changes
    return json.dumps(
        {"objects": [{"oid": OID, "size": 5, "actions": {"download": link}}]}
    ).encode()


def problem(code):
    error = {"code": code, "message": "gone\x1b"}
    return json.dumps({"objects": [{"oid": OID, "error": error}]}).encode()


def test_the_server_belongs_to_the_repository():
    expected = "https://git.example.com/org/name.git/info/lfs"
    assert lfs_endpoint("https://git.example.com/org/name") == expected
    assert lfs_endpoint("https://git.example.com/org/name.git/") == expected


def test_one_file_is_asked_for_and_found():
    asked = json.loads(batch_request(FILE))
    assert (asked["operation"], asked["objects"]) == ("download", [{"oid": OID, "size": 5}])
    action = parse_batch(answer(), FILE)
    assert (action.url, action.headers) == (HREF, {"Authorization": "Basic x"})
    assert "signed" not in repr(action)
    assert "Basic" not in repr(action)


def test_headers_that_say_how_requests_are_made_are_not_taken():
    given = {"Host": "other", "Range": "bytes=9-", "content-length": "1", "X-Own": "y"}
    assert parse_batch(answer(header=given), FILE).headers == {"X-Own": "y"}


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", HubError),
        (b"[]", HubError),
        (b'{"objects": []}', HubError),
        (answer().replace(OID.encode(), b"cd" * 32), HubError),
        (answer(href="file:///etc/passwd"), HubError),
        (answer(href="https://ada:x@storage.example.com/"), HubError),
        (answer(href="https://"), HubError),
        (answer(href="https://[::1/x"), HubError),
        (answer(header={"X-A": "b\r\nX-C: d"}), HubError),
        (answer(header={"X A": "b"}), HubError),
        (answer(header={f"X-{number}": "b" for number in range(30)}), HubError),
        (answer()[:-1] + b', "transfer": "multipart"}', HubError),
        (problem(404), HubNotFoundError),
        (problem(403), HubDeniedError),
        (problem(509), HubUnavailableError),
    ],
)
def test_what_cannot_be_followed_is_an_error_of_its_own(content, error):
    with pytest.raises(error) as caught:
        parse_batch(content, FILE)
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize("end", ["?x=", "#", "/a?b=c", "#x"])
def test_a_server_whose_address_would_swallow_the_question_is_refused(end):
    link = {"href": f"https://git.example.com/v1/admin{end}"}
    with pytest.raises(HubError):
        parse_authenticated(json.dumps(link).encode())


@given(st.binary())
def test_whatever_is_answered_is_read_or_refused(content):
    for read in (lambda: parse_batch(content, FILE), lambda: parse_authenticated(content)):
        try:
            read()
        except KitdError:
            continue


def test_a_path_is_one_word_for_the_shell_at_the_other_end():
    place = parse_git_url("git@git.example.com:org/na;touch$IFS'x'")
    assert authenticate_command(place) == (
        "git-lfs-authenticate 'org/na;touch$IFS'\"'\"'x'\"'\"'' download"
    )
