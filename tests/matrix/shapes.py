"""Kits of different shapes, made of bytes that look random and are always the same."""

import hashlib
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from kitd.content.store import ByteStream, ContentNotFoundError
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.media_type import OCI_EMPTY, OCI_INDEX, OCI_MANIFEST

MIB = 1 << 20
LARGE_BYTES = 20 * MIB + 17
PIECE_BYTES = 300_007
CONFIG = "application/vnd.kitops.modelkit.config.v1+json"
MODEL = "application/vnd.kitops.modelkit.model.v1.tar"
SBOM = "application/vnd.example.sbom.v1+json"


@dataclass
class Contents:
    """Content in memory, as a source to copy from."""

    seed: str
    contents: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def add(self, content: bytes, media_type: str, algorithm: str = "sha256") -> Descriptor:
        """Put content there."""
        digest = Digest(f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")
        self.contents[digest] = content
        return Descriptor(media_type, digest, len(content))

    def layer(self, size: int, algorithm: str = "sha256") -> Descriptor:
        """Put a layer of `size` bytes there."""
        return self.add(self._random.randbytes(size), MODEL, algorithm)

    def kit(self, *layers: Descriptor, **more: Any) -> Descriptor:
        """Put a kit with these layers there, its manifest with `more` fields."""
        config = self.add(json.dumps({"layers": len(layers)}).encode(), CONFIG)
        manifest = {"config": plain(config), "layers": [plain(layer) for layer in layers], **more}
        return self._document(OCI_MANIFEST, manifest)

    def index(self, *nodes: Descriptor) -> Descriptor:
        """Put an index there."""
        return self._document(OCI_INDEX, {"manifests": [plain(node) for node in nodes]})

    def _document(self, media_type: str, fields: Mapping[str, Any]) -> Descriptor:
        document = {"schemaVersion": 2, "mediaType": media_type, **fields}
        return self.add(json.dumps(document).encode(), media_type)

    async def exists(self, target: Descriptor) -> bool:
        return target.digest in self.contents

    @asynccontextmanager
    async def fetch(self, target: Descriptor, *, offset: int = 0) -> AsyncIterator[ByteStream]:
        if target.digest not in self.contents:
            raise ContentNotFoundError(f"there is no {target.digest}")
        yield self._pieces(self.contents[target.digest], offset)

    async def _pieces(self, content: bytes, offset: int) -> ByteStream:
        for start in range(offset, len(content), PIECE_BYTES):
            yield memoryview(content)[start : start + PIECE_BYTES]


def plain(target: Descriptor) -> dict[str, Any]:
    """Return a descriptor as manifests have it."""
    return {"mediaType": target.media_type, "digest": target.digest, "size": target.size}


@dataclass(frozen=True, slots=True)
class Kit:
    """What is copied in one go, and where to."""

    root: Descriptor
    repository: str = "model"


def tiny(contents: Contents) -> list[Kit]:
    return [Kit(contents.kit(contents.layer(1)))]


def many(contents: Contents) -> list[Kit]:
    return [Kit(contents.kit(*(contents.layer(100 + number) for number in range(40))))]


def large(contents: Contents) -> list[Kit]:
    return [Kit(contents.kit(contents.layer(LARGE_BYTES), contents.layer(70_000)))]


def index(contents: Contents) -> list[Kit]:
    base = contents.layer(200_000)
    kits = [contents.kit(base, contents.layer(1000)) for _ in range(3)]
    return [Kit(contents.index(*kits))]


def nested(contents: Contents) -> list[Kit]:
    kits = [contents.kit(contents.layer(1000)) for _ in range(3)]
    inner = contents.index(kits[0], kits[1])
    return [Kit(contents.index(contents.index(inner, kits[2]), inner, kits[0]))]


def sha512(contents: Contents) -> list[Kit]:
    return [Kit(contents.kit(contents.layer(50_000, "sha512"), contents.layer(50_000)))]


def empty(contents: Contents) -> list[Kit]:
    """An artifact: the empty config with its `data`, a layer of no bytes."""
    config = plain(contents.add(b"{}", OCI_EMPTY)) | {"data": "e30="}
    layer = contents.layer(0)
    return [Kit(contents.kit(layer, config=config, artifactType="application/vnd.example.card"))]


def signed(contents: Contents) -> list[Kit]:
    """A kit, what refers to it, and what refers to that."""
    subject = contents.kit(contents.layer(5000))
    kits = [subject]
    for number in range(3):
        about = kits[0] if number < 2 else kits[1]
        made = contents.kit(contents.layer(100), subject=plain(about), artifactType=SBOM)
        kits.append(made)
    return [Kit(kit) for kit in kits]


def siblings(contents: Contents) -> list[Kit]:
    """Two kits that share most of what they have, in repositories beside each other."""
    base = [contents.layer(300_000), contents.layer(2 * MIB)]
    return [
        Kit(contents.kit(*base, contents.layer(1000)), repository)
        for repository in ("base", "tuned")
    ]


SHAPES: Mapping[str, Callable[[Contents], list[Kit]]] = {
    "tiny": tiny,
    "many": many,
    "large": large,
    "index": index,
    "nested": nested,
    "sha512": sha512,
    "empty": empty,
    "signed": signed,
    "siblings": siblings,
}
