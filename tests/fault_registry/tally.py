"""What a registry was asked, received and sent, and when. Pure."""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

GRACE_S = 0.1
"""For so long after a 429 was sent a request may come whose client cannot have read it."""

_KINDS = (
    (r"/v2/?", "ping"),
    (r"/v2/_catalog", "catalog"),
    (r"/-/token", "token"),
    (r"/-/storage/.+", "storage"),
    (r"/v2/.+/blobs/uploads/?", "upload.begin"),
    (r"/v2/.+/blobs/uploads/.+", "upload"),
    (r"/v2/.+/blobs/[^/]+", "blob"),
    (r"/v2/.+/manifests/[^/]+", "manifest"),
    (r"/v2/.+/referrers/[^/]+", "referrers"),
    (r"/v2/.+/tags/list", "tags"),
)
_UPLOAD_VERBS = {"PATCH": "chunk", "PUT": "end", "GET": "status", "DELETE": "cancel"}


def kind_of(method: str, path: str) -> str:
    """Return what a request asks for, such as `blob.get`, `upload.chunk` or `ping`."""
    for pattern, kind in _KINDS:
        if re.fullmatch(pattern, path):
            if kind == "upload":
                return f"upload.{_UPLOAD_VERBS.get(method, method.lower())}"
            return kind if kind in ("ping", "upload.begin") else f"{kind}.{method.lower()}"
    return "other"


@dataclass(slots=True)
class BlobTally:
    """One blob of one repository."""

    received_bytes: int = 0
    """Of all bodies that were sent to its upload, whether or not they were kept."""
    sent_bytes: int = 0
    uploads: int = 0
    """How often it was put there by an upload."""
    mounts: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    """By kind, as far as a request names the blob."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    at_s: float
    kind: str
    method: str
    path: str
    status: int
    """0 where there was no answer."""
    forbidden: bool
    """Whether it came while the registry had asked for silence."""


@dataclass(slots=True)
class Tally:
    """Everything since the registry began, or since it was reset."""

    blobs: dict[tuple[str, str], BlobTally] = field(default_factory=dict)
    """By repository and digest; bodies of an upload that has not ended are under its name."""
    requests: list[Asked] = field(default_factory=list)
    cuts: int = 0
    busy: int = 0
    """How many answers were 429."""

    def blob(self, repository: str, digest: str) -> BlobTally:
        """Return the counts of a blob."""
        return self.blobs.setdefault((repository, digest), BlobTally())

    def end_upload(self, repository: str, upload: str, digest: str) -> None:
        """Count what an upload received as the blob's that it became."""
        ended = self.blobs.pop((repository, upload), BlobTally())
        blob = self.blob(repository, digest)
        blob.received_bytes += ended.received_bytes
        blob.requests += ended.requests
        blob.uploads += 1

    def received_bytes(self, repository: str | None = None) -> int:
        """Return what bodies of uploads came to, of one repository or of all."""
        return sum(
            blob.received_bytes
            for (name, _), blob in self.blobs.items()
            if repository in (None, name)
        )

    def sent_bytes(self, repository: str | None = None) -> int:
        """Return what was sent of blobs."""
        return sum(
            blob.sent_bytes for (name, _), blob in self.blobs.items() if repository in (None, name)
        )

    def kinds(self) -> Counter[str]:
        """Return how many requests of each kind there were."""
        return Counter(asked.kind for asked in self.requests)

    def forbidden(self) -> list[Asked]:
        """Return the requests that came while the registry had asked for silence."""
        return [asked for asked in self.requests if asked.forbidden]

    def as_json(self) -> dict[str, Any]:
        """Return all of it but the single requests, for another process."""
        return {
            "blobs": [
                {
                    "repository": repository,
                    "digest": digest,
                    "received_bytes": blob.received_bytes,
                    "sent_bytes": blob.sent_bytes,
                    "uploads": blob.uploads,
                    "mounts": blob.mounts,
                    "requests": dict(blob.requests),
                }
                for (repository, digest), blob in self.blobs.items()
            ],
            "requests": dict(self.kinds()),
            "forbidden": [f"{asked.method} {asked.path}" for asked in self.forbidden()],
            "cuts": self.cuts,
            "busy": self.busy,
        }
