import pytest

from kitd.mirror.edge import Edge, target_tag
from kitd.oci.reference import Repository

SIGNATURE = f"sha256-{'a' * 64}.sig"


@pytest.mark.parametrize(
    ("template", "tag", "expected"),
    [
        ("{tag}", "v1", "v1"),
        ("eu-{tag}", "v1", "eu-v1"),
        ("{tag}-eu", "latest", "latest-eu"),
        ("eu-{tag}", SIGNATURE, SIGNATURE),
        ("eu-{tag}", SIGNATURE.removesuffix(".sig"), SIGNATURE.removesuffix(".sig")),
        ("eu-{tag}", f"x{SIGNATURE}", f"eu-x{SIGNATURE}"),
    ],
)
def test_digest_tags_keep_their_name(template, tag, expected):
    """Whoever looks for a signature makes its tag of the digest."""
    assert target_tag(template, tag) == expected


@pytest.mark.parametrize(
    ("tag", "target_tag", "expected"),
    [
        ("v1", "eu-v1", "a.example.com/team/model:v1 -> b.example.com/m:eu-v1"),
        ("", "", "a.example.com/team/model -> b.example.com/m"),
    ],
)
def test_an_edge_is_shown_as_people_write_its_ends(tag, target_tag, expected):
    source, target = Repository("a.example.com", "team/model"), Repository("b.example.com", "m")
    assert str(Edge(source, tag, target, target_tag)) == expected
