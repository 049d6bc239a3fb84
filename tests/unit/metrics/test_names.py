"""Which names may be labels."""

import pytest

from kitd.config.parse import parse_config
from kitd.config.places import Place, Places
from kitd.metrics.names import MAX_NAMES, OTHER, named, names_in

PLACES = Places(
    config=Place("/etc/kitd/kitd.yaml", is_explicit=False),
    state_dir=Place("/var/lib/kitd", is_explicit=False),
    socket=Place("/run/kitd/kitd.sock", is_explicit=False),
    home="/root",
)


@pytest.fixture
def names():
    """Return the names in a configuration."""

    def names(text):
        return names_in(parse_config(text.encode(), source="kitd.yaml", places=PLACES))

    return names


def test_registries_are_those_that_the_configuration_speaks_of(names):
    found = names(
        "registries:\n"
        "  a.example.com: {mirrors: [m.example.com/docker]}\n"
        "projects:\n"
        "  p: {path: /srv/p, reference: b.example.com:5000/team/p}\n"
        "  q: {path: /srv/q, reference: team/q, push: false}\n"
        "mirrors:\n"
        "  prod: {source: C.example.com/team/p, targets: [d.example.com/x]}\n"
        "webhooks:\n"
        "  listen: 127.0.0.1:1\n"
        "  sources:\n"
        "    s: {format: harbor, registry: e.example.com, secret_file: /etc/s}\n"
    )
    assert found.registries == {
        "a.example.com",
        "m.example.com",
        "b.example.com:5000",
        "c.example.com",
        "d.example.com",
        "e.example.com",
    }
    assert found.projects == {"p", "q"}
    assert found.mirrors == {"prod"}
    assert found.sources == {"s"}


def test_there_are_at_most_so_many(names):
    count = MAX_NAMES + 20
    found = names(
        "projects:\n"
        + "".join(
            f"  p{number:04}: {{path: /srv/{number}, reference: h.example.com/p{number}}}\n"
            for number in range(count)
        )
    )
    assert len(found.projects) == MAX_NAMES
    assert named("p0000", found.projects) == "p0000"
    assert named(f"p{count - 1:04}", found.projects) == OTHER
    assert named("another", found.projects) == OTHER
