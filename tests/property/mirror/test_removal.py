"""What may be deleted with tags takes nothing from anybody, and everything that it could."""

from hypothesis import given
from hypothesis import strategies as st

from kitd.mirror.removal import Outcome, plan_removal
from kitd.oci.digest import digest_of

NODES = [digest_of(str(number).encode()) for number in range(8)]
TAGS = [f"v{number}" for number in range(6)]


@st.composite
def repositories(draw):
    """Tags, what indexes list (only what comes later, so that there is no circle), what goes."""
    tags = draw(st.dictionaries(st.sampled_from(TAGS), st.sampled_from(NODES)))
    children = {}
    for place, node in enumerate(NODES[:-1]):
        if draw(st.booleans()):
            children[node] = draw(st.sets(st.sampled_from(NODES[place + 1 :])))
    going = {
        tag: draw(st.sampled_from([tags.get(tag, NODES[0]), NODES[-1]]))
        for tag in draw(st.sets(st.sampled_from(TAGS)))
    }
    return tags, children, going


def below(digest, children):
    found = {digest}
    for child in children.get(digest, ()):
        found |= below(child, children)
    return found


@given(repositories())
def test_no_tag_that_stays_loses_anything(repository):
    tags, children, going = repository
    removal = plan_removal(tags, children, going)
    for tag, digest in tags.items():
        if going.get(tag) != digest or tag in removal.kept:
            assert not below(digest, children) & set(removal.digests)


@given(repositories())
def test_every_tag_that_is_to_go_goes_or_is_kept_for_a_reason(repository):
    tags, children, going = repository
    removal = plan_removal(tags, children, going)
    assert removal.kept.keys() <= going.keys()
    staying = {tag for tag, digest in tags.items() if going.get(tag) != digest}
    for tag, digest in going.items():
        fate = removal.kept.get(tag)
        if fate is None:
            assert digest == tags[tag]
            assert digest in removal.digests
            continue
        assert digest not in removal.digests or tags.get(tag) != digest
        match fate.outcome:
            case Outcome.ABSENT:
                assert tag not in tags
            case Outcome.MOVED:
                assert tags[tag] != digest
            case Outcome.SHARED:
                assert fate.by in staying
                assert tags[fate.by] == digest
            case _:
                assert fate.outcome is Outcome.LISTED
                assert fate.by in staying
                assert digest in below(tags[fate.by], children) - {tags[fate.by]}


@given(repositories())
def test_only_what_is_asked_for_goes_and_indexes_go_before_what_they_list(repository):
    tags, children, going = repository
    digests = plan_removal(tags, children, going).digests
    assert len(set(digests)) == len(digests)
    assert set(digests) <= {digest for tag, digest in going.items() if tags.get(tag) == digest}
    for place, digest in enumerate(digests):
        assert not below(digest, children) & set(digests[:place])
