"""Names of the gateway are a bijection with repositories."""

from hypothesis import given
from hypothesis import strategies as st

from kitd.gateway.naming import name_of, repository_of
from kitd.oci.reference import InvalidReferenceError, Repository

WORD = st.text("ab09", min_size=1, max_size=3)
COMPONENT = st.builds(
    lambda first, rest: first + "".join(rest),
    WORD,
    st.lists(
        st.builds(str.__add__, st.sampled_from([".", "_", "__", "-", "---"]), WORD), max_size=2
    ),
) | st.sampled_from(["localhost", "localhost_5000", "x_5000", "v1.5"])
NAME = st.lists(COMPONENT, min_size=1, max_size=3).map("/".join)
HOST = st.lists(WORD, min_size=2, max_size=3).map(".".join)
REGISTRY = HOST | st.builds("{}:{}".format, HOST | WORD, st.integers(1, 65535))


@given(NAME)
def test_every_name_that_stands_for_a_repository_is_its_only_name(name):
    try:
        repository = repository_of(name)
    except InvalidReferenceError:
        return
    assert name_of(repository) == name


@given(REGISTRY, NAME)
def test_every_repository_of_a_registry_has_a_name_that_leads_back(registry, name):
    repository = Repository(registry, name)
    assert repository_of(name_of(repository)) == repository


@given(NAME.filter(lambda name: not name.startswith("localhost/")))
def test_every_repository_of_kitds_own_has_a_name_that_leads_back(name):
    repository = Repository("localhost", name)
    assert repository_of(name_of(repository)) == repository


@given(st.text(max_size=40))
def test_no_text_does_worse_than_be_refused(text):
    try:
        repository_of(text)
    except InvalidReferenceError:
        return
