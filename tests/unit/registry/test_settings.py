import pytest

from kitd.registry.profile import UploadProfile, profile_for
from kitd.registry.settings import (
    RegistrySettings,
    UploadMode,
    is_loopback,
    origin_of,
    remote_name,
)

MiB = 1024 * 1024


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


@pytest.mark.parametrize(
    ("registry", "size", "mode"),
    [
        ("ghcr.io", 500 * MiB, UploadMode.MONOLITHIC),
        ("europe-docker.pkg.dev", 500 * MiB, UploadMode.MONOLITHIC),
        ("eu.gcr.io", 500 * MiB, UploadMode.MONOLITHIC),
        ("gcr.io", 500 * MiB, UploadMode.MONOLITHIC),
        ("1.dkr.ecr.eu-west-1.amazonaws.com", 500 * MiB, UploadMode.MONOLITHIC),
        ("1.dkr.ecr.cn-north-1.amazonaws.com.cn", 500 * MiB, UploadMode.MONOLITHIC),
        ("notgcr.io", 500 * MiB, UploadMode.CHUNKED),
        ("registry.example.com:5000", 100 * MiB, UploadMode.CHUNKED),
        ("registry.example.com:5000", 100 * MiB - 1, UploadMode.MONOLITHIC),
    ],
)
def test_the_host_and_the_size_decide_how_a_blob_is_uploaded(registry, size, mode):
    assert profile_for(registry, RegistrySettings(), size).mode is mode


def test_the_configuration_beats_what_is_known_of_a_host():
    settings = RegistrySettings(upload_mode=UploadMode.CHUNKED, chunk_bytes=4 * MiB)
    profile = profile_for("ghcr.io", settings, 1)
    assert profile == UploadProfile(UploadMode.CHUNKED, 4 * MiB)


def test_a_size_of_chunk_bounds_single_requests_too():
    settings = RegistrySettings(chunk_bytes=4 * MiB)
    assert profile_for("r.example.com", settings, 4 * MiB).mode is UploadMode.MONOLITHIC
    assert profile_for("r.example.com", settings, 4 * MiB + 1).mode is UploadMode.CHUNKED
