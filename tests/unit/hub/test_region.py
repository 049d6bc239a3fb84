"""Which part of the network addresses are in, and who may lead where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitd.hub.region import Region, region_of, regions_open_to

PUBLIC, INSIDE = "93.184.216.34", "10.0.0.7"


@pytest.mark.parametrize(
    ("address", "region"),
    [
        (PUBLIC, Region.PUBLIC),
        ("2606:2800:220:1::1", Region.PUBLIC),
        (INSIDE, Region.PRIVATE),
        ("192.168.1.1", Region.PRIVATE),
        ("172.16.0.1", Region.PRIVATE),
        ("100.64.0.1", Region.PRIVATE),
        ("fd00::1", Region.PRIVATE),
        ("224.0.0.1", Region.PRIVATE),
        ("ff0e::1", Region.PRIVATE),
        ("169.254.169.254", Region.LINK_LOCAL),
        ("fe80::1%eth0", Region.LINK_LOCAL),
        ("::ffff:169.254.169.254", Region.LINK_LOCAL),
        ("127.0.0.2", Region.LOOPBACK),
        ("::1", Region.LOOPBACK),
        ("0.0.0.0", Region.LOOPBACK),
        ("::", Region.LOOPBACK),
        ("::ffff:127.0.0.1", Region.LOOPBACK),
        ("64:ff9b::7f00:1", Region.LOOPBACK),
        ("2002:7f00:1::", Region.LOOPBACK),
        ("2002:a00:7::", Region.PRIVATE),
    ],
)
def test_where_addresses_are(address, region):
    assert region_of(address) is region


@given(st.text())
def test_what_is_no_address_is_not_public(text):
    assert region_of(f"x{text}") is Region.PRIVATE


@pytest.mark.parametrize(
    ("addresses", "regions"),
    [
        ([], {Region.PUBLIC}),
        ([PUBLIC], {Region.PUBLIC}),
        ([PUBLIC, INSIDE, "127.0.0.1"], {Region.PUBLIC}),
        ([INSIDE], {Region.PUBLIC, Region.PRIVATE}),
        (["127.0.0.1", "::1"], {Region.PUBLIC, Region.LOOPBACK}),
    ],
)
def test_who_is_inside_may_lead_there(addresses, regions):
    assert regions_open_to(addresses) == regions
