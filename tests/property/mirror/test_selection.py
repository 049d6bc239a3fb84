from hypothesis import given
from hypothesis import strategies as st

from kitd.mirror.order import Selection
from kitd.mirror.select import admits, select
from kitd.mirror.semver import InvalidRangeError, Version, parse_range, parse_version

SMALL = st.integers(0, 3)
IDENTIFIERS = SMALL | st.sampled_from(["a", "b", "-", "0a", "rc"])
VERSIONS = st.builds(
    Version,
    st.tuples(SMALL, SMALL, SMALL),
    st.lists(IDENTIFIERS, max_size=3).map(tuple) | st.just(()),
)
NUMBERS = st.sampled_from(["0", "1", "2", "3", "x", "*"])


def shown(version):
    text = ".".join(map(str, version.release))
    return text + ("-" + ".".join(map(str, version.prerelease)) if version.prerelease else "")


@st.composite
def ranges(draw):
    """One to three bounds, or a hyphen range."""

    def partial():
        if draw(st.booleans()):
            return shown(draw(VERSIONS))
        numbers = [str(draw(SMALL)) for _ in range(draw(st.integers(0, 2)))]
        return ".".join([*numbers, "x"])

    if draw(st.integers(0, 4)) == 0:
        return f"{partial()} - {partial()}"
    relations = st.sampled_from(["", "=", "<", "<=", ">", ">=", "^", "~"])
    return " ".join(draw(relations) + partial() for _ in range(draw(st.integers(1, 3))))


@given(VERSIONS)
def test_a_version_comes_back(version):
    assert parse_version(shown(version)) == version
    assert parse_version(f"v{shown(version)}+build.1") == version


@given(VERSIONS, VERSIONS, VERSIONS)
def test_precedence_is_a_total_order(a, b, c):
    relations = [a.precedence < b.precedence, a == b, a.precedence > b.precedence]
    assert relations.count(True) == 1
    if a.precedence <= b.precedence <= c.precedence:
        assert a.precedence <= c.precedence
    if a.prerelease and not b.prerelease and a.release == b.release:
        assert a.precedence < b.precedence


@given(ranges(), ranges(), VERSIONS)
def test_a_union_has_what_either_has(one, other, version):
    union = parse_range(f"{one} || {other}")
    assert union.admits(version) == (
        parse_range(one).admits(version) or parse_range(other).admits(version)
    )


@given(ranges().filter(lambda r: " - " not in r), ranges().filter(lambda r: " - " not in r),
       VERSIONS)  # fmt: skip
def test_an_intersection_has_what_both_have(one, other, version):
    both = parse_range(one).admits(version) and parse_range(other).admits(version)
    found = parse_range(f"{one} {other}").admits(version)
    # Of a prerelease it is enough that one of the two names it.
    assert found >= both
    if not version.prerelease:
        assert found == both


@given(VERSIONS, VERSIONS)
def test_bounds_are_what_precedence_says(bound, version):
    text = shown(bound)
    is_meant = not version.prerelease or (bound.prerelease and bound.release == version.release)
    lower = version.precedence < bound.precedence
    assert parse_range(f"<{text}").admits(version) == bool(is_meant and lower)
    assert parse_range(f">={text}").admits(version) == bool(is_meant and not lower)


@given(st.text(alphabet="0123vxX*.-+|<>=~^ abrc", max_size=40))
def test_any_text_is_a_range_or_an_error(text):
    try:
        found = parse_range(text)
    except InvalidRangeError:
        return
    found.admits(Version((1, 2, 3)))


@given(
    st.dictionaries(
        st.sampled_from(["1.0", "1.1", "v1.1", "2.0.0-rc.1", "2.0.0", "latest", "dev", "x-dev"]),
        st.none() | st.integers(0, 200),
    ),
    st.builds(
        Selection,
        include=st.just(("*",)) | st.just(("*.*",)),
        exclude=st.just(()) | st.just(("*-dev",)),
        semver=st.none() | st.sampled_from(["1.x", ">=2.0.0-0"]),
        newest=st.none() | st.integers(1, 4),
        max_age_s=st.none() | st.just(0.0001),
    ),
    st.randoms(),
)
def test_a_selection_depends_on_nothing_but_the_tags(tags, selection, random):
    selected = select(selection, tags, 200)
    shuffled = list(tags.items())
    random.shuffle(shuffled)

    assert select(selection, dict(shuffled), 200) == selected
    assert all(admits(selection, tag) for tag in selected)
    assert len(set(selected)) == len(selected) <= (selection.newest or len(tags))
    # What is left out by `newest` alone changes nothing when it goes.
    assert select(selection, {tag: tags[tag] for tag in selected}, 200) == selected
