"""How many pulls a registry still allows: `RateLimit-Limit: 100;w=21600` and the like. Pure.

Docker Hub sends these with every answer about a manifest, and counts each GET of one
(docs.docker.com, "Docker Hub pull usage and limits"). Registries without a limit send nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_VALUE = re.compile(r"([0-9]{1,9})(?:;w=([0-9]{1,7}))?(?:[;,].*)?")


@dataclass(frozen=True, slots=True)
class Quota:
    """So many of `limit` pulls are left in a window of so many seconds."""

    limit: int
    remaining: int
    window_s: float


def read_quota(headers: Mapping[str, str]) -> Quota | None:
    """Return the quota that an answer tells of, None for none or one that cannot be read."""
    limit = _VALUE.fullmatch(headers.get("RateLimit-Limit", "").strip())
    remaining = _VALUE.fullmatch(headers.get("RateLimit-Remaining", "").strip())
    if limit is None or remaining is None or not limit[2] or int(limit[1]) == 0:
        return None
    return Quota(int(limit[1]), int(remaining[1]), float(limit[2]))
