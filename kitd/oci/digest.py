"""Content digests: `sha256:<64 hex digits>` (OCI image spec, descriptor.md#digests)."""

import hashlib
import re
from typing import NewType

from kitd.errors import KitdError

Digest = NewType("Digest", str)
"""A valid digest. Text from outside becomes one by `parse_digest` and in no other way."""

_SHAPE = {
    "sha256": re.compile(r"[0-9a-f]{64}"),
    "sha384": re.compile(r"[0-9a-f]{96}"),
    "sha512": re.compile(r"[0-9a-f]{128}"),
}


class InvalidDigestError(KitdError):
    """The text is not a digest of a registered algorithm."""

    code = "invalid_digest"


def parse_digest(text: str) -> Digest:
    """Return `text` as a digest. Raises `InvalidDigestError`."""
    algorithm, _, encoded = text.partition(":")
    shape = _SHAPE.get(algorithm)
    if shape is None or shape.fullmatch(encoded) is None:
        raise InvalidDigestError(
            f"{text[:160]!r} is not a digest", hint="a digest is sha256: and 64 hex digits"
        )
    return Digest(text)


def digest_of(content: bytes) -> Digest:
    """Return the sha256 digest of `content`."""
    return Digest("sha256:" + hashlib.sha256(content).hexdigest())


def from_hash(hasher: "hashlib._Hash") -> Digest:
    """Return the digest of what was fed to a `hashlib` object of a registered algorithm."""
    return Digest(f"{hasher.name}:{hasher.hexdigest()}")


def algorithm_of(digest: Digest) -> str:
    """Return the algorithm, a name that `hashlib.new` takes."""
    return digest.partition(":")[0]


def encoded_of(digest: Digest) -> str:
    """Return the hex part."""
    return digest.partition(":")[2]


def abbreviate(digest: Digest, digits: int = 12) -> str:
    """Return the first hex digits, as a person quotes a digest."""
    return encoded_of(digest)[:digits]
