"""Where the hub is and which token it is shown, from the configuration and the environment."""

import pytest

from kitd.config.model import HubConfig
from kitd.hub.error import InvalidHubError
from kitd.importing.settings import read_settings

CONFIG = HubConfig(endpoint="https://hub.example.com")


def settings(config=CONFIG, **environ):
    found = read_settings(config, environ)
    return str(found.endpoint).rstrip("/"), found.token


def test_the_environment_comes_before_the_configuration(tmp_path):
    token = tmp_path / "token"
    token.write_text("hf_file\n")
    config = HubConfig(endpoint="https://hub.example.com", token_file=token)
    assert settings() == ("https://hub.example.com", None)
    assert settings(config) == ("https://hub.example.com", "hf_file")
    other = {"HF_ENDPOINT": "https://other.example.com/", "HF_TOKEN": " hf_variable "}
    assert settings(config, **other) == ("https://other.example.com", "hf_variable")
    path = tmp_path / "another"
    path.write_text("hf_path")
    assert settings(config, HF_TOKEN_PATH=str(path))[1] == "hf_path"


def test_the_token_of_the_hubs_tools_is_found(tmp_path):
    kept = tmp_path / ".cache" / "huggingface"
    kept.mkdir(parents=True)
    (kept / "token").write_text("hf_kept")
    assert settings(HOME=str(tmp_path))[1] == "hf_kept"
    assert settings(HF_HOME=str(kept))[1] == "hf_kept"
    assert settings(HOME="")[1] is None
    assert "hf_kept" not in repr(read_settings(CONFIG, {"HF_HOME": str(kept)}))


def test_no_token_goes_over_a_wire_that_others_read():
    with pytest.raises(InvalidHubError, match="without TLS"):
        settings(HF_ENDPOINT="http://hub.example.com", HF_TOKEN="hf_x")
    assert settings(HF_ENDPOINT="http://127.0.0.1:9", HF_TOKEN="hf_x")[1] == "hf_x"


@pytest.mark.parametrize(
    "environ",
    [
        {"HF_ENDPOINT": "hub.example.com"},
        {"HF_ENDPOINT": "https://me:secret@hub.example.com"},
        {"HF_TOKEN": "secret\r\nX-Header: 1"},
        {"HF_TOKEN": "secret ü"},
        {"HF_TOKEN_PATH": "/absent/secret"},
    ],
)
def test_what_cannot_be_used_is_told_without_the_secret(environ):
    with pytest.raises(InvalidHubError) as caught:
        settings(**environ)
    if "HF_TOKEN_PATH" not in environ:
        assert "secret" not in caught.value.describe()
