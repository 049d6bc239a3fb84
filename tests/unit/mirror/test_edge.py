import pytest

from kitd.mirror.edge import Edge, edges_of, target_tag
from kitd.mirror.order import MirrorOrder, TargetOrder
from kitd.oci.reference import InvalidReferenceError, Repository

SIGNATURE = f"sha256-{'a' * 64}.sig"


def order(*targets):
    return MirrorOrder(rule="prod", source="a.example.com/team/model", targets=targets)


def test_an_edge_leads_to_each_target_by_its_own_template():
    given = order(
        TargetOrder(repository="b.example.com:5000/model"),
        TargetOrder(repository="c.example.com/x/y", tag="eu-{tag}.x"),
    )
    source = Repository("a.example.com", "team/model")
    assert edges_of(given, "v1") == (
        Edge(source, "v1", Repository("b.example.com:5000", "model"), "v1"),
        Edge(source, "v1", Repository("c.example.com", "x/y"), "eu-v1.x"),
    )


def test_an_order_without_targets_has_no_edges():
    assert edges_of(order(), "v1") == ()


def test_a_target_with_a_name_too_long_is_refused():
    with pytest.raises(InvalidReferenceError):
        edges_of(order(TargetOrder(repository="b.example.com/" + "x" * 256)), "v1")


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


def test_an_edge_is_shown_as_two_references():
    (edge,) = edges_of(order(TargetOrder(repository="b.example.com/m", tag="eu-{tag}")), "v1")
    assert str(edge) == "a.example.com/team/model:v1 -> b.example.com/m:eu-v1"
