from hypothesis import given
from hypothesis import strategies as st

from kitd.mirror.circle import Routes
from kitd.mirror.order import TargetOrder
from kitd.mirror.route import Route

PLACES = [f"{host}.io/x" for host in "abcdef"]
EDGES = st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(PLACES)), max_size=12)


def has_circle(edges):
    """Whether some way comes back to its start, but for there and straight back; by trying all."""

    def comes_back(start, place, passed):
        onward = [target for source, target in edges if source == place]
        if start in onward and len(passed) != 2:
            return True
        return any(
            comes_back(start, target, {*passed, target})
            for target in onward
            if target not in passed
        )

    return any(comes_back(place, place, {place}) for place in PLACES)


@given(EDGES)
def test_a_circle_is_found_if_there_is_one(edges):
    routes = Routes(
        {
            f"r{number}": Route(source, (), (TargetOrder(repository=target),))
            for number, (source, target) in enumerate(edges)
        }
    )
    found = [circle for leg in routes.legs() if (circle := routes.circle(leg))]
    assert bool(found) == has_circle(edges)
    for circle in found:
        ways = [edges[int(name.removeprefix("r"))] for name in circle.routes]
        # Each goes on where the one before it ended, and the last one ends where the first began.
        assert all(a[1] == b[0] for a, b in zip(ways, [*ways[1:], ways[0]], strict=True))
