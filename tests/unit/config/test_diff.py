"""Which keys differ between two configurations, and which of them need a restart."""

import dataclasses
from pathlib import Path

import pytest

from kitd.config.diff import LIVE, compare_configs, is_live
from kitd.config.model import Config, RpcConfig, key_of
from kitd.config.parse import parse_config


@pytest.fixture
def read(places):
    return lambda text: parse_config(text.encode(), source="kitd.yaml", places=places)


SOURCE = "{format: quay, registry: q.io, secret_file: /s}"
WEBHOOKS = f"webhooks: {{listen: '127.0.0.1:1', sources: {{a: {SOURCE}}}}}"


@pytest.mark.parametrize(
    ("old", "new", "live", "restart"),
    [
        ("", "", (), ()),
        ("", "log: {level: debug}", ("log.level",), ()),
        ("", "workers: {pack: 3, push: 9}", ("workers.pack", "workers.push"), ()),
        ("", "cache: {use_at_most: 1GiB, dir: /elsewhere}", ("cache.use_at_most",), ("cache.dir",)),
        ("", "rpc: {mode: '0660', access: [{uid: 7, role: read}]}", ("rpc.access",), ("rpc.mode",)),
        ("", "state_dir: /elsewhere", (), ("state_dir",)),
        ("", "registry: {listen: '127.0.0.1:1'}", (), ("registry.listen",)),
        ("", WEBHOOKS, ("webhooks.sources.a",), ("webhooks.listen",)),
        (
            "registries: {a.example: {plain_http: true}, b.example: {}}",
            "registries: {a.example: {plain_http: false}, c.example: {}}",
            ("registries.a.example", "registries.b.example", "registries.c.example"),
            (),
        ),
        (
            "projects: {p: {path: /p, reference: a.example/p}}",
            "projects: {p: {path: /p, reference: a.example/p, settle: {quiet: 9s}}}",
            ("projects.p",),
            (),
        ),
    ],
)
def test_the_keys_that_differ(read, old, new, live, restart):
    difference = compare_configs(read(old), read(new))
    assert (tuple(difference.live), tuple(difference.restart)) == (live, restart)
    assert tuple(difference.changed) == (*live, *restart)


def test_what_is_live_exists():
    """A key that was renamed would silently need a restart from then on."""
    config = Config(state_dir=Path("/state"), rpc=RpcConfig(socket=Path("/sock")))
    keys = set()
    for field in dataclasses.fields(config):
        keys.add(key_of(field.name))
        section = getattr(config, field.name)
        if dataclasses.is_dataclass(section):
            keys |= {f"{key_of(field.name)}.{key_of(f.name)}" for f in dataclasses.fields(section)}
    assert set(LIVE) <= keys


def test_a_key_that_begins_like_a_live_one_is_not_live():
    assert is_live("log.level")
    assert not is_live("logs")
    assert not is_live("cache.dir")
