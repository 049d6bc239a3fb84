"""What may stand in a configuration and is most likely not what was meant."""

import pytest

from kitd.config.warning import find_warnings

MIRROR = "mirrors: {{m: {{source: {}, targets: [b.example/x]}}}}\n"
SOURCES = "sources: {{h: {{format: harbor, registry: {}, secret_file: /secret}}}}"


@pytest.fixture
def warned(parse):
    def warned(mirror, registry, listen="127.0.0.1:8470"):
        text = MIRROR.format(mirror) if mirror else ""
        place = f"listen: '{listen}', " if listen else ""
        webhooks = f"webhooks: {{{place}{SOURCES.format(registry)}}}\n"
        return list(find_warnings(parse(text + webhooks)))

    return warned


@pytest.mark.parametrize(
    ("mirror", "registry"),
    [
        ("a.example/x", "a.example"),
        ("a.example:5000/x", "a.example:5000"),
        ("docker.io/team/x", "registry-1.docker.io"),
        ("A.example/x", "a.example"),
    ],
)
def test_a_source_that_a_mirror_reads(warned, mirror, registry):
    assert warned(mirror, registry) == []


@pytest.mark.parametrize(
    ("mirror", "registry"),
    [
        (None, "a.example"),
        ("a.example/x", "b.example"),
        ("a.example/x", "a.example:5000"),
        ("a.example/b.example/x", "b.example"),
    ],
)
def test_a_source_that_no_mirror_reads(warned, mirror, registry):
    """Also where it is only a target: nothing follows from what is pushed there."""
    (warning,) = warned(mirror, registry)
    assert warning.startswith(f"webhooks.sources.h: no mirror reads {registry}, so nothing follows")
    assert "projects need no webhooks" in warning


def test_a_source_that_nobody_listens_for(warned):
    assert warned(None, "a.example", listen=None) == []
