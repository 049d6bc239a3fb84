"""Pages of a list of referrers."""

from kitd.gateway.listing import referrers_page
from kitd.oci.descriptor import describe
from kitd.oci.media_type import OCI_MANIFEST


def referrers(count):
    return [describe(OCI_MANIFEST, bytes([number])) for number in range(count)]


def test_what_fits_is_one_page():
    page, more = referrers_page(referrers(3), max_bytes=10_000)
    assert ([entry["size"] for entry in page], more) == ([1, 1, 1], False)


def test_a_page_is_bounded_by_bytes():
    page, more = referrers_page(referrers(10), max_bytes=400)
    assert 1 < len(page) < 10
    assert more


def test_a_page_holds_at_least_one():
    page, more = referrers_page(referrers(2), max_bytes=1)
    assert (len(page), more) == (1, True)


def test_nothing_is_an_empty_page():
    assert referrers_page([], max_bytes=1) == ([], False)
