"""Where an endpoint is: read from files that people write, and never repeated."""

import os

import pytest

from kitd.config.address import Endpoint
from kitd.config.model import NotificationConfig
from kitd.outbox.error import EndpointFileError
from kitd.outbox.target import read_target
from kitd.secret_file import MAX_BYTES

URL = "https://hooks.example.com/services/T0/hunter2?key=hunter2"


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "file"
        path.write_bytes(content)
        return path

    return write


def test_a_url_and_no_secret():
    target = read_target(NotificationConfig(url=Endpoint("http://127.0.0.1:8080/hooks/kitd")))
    assert str(target.url) == "http://127.0.0.1:8080/hooks/kitd"
    assert (target.secret, target.secrets) == (None, ("http://127.0.0.1:8080/hooks/kitd",))
    assert target.host == "http://127.0.0.1:8080"


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("http://a.example", ()),
        ("http://a.example/", ()),
        ("http://a.example/kitd", ("http://a.example/kitd",)),
        (URL, (URL, "/services/T0/hunter2?key=hunter2")),
    ],
)
def test_what_follows_the_host_is_not_repeated(write, url, secrets):
    """But for short paths: `/kitd` stands in the name of every file of kitd's."""
    for config in ({"url": Endpoint(url)}, {"url_file": write(url.encode())}):
        target = read_target(NotificationConfig(**config))
        assert target.secrets == secrets
        assert "hunter2" not in repr(target)


def test_a_secret_is_what_stands_in_its_file(write):
    config = NotificationConfig(
        url=Endpoint("http://a.example/"), secret_file=write(b"  correct horse battery\r\n")
    )
    target = read_target(config)
    assert target.secret == b"correct horse battery"
    assert target.secrets == ("correct horse battery",)
    assert "horse" not in repr(target)


def test_a_secret_need_not_be_text(write):
    config = NotificationConfig(
        url=Endpoint("http://a.example/"), secret_file=write(bytes(range(128, 256)))
    )
    target = read_target(config)
    assert target.secret == bytes(range(128, 256))
    # Others take note of it as text.
    assert all(secret.encode() for secret in target.secrets)


def test_a_url_that_is_a_secret(write):
    target = read_target(NotificationConfig(url_file=write(f"{URL}\n".encode())))
    assert str(target.url) == URL
    assert target.host == "https://hooks.example.com"
    assert set(target.secrets) == {URL, "/services/T0/hunter2?key=hunter2"}
    assert "hunter2" not in repr(target)


@pytest.mark.parametrize(
    "content",
    [b"", b" \n", b"hunter2", b"ftp://hunter2/", b"http://me:hunter2@a.example/", b"\xff" * 9],
)
def test_what_is_no_url_is_refused_and_not_repeated(write, content):
    with pytest.raises(EndpointFileError) as caught:
        read_target(NotificationConfig(url_file=write(content)))
    assert "hunter2" not in caught.value.describe()
    assert caught.value.hint


@pytest.mark.parametrize("content", [b"", b"\n", b"fifteen letters\n", b"x" * (MAX_BYTES + 1)])
def test_a_file_without_a_secret(write, content):
    config = NotificationConfig(url=Endpoint("http://a.example/"), secret_file=write(content))
    with pytest.raises(EndpointFileError) as caught:
        read_target(config)
    assert "fifteen" not in caught.value.describe()


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, says in (("pipe", "not a file"), ("missing", "No such file"), (".", "directory")):
        config = NotificationConfig(url=Endpoint("http://a.example/"), secret_file=tmp_path / name)
        with pytest.raises(EndpointFileError, match=says):
            read_target(config)
