"""A config's bytes, and reading configs from registries."""

import pytest

from kitd.modelkit.config_blob import MAX_CONFIG_BYTES, encode_config, parse_config
from kitd.modelkit.errors import InvalidConfigError
from kitd.modelkit.kitfile import Dataset, Docs, Kitfile, Model, Package, Prompt
from kitd.oci.digest import digest_of


def test_what_is_empty_is_left_out_but_for_version_package_and_docs_path():
    kitfile = Kitfile(model=Model(), docs=(Docs(),))
    assert encode_config(kitfile) == (
        b'{"manifestVersion":"","package":{},"model":{},"docs":[{"path":""}]}'
    )


def test_keys_stand_in_kits_order_with_digests_last():
    kitfile = Kitfile(
        manifest_version="1.0.0",
        package=Package(name="p"),
        datasets=(
            Dataset(
                name="d",
                path="x",
                remote_path="s3://b/k",
                remote_hash="h",
                license="MIT",
                parameters=False,
                digest=digest_of(b""),
                diff_id=digest_of(b"a"),
            ),
        ),
        prompts=(Prompt(name="n", path="p"),),
    )
    assert encode_config(kitfile).decode() == (
        '{"manifestVersion":"1.0.0","package":{"name":"p"},"datasets":[{"name":"d","path":"x",'
        '"remotePath":"s3://b/k","remoteHash":"h","license":"MIT","parameters":false,'
        f'"digest":"{digest_of(b"")}","diffId":"{digest_of(b"a")}"}}],'
        '"prompts":[{"name":"n","path":"p"}]}'
    )


def test_parameter_keys_are_sorted_at_every_level_and_lists_are_not():
    kitfile = Kitfile(model=Model(parameters={"b": ({"z": 1, "A": 2}, 0), "é": 1, "a": {}}))
    assert encode_config(kitfile).decode() == (
        '{"manifestVersion":"","package":{},'
        '"model":{"parameters":{"a":{},"b":[{"A":2,"z":1},0],"é":1}}}'
    )


def test_a_newer_kits_keys_are_ignored_and_nulls_are_empty():
    content = b'{"manifestVersion":null,"package":null,"model":{"name":"m","colour":1},"future":[]}'
    assert parse_config(content) == Kitfile(model=Model(name="m"))


def test_integers_are_exact():
    content = b'{"model":{"parameters":{"n":12345678901234567890}}}'
    assert parse_config(content).model == Model(parameters={"n": 12345678901234567890})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"model":[]}',
        b'{"package":{"name":1}}',
        b'{"package":{"authors":[1]}}',
        b'{"package":{"authors":"a"}}',
        b'{"code":[null]}',
        b'{"code":{}}',
        b'{"docs":[{"path":"x","digest":"sha256:short"}]}',
        b'{"model":{"parameters":1e999}}',
        b'{"model":{"parameters":{"\\ud800":1}}}',
        b'{"model":{"name":"\\udc00"}}',
        b'{"model":{"parameters":' + b"[" * 100 + b"]" * 100 + b"}}",
        b'{"model":{},"model":{}}',
        b" " * (MAX_CONFIG_BYTES + 1),
    ],
    ids=lambda content: content[:40],
)
def test_what_is_no_config_is_refused(content):
    with pytest.raises(InvalidConfigError):
        parse_config(content)
