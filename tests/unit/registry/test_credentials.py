import asyncio
import base64
import json
import os
import select
from pathlib import Path

import pytest

from kitd.registry.credentials import (
    CredentialsError,
    IdentityToken,
    Password,
    RegistryToken,
    ask_helper,
    auth_paths,
    find_credential,
    parse_auth_file,
    parse_helper_answer,
)
from kitd.registry.settings import Anonymous, DockerCredentials, PasswordFile, TokenFile

PATH = Path("/etc/kitd/auth.json")


def auth(username, password):
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


def parsed(**document):
    return parse_auth_file(json.dumps(document).encode(), PATH)


def test_files_are_searched_in_the_order_of_the_containers_tools():
    environment = {
        "HOME": "/home/ada",
        "XDG_RUNTIME_DIR": "/run/user/1",
        "XDG_CONFIG_HOME": "/conf",
        "DOCKER_CONFIG": "/docker",
    }
    assert list(map(str, auth_paths(environment))) == [
        "/run/user/1/containers/auth.json",
        "/conf/containers/auth.json",
        "/docker/config.json",
        "/home/ada/.dockercfg",
        "/home/ada/.local/share/kitops/credentials.json",
    ]
    shared = Path(f"/run/containers/{os.getuid()}/auth.json")
    of_root = [shared] if os.access(shared, os.R_OK) else []
    assert list(auth_paths({"HOME": "/home/ada"})) == [
        *of_root,
        Path("/home/ada/.config/containers/auth.json"),
        Path("/home/ada/.docker/config.json"),
        Path("/home/ada/.dockercfg"),
        Path("/home/ada/.local/share/kitops/credentials.json"),
    ]
    kit = {"XDG_DATA_HOME": "/data"}
    assert auth_paths(kit)[-1] == Path("/data/kitops/credentials.json")
    assert auth_paths({**kit, "KITOPS_HOME": "/kit"})[-1] == Path("/kit/credentials.json")
    granted = {**environment, "CREDENTIALS_DIRECTORY": "/run/credentials/kitd.service"}
    assert auth_paths(granted)[0] == Path("/run/credentials/kitd.service/registry-auth")
    only = {**granted, "REGISTRY_AUTH_FILE": "/only.json"}
    assert auth_paths(only) == (Path("/only.json"),)
    assert list(auth_paths({})) == of_root


def test_a_file_of_dockers_first_years_is_nothing_but_entries():
    content = json.dumps({"https://index.docker.io/v1/": {**auth("ada", "pw"), "email": "a@b.c"}})
    file = parse_auth_file(content.encode(), Path("/home/ada/.dockercfg"))
    assert file.entry_for("docker.io", "library/x") == Password("ada", "pw")


@pytest.mark.parametrize(
    ("key", "registry"),
    [
        ("registry.example.com", "registry.example.com"),
        ("registry.example.com:5000", "registry.example.com:5000"),
        ("https://registry.example.com", "registry.example.com"),
        ("https://registry.example.com/v1/", "registry.example.com"),
        ("http://registry.example.com:5000/v2/", "registry.example.com:5000"),
        ("registry.example.com/v1/", "registry.example.com"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("docker.io", "docker.io"),
        ("Registry.Example.com", "registry.example.com"),
    ],
)
def test_old_and_new_keys_are_found(key, registry):
    file = parsed(auths={key: auth("ada", "pw")})
    assert file.entry_for(registry, "team/model") == Password("ada", "pw")


def test_the_longest_path_wins():
    file = parsed(
        auths={
            "r.example.com": auth("host", "1"),
            "r.example.com/team": auth("team", "2"),
            "r.example.com/team/model": auth("model", "3"),
        }
    )
    for repository, username in [
        ("team/model", "model"),
        ("team/model/part", "model"),
        ("team/other", "team"),
        ("teams/model", "host"),
        (None, "host"),
    ]:
        assert file.entry_for("r.example.com", repository).username == username
    assert file.entry_for("other.example.com", "team/model") is None


@pytest.mark.parametrize(
    ("entry", "credential"),
    [
        (auth("ada", "a:b"), Password("ada", "a:b")),
        (auth("ada", "pw\0\0"), Password("ada", "pw")),
        ({"username": "ada", "password": "pw"}, Password("ada", "pw")),
        ({**auth("ada", ""), "identitytoken": "it"}, IdentityToken("it", "ada")),
        ({"identitytoken": "it", "registrytoken": "rt"}, IdentityToken("it")),
        ({"registrytoken": "rt"}, RegistryToken("rt")),
        (auth("<token>", "it"), IdentityToken("it")),
        ({}, None),
    ],
)
def test_every_form_of_an_entry_is_read(entry, credential):
    assert parsed(auths={"r": entry}).entry_for("r", None) == credential


def test_helpers_are_chosen_by_registry_before_the_store():
    file = parsed(credHelpers={"ecr.example.com": "ecr-login"}, credsStore="pass")
    assert file.helper_for("ecr.example.com") == "ecr-login"
    assert file.helper_for("other.example.com") == "pass"
    assert parsed().helper_for("other.example.com") is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"auths": []}',
        b'{"auths": {"r": "x"}}',
        b'{"auths": {"r": {"auth": "c2VjcmV0"}}}',
        b'{"auths": {"r": {"auth": "!secret!"}}}',
        b'{"auths": {"r": {"auth": "/////w=="}}}',
        b'{"credHelpers": 1}',
    ],
)
def test_a_malformed_file_is_named_and_its_content_is_not(content):
    with pytest.raises(CredentialsError, match=str(PATH)) as caught:
        parse_auth_file(content, PATH)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("output", "credential"),
    [
        (b'{"ServerURL":"r","Username":"ada","Secret":"pw"}', Password("ada", "pw")),
        (b'{"ServerURL":"r","Username":"<token>","Secret":"it"}', IdentityToken("it")),
        (b'{"ServerURL":"r","Username":"","Secret":""}', None),
    ],
)
def test_what_a_helper_prints_is_read(output, credential):
    assert parse_helper_answer(output) == credential


async def test_files_of_passwords_and_tokens_lose_the_newline_at_their_end(tmp_path):
    path = tmp_path / "secret"
    path.write_text(" s3cret \n")
    found = await find_credential(PasswordFile("ada", path), "r", None, {})
    assert found == Password("ada", " s3cret ")
    assert await find_credential(TokenFile(path), "r", None, {}) == IdentityToken(" s3cret ")


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff", b"x" * 70_000])
async def test_a_useless_password_file_is_named(tmp_path, content):
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CredentialsError, match=str(path)):
        await find_credential(PasswordFile("ada", path), "r", None, {})


async def test_the_first_file_with_an_answer_is_used(tmp_path):
    first, second = tmp_path / "run", tmp_path / "docker"
    (first / "containers").mkdir(parents=True)
    second.mkdir()
    (first / "containers" / "auth.json").write_text(
        json.dumps({"auths": {"one": auth("first", "pw")}})
    )
    (second / "config.json").write_text(
        json.dumps({"auths": {"one": auth("second", "pw"), "two": auth("second", "pw")}})
    )
    environment = {"XDG_RUNTIME_DIR": str(first), "DOCKER_CONFIG": str(second)}

    async def username(registry):
        found = await find_credential(DockerCredentials(), registry, None, environment)
        return found and found.username

    assert await username("one") == "first"
    assert await username("two") == "second"
    assert await username("three") is None
    assert await find_credential(Anonymous(), "one", None, environment) is None


@pytest.mark.parametrize("place", ["/dev/null", "/nowhere"])
async def test_a_place_without_logins_is_no_error(place):
    environment = {"DOCKER_CONFIG": place}
    assert await find_credential(DockerCredentials(), "one", None, environment) is None


@pytest.fixture
def helper(tmp_path):
    """Write a credential helper with this script and return the environment to find it in."""

    def write(script: str) -> dict[str, str]:
        path = tmp_path / "docker-credential-tests"
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)
        return {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    return write


async def test_a_helper_gets_the_server_on_its_standard_input(helper):
    environment = helper(
        'read s; printf "{\\"Username\\": \\"%s\\", \\"Secret\\": \\"%s\\"}" $1 $s'
    )
    assert await ask_helper("tests", "r.example.com", environment) == Password(
        "get", "r.example.com"
    )


async def test_a_helper_that_keeps_nothing_means_no_credential(helper):
    environment = helper("echo credentials not found in native keychain; exit 1")
    assert await ask_helper("tests", "r.example.com", environment) is None


@pytest.mark.parametrize(
    "script", ["exit 3", "echo s3cret", "echo '{}'", "yes s3cret", "exec >&-; exit 0"]
)
async def test_a_helper_that_fails_is_named_and_its_words_are_not(helper, script):
    with pytest.raises(CredentialsError, match="docker-credential-tests") as caught:
        await ask_helper("tests", "r.example.com", helper(script))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing", "../../bin/sh", ""])
async def test_a_helper_that_is_not_installed_is_named(helper, name):
    with pytest.raises(CredentialsError, match="not on the PATH"):
        await ask_helper(name, "r.example.com", helper("exit 0"))


async def test_a_helper_is_found_on_a_path_that_begins_here(helper, tmp_path, monkeypatch):
    environment = helper('echo \'{"Username": "u", "Secret": "s"}\'')
    monkeypatch.chdir(tmp_path)
    environment = {**environment, "PATH": environment["PATH"].replace(str(tmp_path), ".")}
    assert await ask_helper("tests", "r.example.com", environment) == Password("u", "s")


async def test_a_helper_that_is_no_longer_wanted_ends_with_all_it_started(helper, tmp_path):
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    environment = helper(f"sleep 1000 > {alive} & echo > {alive}; wait")
    asking = asyncio.create_task(ask_helper("tests", "r.example.com", environment))
    file = await asyncio.to_thread(alive.open, "rb")
    assert await asyncio.to_thread(file.read, 1) == b"\n"
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    # The end of the pipe: nobody who could write to it is left.
    assert select.select([file], [], [], 10)[0]
    assert file.read() == b""
    file.close()


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o604, True)])
async def test_a_secret_that_everybody_may_read_is_warned_about(tmp_path, capsys, mode, warned):
    """It is used all the same."""
    path = tmp_path / "password"
    path.write_text("secret")
    path.chmod(mode)
    found = await find_credential(PasswordFile("me", path), "r.example.com", None, {})
    assert found == Password("me", "secret")
    assert ("registry.secret_exposed" in capsys.readouterr().out) == warned
