"""Kits as they are made here: every byte can be another than it should be."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
KIT = "application/vnd.kitops.modelkit."
CNCF = "application/vnd.cncf.model."
CONFIG = f"{KIT}config.v1+json"
FILE_PATH = "org.cncf.model.filepath"
KITFILE = "ml.kitops.modelkit.kitfile"

Facts = dict[str, Any]


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    """Return the digest of some bytes."""
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def encode(document: object) -> bytes:
    """Return JSON; strings go in as they are."""
    return json.dumps(document, separators=(",", ":")).encode()


def tar(**files: bytes) -> bytes:
    """Return an archive; `__` in a name stands for `/`."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as writer:
        for name, content in files.items():
            entry = tarfile.TarInfo(name.replace("__", "/"))
            entry.size = len(content)
            writer.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def squeezed(content: bytes) -> bytes:
    """Return a gzip member."""
    return gzip.compress(content, mtime=0)


class Manifest(NamedTuple):
    """A manifest or an index, and what the registry calls it."""

    content: bytes
    media_type: str = OCI_MANIFEST


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a repository serves: blobs and manifests, the last of which is tagged."""

    root: Manifest
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    children: Sequence[Manifest] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the root, where they are lies."""


class Layer(NamedTuple):
    """A layer, and what its descriptor says of it otherwise than is true."""

    content: bytes
    media_type: str = f"{KIT}model.v1.tar"
    more: Mapping[str, Any] = {}


def descriptor(content: bytes, media_type: str, **more: Any) -> Facts:
    """Return a descriptor, with what it says otherwise; what is None is left out."""
    facts = {"mediaType": media_type, "digest": digest_of(content), "size": len(content)} | more
    return {key: value for key, value in facts.items() if value is not None}


WEIGHTS = tar(**{"model.bin": b"weights"})


def model(**more: Any) -> Facts:
    """Return the entry of a model whose layer is `WEIGHTS`."""
    digest = digest_of(WEIGHTS)
    return {"name": "m", "path": "model.bin", "digest": digest, "diffId": digest, **more}


def config_of(**more: Any) -> Facts:
    """Return the config of a kit with a model."""
    return {"manifestVersion": "1.0.0", "package": {"name": "k"}, "model": model(), **more}


def kit(
    *,
    layers: Sequence[Layer] = (Layer(WEIGHTS),),
    config: bytes | Facts | None = None,
    config_more: Mapping[str, Any] | None = None,
    blobs: Mapping[str, bytes] | None = None,
    **fields: Any,
) -> Artifact:
    """Return a ModelKit that is in order but for what is said; `fields` are of its manifest."""
    content = config if isinstance(config, bytes) else encode(config or config_of())
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(content, CONFIG, **(config_more or {})),
        "layers": [descriptor(layer.content, layer.media_type, **layer.more) for layer in layers],
        **fields,
    }
    present = {digest_of(each): each for each in (content, *(layer.content for layer in layers))}
    document = {key: value for key, value in document.items() if value is not OMITTED}
    return Artifact(Manifest(encode(document)), present | dict(blobs or {}))


OMITTED = object()
"""The value of a field that is left out."""


def bytes_of(**fields: Any) -> dict[str, Any]:
    """Return the document of the kit that is in order, with other fields."""
    document: dict[str, Any] = json.loads(kit().root.content)
    return document | fields


def rewritten(replacements: Mapping[bytes, bytes], artifact: Artifact | None = None) -> Artifact:
    """Return a kit whose manifest's bytes are others, as JSON cannot say."""
    artifact = artifact or kit()
    content = artifact.root.content
    for old, new in replacements.items():
        assert old in content
        content = content.replace(old, new)
    return Artifact(Manifest(content), artifact.blobs)


def raw(path: str | None, content: bytes = b"x", kind: str = "weight", **annotations: Any) -> Layer:
    """Return a ModelPack's layer that is one file."""
    named = {} if path is None else {FILE_PATH: path}
    return Layer(content, f"{CNCF}{kind}.v1.raw", {"annotations": named | annotations})


def modelpack(
    *layers: Layer, kitfile: str | None = None, config: bytes | Facts | None = None, **fields: Any
) -> Artifact:
    """Return a ModelPack that is in order but for its layers, its config or its Kitfile."""
    facts = {
        "descriptor": {"name": "p"},
        "modelfs": {"type": "layers", "diffIds": [digest_of(layer.content) for layer in layers]},
        "config": {},
    }
    content = config if isinstance(config, bytes) else encode(config or facts)
    annotations = {} if kitfile is None else {KITFILE: kitfile}
    return kit(
        layers=layers,
        config=content,
        config_more={"mediaType": f"{CNCF}config.v1+json"},
        artifactType=f"{CNCF}manifest.v1+json",
        annotations=annotations,
        **fields,
    )


def index(*children: Manifest, blobs: Mapping[str, bytes] | None = None, **fields: Any) -> Artifact:
    """Return an index of manifests, which come along."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [descriptor(child.content, child.media_type) for child in children],
        **fields,
    }
    return Artifact(Manifest(encode(document), OCI_INDEX), blobs or {}, children)
