"""Where the registry keeps things: blobs and unfinished uploads are files, all else is in memory.

A blob is stored once and belongs to the repositories that it was uploaded or mounted to.
"""

import asyncio
import hashlib
import json
import re
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")


def is_digest(text: str) -> bool:
    """Whether the text is a digest of an algorithm that is registered."""
    return _DIGEST.fullmatch(text) is not None


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    """Return the digest of some bytes."""
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as it was put there."""

    media_type: str
    content: bytes

    @property
    def document(self) -> dict[str, Any]:
        """What it says."""
        document: dict[str, Any] = json.loads(self.content)
        return document


@dataclass(slots=True)
class Repository:
    """One repository."""

    blobs: set[str] = field(default_factory=set)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def manifest(self, reference: str) -> tuple[str, Manifest] | None:
        """Return the digest and the manifest that a tag or a digest names."""
        digest = self.tags.get(reference, reference)
        found = self.manifests.get(digest)
        return None if found is None else (digest, found)

    def referrers(self, subject: str) -> list[dict[str, Any]]:
        """Return the descriptors of the manifests that refer to a digest."""
        found = []
        for digest, manifest in self.manifests.items():
            document = manifest.document
            if (document.get("subject") or {}).get("digest") != subject:
                continue
            descriptor = {
                "mediaType": manifest.media_type,
                "digest": digest,
                "size": len(manifest.content),
            }
            kind = document.get("artifactType") or document.get("config", {}).get("mediaType")
            if kind:
                descriptor["artifactType"] = kind
            if annotations := document.get("annotations"):
                descriptor["annotations"] = annotations
            found.append(descriptor)
        return found


@dataclass(slots=True)
class Upload:
    """A blob on its way in. What has arrived stays, however the request ended that brought it."""

    name: str
    repository: str
    file: IO[bytes]
    path: Path
    least_part_bytes: int | None = None
    """Of the parts so far, all but the last."""
    last_part_bytes: int | None = None
    size: int = 0
    written_s: float = field(default_factory=time.monotonic)
    sha256: Any = field(default_factory=hashlib.sha256)
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)

    def append(self, data: bytes) -> None:
        """Keep some bytes."""
        self.file.write(data)
        self.sha256.update(data)
        self.size += len(data)
        self.written_s = time.monotonic()

    def end_part(self, part_bytes: int) -> None:
        """Note how large a part was, once it is complete."""
        if self.last_part_bytes is not None:
            least = self.least_part_bytes
            last = self.last_part_bytes
            self.least_part_bytes = last if least is None else min(least, last)
        self.last_part_bytes = part_bytes

    def digest(self, algorithm: str) -> str:
        """Return the digest of what has arrived."""
        self.file.flush()
        if algorithm == "sha256":
            return f"sha256:{self.sha256.hexdigest()}"
        with self.path.open("rb") as file:
            return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"  # type: ignore[arg-type]


class Storage:
    """Everything that one registry keeps, below `root`."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs"
        self._unfinished = root / "uploads"
        self._blobs.mkdir(parents=True)
        self._unfinished.mkdir()
        self.repositories: dict[str, Repository] = {}
        self.uploads: dict[str, Upload] = {}

    def repository(self, name: str) -> Repository:
        """Return a repository, which is there from the first time that something is put into it."""
        return self.repositories.setdefault(name, Repository())

    def path(self, digest: str) -> Path:
        """Return where a blob is."""
        return self._blobs / digest.replace(":", "-")

    def begin(self, repository: str) -> Upload:
        """Begin an upload."""
        name = str(uuid.uuid4())
        path = self._unfinished / name
        upload = Upload(name, repository, path.open("wb"), path)
        self.uploads[name] = upload
        return upload

    def commit(self, upload: Upload, digest: str) -> None:
        """Let an upload, whose digest was compared, become a blob."""
        del self.uploads[upload.name]
        upload.file.close()
        upload.path.rename(self.path(digest))
        self.repository(upload.repository).blobs.add(digest)

    def forget(self, upload: Upload) -> None:
        """End an upload without a blob."""
        self.uploads.pop(upload.name, None)
        upload.file.close()
        upload.path.unlink(missing_ok=True)

    def lender(self, digest: str, name: str | None) -> str | None:
        """Return a repository that has a blob: the one that is named, or any."""
        if name is not None:
            return name if digest in self.repositories.get(name, Repository()).blobs else None
        holders = (n for n, repository in self.repositories.items() if digest in repository.blobs)
        return next(holders, None)

    def empty(self) -> None:
        """Keep nothing of all this."""
        for upload in list(self.uploads.values()):
            self.forget(upload)
        for path in self._blobs.iterdir():
            path.unlink()
        self.repositories.clear()

    def close(self) -> None:
        """Close the files of all uploads."""
        for upload in self.uploads.values():
            upload.file.close()
