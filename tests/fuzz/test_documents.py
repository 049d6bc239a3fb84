"""Documents that have the right words in the wrong places: what a byte mutator seldom finds."""

import contextlib
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kitd.config.parse import parse_config
from kitd.config.places import find_places
from kitd.errors import KitdError
from kitd.modelkit.config_blob import parse_config as parse_kit_config
from kitd.modelkit.kitfile import parse_kitfile
from kitd.oci.manifest import parse_manifest
from kitd.oci.referrer import parse_referrers
from kitd.registry.credentials import parse_auth_file

EXAMPLES_PER_S = 60
DIGEST = "sha256:" + "0" * 64
PLACES = find_places({"HOME": "/home/ada"}, 1000)
KITFILE_WORDS = (
    *("manifestVersion", "package", "name", "version", "authors", "license", "description"),
    *("model", "path", "framework", "parameters", "parts", "type", "datasets", "code", "docs"),
    *("prompts", "mcpServers", "<<", "1.0.0", ".", "..", "/", "a/b", "registry.example.com/x:v1"),
)
MANIFEST_WORDS = (
    *("schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject"),
    *("annotations", "digest", "size", "urls", "data", "platform", DIGEST, "application/json"),
    *(f"application/vnd.oci.image.{kind}.v1+json" for kind in ("manifest", "index", "config")),
)
CONFIG_WORDS = (
    *("state_dir", "log", "level", "rpc", "access", "uid", "role", "admin", "cache", "dir"),
    *("use_at_most", "workers", "pack", "registries", "credentials", "docker", "username"),
    *("password_file", "token_file", "upload", "mode", "projects", "path", "reference", "tags"),
    *(
        "settle",
        "quiet",
        "mirrors",
        "source",
        "targets",
        "schedule",
        "webhooks",
        "listen",
        "/srv/x",
    ),
    *(
        "registry",
        "writable",
        "metrics",
        "retention",
        "1h",
        "10GiB",
        "127.0.0.1:5055",
        "{digest:12}",
    ),
    *("localhost/team/x", "registry.example.com", "unix:/run/x", "*/5 * * * *", "0600"),
)
AUTH_WORDS = (
    *("auths", "auth", "identitytoken", "registrytoken", "username", "password", "credHelpers"),
    *("credsStore", "https://index.docker.io/v1/", "YWRhOnNlY3JldA==", "registry.example.com"),
)


def documents(words):
    """Nested documents whose keys, and many of whose values, are these words."""
    word = st.sampled_from(words)
    scalar = st.one_of(
        word,
        word,
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(max_size=12),
    )
    return st.recursive(
        scalar,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(word, inner, max_size=6),
        max_leaves=25,
    )


def as_json(document) -> bytes:
    return json.dumps(document).encode("utf-8", "surrogatepass")


def as_yaml(document) -> bytes:
    return yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "surrogatepass")


TARGETS = {
    "Kitfile": (KITFILE_WORDS, as_yaml, parse_kitfile),
    "kit config": (KITFILE_WORDS, as_json, parse_kit_config),
    "manifest": (MANIFEST_WORDS, as_json, parse_manifest),
    "referrers": (MANIFEST_WORDS, as_json, parse_referrers),
    "configuration": (
        CONFIG_WORDS,
        as_yaml,
        lambda data: parse_config(data, source="kitd.yaml", places=PLACES),
    ),
    "docker config": (AUTH_WORDS, as_json, lambda data: parse_auth_file(data, Path("config.json"))),
}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TARGETS)
def test_a_document_is_taken_or_refused(name, fuzz_s):
    """Nothing but the errors that are meant for it."""
    words, encode, parse = TARGETS[name]

    @settings(
        max_examples=max(20, round(fuzz_s * EXAMPLES_PER_S)),
        suppress_health_check=list(HealthCheck),
        database=None,
        derandomize=True,
    )
    @given(documents(words))
    def check(document):
        with contextlib.suppress(KitdError):
            parse(encode(document))

    check()
