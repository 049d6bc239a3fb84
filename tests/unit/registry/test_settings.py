import pytest

from kitd.registry.settings import (
    RegistrySettings,
    is_loopback,
    origin_of,
    remote_name,
)


@pytest.mark.parametrize(
    ("registry", "loopback"),
    [
        ("localhost:5000", True),
        ("127.0.0.1", True),
        ("127.9.9.9:5000", True),
        ("[::1]:5000", True),
        ("[::1]", True),
        ("[2001:db8::1]:5000", False),
        ("registry.example.com", False),
        ("localhost.example.com:80", False),
        ("128.0.0.1:5000", False),
    ],
)
def test_loopback_is_what_names_this_machine(registry, loopback):
    assert is_loopback(registry) is loopback


@pytest.mark.parametrize(
    ("registry", "plain_http", "origin"),
    [
        ("localhost:5000", None, "http://localhost:5000"),
        ("localhost:5000", False, "https://localhost:5000"),
        ("registry.example.com", None, "https://registry.example.com"),
        ("registry.example.com", True, "http://registry.example.com"),
        ("[::1]:5000", None, "http://[::1]:5000"),
        ("docker.io", None, "https://registry-1.docker.io"),
    ],
)
def test_tls_is_used_everywhere_but_on_this_machine(registry, plain_http, origin):
    assert str(origin_of(registry, RegistrySettings(plain_http=plain_http))) == origin


@pytest.mark.parametrize(
    ("registry", "name", "remote"),
    [
        ("docker.io", "alpine", "library/alpine"),
        ("docker.io", "team/model", "team/model"),
        ("registry.example.com", "alpine", "alpine"),
    ],
)
def test_only_docker_hub_has_a_library(registry, name, remote):
    assert remote_name(registry, name) == remote


def test_a_proxy_with_a_password_is_not_shown():
    assert "s3cret" not in repr(RegistrySettings(proxy="http://ada:s3cret@proxy:3128"))
