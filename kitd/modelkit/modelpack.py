"""CNCF ModelPacks: what their configs say, the Kitfile that stands for one, and writing them.

A ModelPack and a ModelKit of one project share every layer. What `kit` and `modctl` wrote is read,
and what the specification's first versions (up to v0.0.6, `cnai`) called by other names. Written is
what `kit` writes, with two differences: `createdAt` is the manifest's own time, and a part of the
model that is weights itself is called so. Source: the CNCF model specification, config.md and
annotations.md.
"""

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from kitd.modelkit.errors import InvalidConfigError, InvalidLayerTypeError, UnsupportedKitError
from kitd.modelkit.json_writer import encode_json
from kitd.modelkit.kitfile import (
    MANIFEST_VERSION,
    Code,
    Dataset,
    Docs,
    Kitfile,
    Model,
    ModelPart,
    Package,
    Prompt,
    layer_entries,
)
from kitd.modelkit.media_type import LayerFormat, LayerKind, LayerType, parse_layer_type
from kitd.modelkit.plan import FILE_METADATA, FILE_PATH, LAYER_SUBTYPE
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest, InvalidDigestError, parse_digest
from kitd.oci.json_reader import InvalidJsonError, Json, Reader, read_object

MAX_METADATA_BYTES = 64 * 1024
"""Of one layer's `FILE_METADATA`."""
MAX_TEXTS = 20_000
"""Items of one list of a config: one for each layer that a manifest may have."""

_OLD_FILE_PATH = "org.cnai.model.filepath"
_OLD_FILE_METADATA = "org.cnai.model.file.metadata+json"
_WEIGHTS = frozenset(
    {
        ".safetensors", ".gguf", ".ggml", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".h5", ".keras",
        ".tflite", ".pb", ".msgpack", ".mlmodel", ".npz",
    }
)  # fmt: skip
"""What files of weights end with: shards and adapters are parts of a model, and weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPackConfig:
    """What a ModelPack's config says, as far as a Kitfile can say it too."""

    name: str = ""
    version: str = ""
    description: str = ""
    authors: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    format: str = ""
    diff_ids: tuple[Digest, ...] = ()
    """Of the layers, in their order; empty where the config does not say."""


@dataclass(frozen=True, slots=True)
class Generated:
    """A Kitfile that was made of a manifest, and what could not be put into it, one line each."""

    kitfile: Kitfile
    notes: tuple[str, ...]


def parse_modelpack_config(content: bytes, *, max_bytes: int) -> ModelPackConfig:
    """Read a ModelPack's config. Raises `InvalidConfigError` and nothing else."""
    try:
        document = read_object(content, max_bytes=max_bytes)
    except InvalidJsonError as error:
        raise InvalidConfigError(f"not the config of a ModelPack: {error}") from error
    reader = Reader(document, InvalidConfigError)
    empty = Reader({}, InvalidConfigError)
    descriptor = reader.optional_child("descriptor") or empty
    files = reader.optional_child("modelfs") or empty
    config = reader.optional_child("config") or empty
    # Up to v0.0.6 the key was in snake case.
    key = "diffIds" if files.value("diffIds") is not None else "diff_ids"
    try:
        diff_ids = tuple(map(parse_digest, _texts(files, key)))
    except InvalidDigestError as error:
        raise files.wrong(key, error.message) from error
    return ModelPackConfig(
        name=descriptor.text("name", ""),
        version=descriptor.text("version", ""),
        description=descriptor.text("description", ""),
        authors=_texts(descriptor, "authors"),
        licenses=_texts(descriptor, "licenses"),
        format=config.text("format", ""),
        diff_ids=diff_ids,
    )


def _texts(reader: Reader, key: str) -> tuple[str, ...]:
    value = reader.value(key)
    if value is None:
        return ()
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) <= MAX_TEXTS:
        texts = tuple(item for item in value if isinstance(item, str))
        if len(texts) == len(value):
            return texts
    raise reader.fail(key, f"a list of at most {MAX_TEXTS} strings")


def layer_path(layer: Descriptor) -> str | None:
    """Return where a layer's files belong, as its annotation spells it, if it has one."""
    return layer.annotations.get(FILE_PATH, layer.annotations.get(_OLD_FILE_PATH))


def layer_mode(layer: Descriptor) -> int | None:
    """Return the bits of the mode that a raw layer's file had, or None where it does not say.

    Raises `InvalidConfigError`.
    """
    metadata = _metadata(layer)
    if metadata is None or metadata.value("mode") is None:
        return None
    # Writers that know no mode say 0.
    return metadata.integer("mode") & 0o7777 or None


def _metadata(layer: Descriptor) -> Reader | None:
    text = layer.annotations.get(FILE_METADATA, layer.annotations.get(_OLD_FILE_METADATA))
    if not text:
        return None
    try:
        document = read_object(text.encode("utf-8", "surrogatepass"), max_bytes=MAX_METADATA_BYTES)
    except InvalidJsonError as error:
        raise InvalidConfigError(f"the file metadata of {layer.digest}: {error}") from error
    return Reader(document, InvalidConfigError, f"file metadata of {layer.digest}: ")


def generate_kitfile(layers: Sequence[Descriptor], config: ModelPackConfig) -> Generated:
    """Return the Kitfile that describes a ModelPack's layers.

    The first weights are the model, other weights and what belongs to them are its parts. Layers
    of types that kitd does not know are left out with a note. Raises `InvalidConfigError` for a
    raw layer that has no name.
    """
    notes: list[str] = []
    diff_ids: Sequence[Digest | None] = config.diff_ids
    if len(diff_ids) != len(layers):
        if diff_ids:
            notes.append(
                f"the config counts {len(diff_ids)} layers, and there are {len(layers)}:"
                " what is in them is only checked as it is stored"
            )
        diff_ids = [None] * len(layers)
    weights: list[ModelPart] = []
    parts: list[ModelPart] = []
    code: list[Code] = []
    prompts: list[Prompt] = []
    datasets: list[Dataset] = []
    docs: list[Docs] = []
    for layer, diff_id in zip(layers, diff_ids, strict=True):
        try:
            kind = parse_layer_type(layer.media_type)
        except InvalidLayerTypeError as error:
            notes.append(f"the layer {layer.digest} is left out: {error.message}")
            continue
        path, digest = _path_of(layer, kind), layer.digest
        match kind.kind:
            case LayerKind.MODEL if not weights:
                weights.append(ModelPart(path=path, digest=digest, diff_id=diff_id))
            case LayerKind.MODEL | LayerKind.MODEL_PART:
                parts.append(ModelPart(path=path, digest=digest, diff_id=diff_id))
            case LayerKind.CODE if layer.annotations.get(LAYER_SUBTYPE) == "prompt":
                prompts.append(Prompt(path=path, digest=digest, diff_id=diff_id))
            case LayerKind.DATASET:
                datasets.append(Dataset(path=path, digest=digest, diff_id=diff_id))
            case LayerKind.DOCS:
                docs.append(Docs(path=path, digest=digest, diff_id=diff_id))
            case _:
                code.append(Code(path=path, digest=digest, diff_id=diff_id))
    model = None
    if weights or parts:
        model = Model(format=config.format, parts=tuple(parts))
    if model is not None and weights:
        first = weights[0]
        model = replace(model, path=first.path, digest=first.digest, diff_id=first.diff_id)
    kitfile = Kitfile(
        manifest_version=MANIFEST_VERSION,
        package=Package(
            name=config.name,
            version=config.version,
            description=config.description,
            # A Kitfile has room for one, and which holds for what is not said.
            license=config.licenses[0] if len(config.licenses) == 1 else "",
            authors=config.authors,
        ),
        model=model,
        code=tuple(code),
        datasets=tuple(datasets),
        docs=tuple(docs),
        prompts=tuple(prompts),
    )
    return Generated(kitfile, tuple(notes))


def _path_of(layer: Descriptor, kind: LayerType) -> str:
    path = layer_path(layer)
    if path:
        return path
    if kind.format is LayerFormat.TAR:
        # The names are in it.
        return "."
    metadata = _metadata(layer)
    name = "" if metadata is None else metadata.text("name", "")
    if not name:
        raise InvalidConfigError(
            f"the layer {layer.digest} is a file without a name",
            hint="whoever made it has to annotate it with org.cncf.model.filepath",
        )
    return name


def describes(kitfile: Kitfile, layers: Sequence[Descriptor]) -> bool:
    """Whether a Kitfile's entries have these layers, all of those that have a known type."""
    named = {place.entry.digest for place in layer_entries(kitfile)}
    return named <= {layer.digest for layer in layers} and not any(
        layer.digest not in named for layer in layers if _is_known(layer)
    )


def _is_known(layer: Descriptor) -> bool:
    try:
        parse_layer_type(layer.media_type)
    except InvalidLayerTypeError:
        return False
    return True


def as_modelpack_layers(layers: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
    """Return a ModelKit's layers as a ModelPack describes them.

    Raises `UnsupportedKitError` where there is none, or one that a ModelPack has no word for.
    """
    if not layers:
        raise UnsupportedKitError(
            "a ModelPack has at least one layer, and this Kitfile makes none",
            hint="name a model, or anything else that has files",
        )
    return tuple(map(_as_modelpack_layer, layers))


def _as_modelpack_layer(layer: Descriptor) -> Descriptor:
    kind = parse_layer_type(layer.media_type)
    suffix = posixpath.splitext(layer_path(layer) or "")[1]
    if kind.kind is LayerKind.MODEL_PART and suffix.lower() in _WEIGHTS:
        kind = replace(kind, kind=LayerKind.MODEL)
    return replace(layer, media_type=kind.as_modelpack)


def encode_modelpack_config(kitfile: Kitfile, *, created: str) -> bytes:
    """Return the config's bytes for a Kitfile with the digests of its layers.

    `created` is RFC 3339. The rest of what a Kitfile says is in the manifest's annotation.
    """
    package, model = kitfile.package, kitfile.model
    descriptor: dict[str, Json] = {
        "createdAt": created,
        "authors": package.authors,
        "name": package.name,
        "version": package.version,
        "licenses": tuple(sorted(set(_licenses(kitfile)) - {""})),
        "title": package.name,
        "description": package.description,
    }
    diff_ids = tuple(place.entry.diff_id for place in layer_entries(kitfile))
    return encode_json(
        {
            "descriptor": _without_empty(descriptor),
            "modelfs": {"type": "layers", "diffIds": diff_ids},
            "config": _without_empty({"format": "" if model is None else model.format}),
        }
    )


def _licenses(kitfile: Kitfile) -> Iterator[str]:
    yield kitfile.package.license
    if kitfile.model is not None:
        yield kitfile.model.license
        yield from (part.license for part in kitfile.model.parts)
    yield from (dataset.license for dataset in kitfile.datasets)
    yield from (code.license for code in kitfile.code)


def _without_empty(document: Mapping[str, Json]) -> Mapping[str, Json]:
    return {key: value for key, value in document.items() if value}
