"""Names of the gateway and the repositories they stand for."""

import pytest

from kitd.config.address import parse_tcp_address
from kitd.gateway.naming import name_of, registry_names, repository_of
from kitd.oci.reference import InvalidReferenceError, Repository, parse_repository


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("model", "localhost/model"),
        ("team/model", "localhost/team/model"),
        ("team/v1.5/model_5000", "localhost/team/v1.5/model_5000"),
        ("v1.5", "localhost/v1.5"),
        ("model_5000", "localhost/model_5000"),
        ("model_123456/x", "localhost/model_123456/x"),
        ("registry.example.com/team/x", "registry.example.com/team/x"),
        ("registry.example.com_5000/team/x", "registry.example.com:5000/team/x"),
        ("localhost_5000/x", "localhost:5000/x"),
        ("127.0.0.1_5055/demo/x", "127.0.0.1:5055/demo/x"),
    ],
)
def test_a_name_stands_for_a_repository_and_back(name, repository):
    assert repository_of(name) == parse_repository(repository)
    assert name_of(parse_repository(repository)) == name


@pytest.mark.parametrize("name", ["model_5000/x", "v1.5/x"])
def test_own_repositories_that_look_like_a_registry_are_marked(name):
    own = Repository("localhost", name)
    assert name_of(own) == f"localhost/{name}"
    assert repository_of(f"localhost/{name}") == own


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "Team/model",
        "team//model",
        "team/../model",
        "../etc/passwd",
        "team/model/",
        "team:5000/model",
        "a_b.example.com/x",
        "a__5000/x",
        "localhost/model",
        "localhost/localhost_5000",
        "registry.example.com/",
        "té/model",
        "a" * 250,
        "registry.example.com/" + "a" * 240,
    ],
)
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InvalidReferenceError):
        repository_of(name)


@pytest.mark.parametrize(
    "repository",
    [
        Repository("[::1]:5000", "x"),
        Repository("Registry.example.com", "x"),
        Repository("host", "x"),
        Repository("localhost", "localhost/x"),
    ],
)
def test_a_repository_that_cannot_be_written_as_a_name_has_none(repository):
    with pytest.raises(InvalidReferenceError):
        name_of(repository)


@pytest.mark.parametrize(
    ("listen", "names"),
    [
        ("127.0.0.1:5055", ["127.0.0.1:5055", "localhost:5055", "[::1]:5055"]),
        ("localhost:5055", ["localhost:5055", "127.0.0.1:5055", "[::1]:5055"]),
        ("LocalHost:5055", ["localhost:5055", "127.0.0.1:5055", "[::1]:5055"]),
        ("[::1]:5055", ["[::1]:5055", "localhost:5055", "127.0.0.1:5055"]),
        ("127.0.0.2:80", ["127.0.0.2:80", "localhost:80", "127.0.0.1:80", "[::1]:80"]),
        ("0.0.0.0:5055", ["0.0.0.0:5055", "localhost:5055", "127.0.0.1:5055", "[::1]:5055"]),
        ("[::]:5055", ["[::]:5055", "localhost:5055", "127.0.0.1:5055", "[::1]:5055"]),
        ("192.0.2.7:5055", ["192.0.2.7:5055"]),
        ("Kitd.example.com:5055", ["kitd.example.com:5055"]),
    ],
)
def test_a_registry_has_the_names_that_its_users_have_for_it(listen, names):
    assert list(registry_names(parse_tcp_address(listen))) == names
    for name in names:
        assert parse_repository(f"{name}/team/model").registry == name
