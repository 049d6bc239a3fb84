"""Which part of the network an address of the Internet Protocol is in. Pure.

A server that may be anybody's must not have kitd ask what only this machine and its neighbours can
reach (IANA's registries of special-purpose addresses, RFC 6890).
"""

import enum
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))


class Region(enum.StrEnum):
    """Who can be reached at an address."""

    PUBLIC = "public"
    PRIVATE = "private"
    """The neighbours, and whatever else is not for everybody."""
    LINK_LOCAL = "link-local"
    """The neighbours on the wire, and what clouds tell their machines."""
    LOOPBACK = "loopback"


def region_of(address: str) -> Region:
    """Return where an address is, one of IPv4 also where it stands in one of IPv6.

    What is no address is nowhere public.
    """
    try:
        found: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:
        return Region.PRIVATE
    if isinstance(found, IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if any(found in network for network in _NAT64):
            inner = IPv4Address(int(found) & 0xFFFFFFFF)
        found = inner or found
    if found.is_loopback or found.is_unspecified:
        return Region.LOOPBACK
    if found.is_link_local:
        return Region.LINK_LOCAL
    return Region.PUBLIC if found.is_global and not found.is_multicast else Region.PRIVATE


def regions_open_to(addresses: Iterable[str]) -> frozenset[Region]:
    """Return where somebody may lead who is himself at some addresses.

    Who has a public one may lead to the public only, whatever else his name stands for.
    """
    own = frozenset(map(region_of, addresses))
    return frozenset({Region.PUBLIC}) | (frozenset() if Region.PUBLIC in own else own)
