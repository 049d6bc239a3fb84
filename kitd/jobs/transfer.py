"""What push and pull results have in common."""

import msgspec


class Bytes(msgspec.Struct, frozen=True, kw_only=True):
    """What a transfer moved, in bytes, and what it did not have to."""

    sent: int = 0
    received: int = 0
    mounted: int = 0
    skipped: int = 0


class TransferResult(msgspec.Struct, frozen=True, kw_only=True):
    """A kit that is now in another place."""

    digest: str
    reference: str
    tags: tuple[str, ...]
    bytes: Bytes
    """With those of its referrers."""
    referrers: int = 0
    """How many came along: signatures and the like, and what refers to those."""
    parents: tuple[str, ...] = ()
    """The kits it builds on that came along, the nearest first."""
    notes: tuple[str, ...] = ()
