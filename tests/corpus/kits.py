"""The hostile kits: what is wrong with each, and the code that says so."""

import base64
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import zstandard

from corpus.artifact import (
    CNCF,
    CONFIG,
    FILE_PATH,
    KIT,
    OCI_INDEX,
    OCI_MANIFEST,
    OMITTED,
    WEIGHTS,
    Artifact,
    Layer,
    Manifest,
    bytes_of,
    config_of,
    descriptor,
    digest_of,
    encode,
    index,
    kit,
    model,
    modelpack,
    raw,
    rewritten,
    squeezed,
    tar,
)

Make = Callable[[str], Artifact]
"""Makes an artifact; the argument is the repository that will have it, with its host."""


class Case(NamedTuple):
    """A hostile kit: `pull` and `show` are the codes of those two, None where they may succeed.

    `code` is that of an unpack.
    """

    code: str
    make: Make
    pull: str | None
    show: str | None


def at_pull(code: str, make: Make, *, show: str | None = "") -> Case:
    """Return a case that is not even copied."""
    return Case(code, make, code, code if show == "" else show)


def at_reading(code: str, make: Make) -> Case:
    """Return a case that is copied as any artifact is, and refused as a kit."""
    return Case(code, make, None, code)


def at_unpack(code: str, make: Make) -> Case:
    """Return a case that can be copied and shown, and has nothing written."""
    return Case(code, make, None, None)


def always(artifact: Artifact) -> Make:
    """Return what makes the same wherever it is served."""
    return lambda _: artifact


def manifest(content: bytes, media_type: str = OCI_MANIFEST, **headers: str) -> Make:
    """Return what serves these bytes beside the blobs of a kit that is in order."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return always(Artifact(Manifest(content, media_type), kit().blobs, headers=named))


def document(**fields: object) -> Make:
    """Return what serves the manifest of a kit that is in order, with other fields."""
    kept = {key: value for key, value in bytes_of(**fields).items() if value is not OMITTED}
    return manifest(encode(kept))


def layer(**more: object) -> Make:
    """Return what serves a kit whose descriptor of its only layer says something else."""
    return always(kit(layers=(Layer(WEIGHTS, more=more),)))


def config(**more: object) -> Make:
    """Return what serves a kit whose config says something else."""
    return always(kit(config=config_of(**more)))


def entry(**more: object) -> Make:
    """Return what serves a kit whose config says something else about the model."""
    return config(model=model(**more))


def compressed(stored: bytes, suffix: str, content: bytes = WEIGHTS) -> Make:
    """Return what serves a kit whose layer has been through a compression."""
    facts = model(digest=digest_of(stored), diffId=digest_of(content))
    return always(
        kit(layers=(Layer(stored, f"{KIT}model.v1.tar+{suffix}"),), config=config_of(model=facts))
    )


def good() -> Manifest:
    """Return the manifest of a kit that is in order."""
    return kit().root


def with_child(content: bytes) -> Make:
    """Return a kit whose only layer says that it is a manifest."""
    child = Manifest(content)
    made = kit(layers=(Layer(content, OCI_MANIFEST),))
    return always(Artifact(made.root, made.blobs, (child,)))


def nested(levels: int) -> Make:
    """Return indexes in each other; the innermost has a kit."""
    children = [good()]
    for _ in range(levels):
        children.append(index(children[-1]).root)
    return always(Artifact(children[-1], kit().blobs, children[:-1]))


def refers_to(tag: str) -> Make:
    """Return a kit that builds on what a tag of its own repository names."""
    return lambda repository: kit(layers=(), config=config_of(model={"path": repository + tag}))


def fetched_elsewhere(media_type: str) -> Make:
    """Return a kit with a layer that only another URL has."""

    def make(repository: str) -> Artifact:
        content = tar(elsewhere=media_type.encode())
        urls = [f"http://{repository.partition('/')[0]}/canary"]
        there = kit(
            layers=(Layer(content, media_type, {"urls": urls}),),
            config=config_of(model=model(digest=digest_of(content), diffId=digest_of(content))),
        )
        return without(content, there)

    return make


def without(content: bytes, artifact: Artifact) -> Artifact:
    """Return a kit that lacks a blob."""
    blobs = {digest: blob for digest, blob in artifact.blobs.items() if blob != content}
    return Artifact(artifact.root, blobs)


def own(name: str, *, blob: bytes | None = None, **more: object) -> Artifact:
    """Return a kit whose layer nobody else has, with what its descriptor says otherwise."""
    content = tar(own=name.encode())
    digest = digest_of(content)
    made = kit(
        layers=(Layer(content, more=more),),
        config=config_of(model=model(digest=digest, diffId=digest)),
    )
    return made if blob is None else Artifact(made.root, {**made.blobs, digest: blob})


def two(first: Mapping[str, object], second: Mapping[str, object], *contents: bytes) -> Make:
    """Return a kit with two datasets, and the layers of both."""
    layers = tuple(Layer(content, f"{KIT}dataset.v1.tar") for content in contents)
    entries = [
        {"digest": digest_of(content), "diffId": digest_of(content), **facts}
        for content, facts in zip(contents, (first, second), strict=True)
    ]
    return always(kit(layers=layers, config=config_of(model=None, datasets=entries)))


def bomb() -> bytes:
    """Return gzip of an archive with megabytes behind it."""
    squeezer = zlib.compressobj(9, wbits=31)
    zeros = b"".join(squeezer.compress(bytes(1 << 20)) for _ in range(64))
    return squeezer.compress(WEIGHTS) + zeros + squeezer.flush()


def zstd_bomb() -> bytes:
    """Return zstd of an archive with half a terabyte behind it."""
    run = (128 << 13 | 1 << 1).to_bytes(3, "little") + b"\0"
    return zstandard.compress(WEIGHTS) + b"\x28\xb5\x2f\xfd\x00\x70" + run * (4 << 20)


def listing_nothing() -> Artifact:
    """Return an index that lists an index which nobody has."""
    return index(manifests=[descriptor(b"nobody's", OCI_INDEX)])


ESCAPES = "\x1b]0;owned\x07\x1b[2Jevil\u202egpj.exe\u2066"
PATH_LIKE = "sha256:../../../../etc/passwd"
MIB = 1 << 20
NO_ENTRY = {"name": "m", "path": "model.bin"}
"""A model that does not say which layer it is in."""

JSON_CASES = {
    "nothing": at_pull("invalid_manifest", manifest(b"")),
    "a page of HTML": at_pull("invalid_manifest", manifest(b"<html>" + bytes(100))),
    "a list": at_pull("invalid_manifest", manifest(b"[]")),
    "keys twice": at_pull(
        "invalid_manifest",
        always(rewritten({b'{"schemaVersion":2': b'{"layers":[],"schemaVersion":2'})),
    ),
    "keys of a layer twice": at_pull(
        "invalid_manifest", always(rewritten({b'"layers":[{': b'"layers":[{"size":1,'}))
    ),
    "NaN": at_pull(
        "invalid_manifest", always(rewritten({b'"schemaVersion":2': b'"schemaVersion":NaN'}))
    ),
    "infinity as a size": at_pull(
        "invalid_manifest", always(rewritten({b'"size":': b'"size":Infinity,"x":'}))
    ),
    "a number without end": at_pull(
        "invalid_manifest", always(rewritten({b'"size":': b'"size":' + b"9" * 100_000 + b',"x":'}))
    ),
    "10,000 levels": at_pull(
        "invalid_manifest",
        manifest(b'{"schemaVersion":2,"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
    ),
    "10,000 levels that never end": at_pull("invalid_manifest", manifest(b'{"a":' * 10_000)),
    "5 MiB": at_pull("too_large", document(annotations={"x": "y" * 5 * MIB})),
    "UTF-16": at_pull("invalid_manifest", manifest(good().content.decode().encode("utf-16"))),
    "bytes that are no UTF-8": at_pull(
        "invalid_manifest", always(rewritten({b'"annotations"': b'"\xff"'}, kit(annotations={})))
    ),
    "half a surrogate pair": at_pull("invalid_manifest", document(annotations={"x": "\ud800"})),
    "schema version 1": at_pull("invalid_manifest", document(schemaVersion=1)),
    "schema version as text": at_pull("invalid_manifest", document(schemaVersion="2")),
}
TYPE_CASES = {
    "a type that its sender does not know": at_pull(
        "media_type_mismatch",
        manifest(encode(bytes_of(mediaType=OCI_MANIFEST)), OCI_INDEX),
    ),
    "an unknown type of manifest": at_pull(
        "invalid_manifest", manifest(encode(bytes_of(mediaType="text/evil")), "text/evil")
    ),
    "layers and manifests": at_pull("invalid_manifest", document(manifests=[])),
    "an index with a config": at_pull(
        "invalid_manifest",
        always(index(good(), config=descriptor(b"{}", CONFIG), blobs=kit().blobs)),
    ),
    "config null": at_pull("invalid_manifest", document(config=None)),
    "config missing": at_pull("invalid_manifest", document(config=OMITTED)),
    "config as text": at_pull("invalid_manifest", document(config="sha256:x")),
    "layers as an object": at_pull("invalid_manifest", document(layers={})),
    "layers as text": at_pull("invalid_manifest", document(layers="sha256:x")),
    "a layer that is a number": at_pull("invalid_manifest", document(layers=[1])),
    "20,001 layers": at_pull(
        "invalid_manifest", document(layers=[descriptor(WEIGHTS, "a/b")] * 20_001)
    ),
    "annotations that are numbers": at_pull("invalid_manifest", document(annotations={"x": 1})),
    "annotations as a list": at_pull("invalid_manifest", document(annotations=["x"])),
    "a layer's annotations null": at_pull(
        "invalid_descriptor", layer(annotations={FILE_PATH: None})
    ),
    "a type that is a number": at_pull("invalid_descriptor", layer(mediaType=5)),
    "an artifact type that is a list": at_pull("invalid_manifest", document(artifactType=[])),
}
DIGEST_CASES = {
    "a digest that leads out": at_pull("invalid_descriptor", layer(digest=PATH_LIKE)),
    "a digest in capitals": at_pull("invalid_descriptor", layer(digest=digest_of(WEIGHTS).upper())),
    "a digest of an unknown kind": at_pull("invalid_descriptor", layer(digest="md5:" + "0" * 32)),
    "a digest that is too short": at_pull("invalid_descriptor", layer(digest="sha256:0123")),
    "a digest with a line break": at_pull(
        "invalid_descriptor", layer(digest=digest_of(WEIGHTS) + "\n")
    ),
    "a digest that is a number": at_pull("invalid_descriptor", layer(digest=5)),
    "no digest": at_pull("invalid_descriptor", layer(digest=None)),
    "a negative size": at_pull("invalid_descriptor", layer(size=-1)),
    "a size with a fraction": at_pull("invalid_descriptor", layer(size=2048.0)),
    "a size that is true": at_pull("invalid_descriptor", layer(size=True)),
    "a size as text": at_pull("invalid_descriptor", layer(size="10240")),
    "a size of 2^63": at_pull("invalid_descriptor", layer(size=2**63)),
    "no size": at_pull("invalid_descriptor", layer(size=None)),
    "a size that is too small": at_pull("digest_mismatch", always(own("small", size=1)), show=None),
    "a size that is too large": at_pull(
        "digest_mismatch", always(own("large", size=len(WEIGHTS) + 1)), show=None
    ),
    "an exabyte": at_unpack("feed_broken", always(own("exabyte", size=2**60))),
    "a blob that is another": at_pull(
        "digest_mismatch",
        always(own("other", blob=tar(own=b"evil!"))),
        show=None,
    ),
    "a blob that is missing": at_pull(
        "not_found",
        always(without(tar(own=b"missing"), own("missing"))),
        show=None,
    ),
    "a header with another digest": at_pull(
        "digest_mismatch", manifest(good().content, Docker_Content_Digest="sha256:" + "0" * 64)
    ),
    "data of something else": at_pull(
        "invalid_descriptor", layer(data=base64.b64encode(b"evil").decode())
    ),
    "data of the right size": at_pull(
        "invalid_descriptor", layer(data=base64.b64encode(bytes(len(WEIGHTS))).decode())
    ),
    "data that is no base64": at_pull("invalid_descriptor", layer(data="*" * 100)),
}
CONFIG_CASES = {
    "a config that is a layer": at_reading(
        "invalid_modelkit_config",
        document(
            config=descriptor(WEIGHTS, CONFIG), layers=[descriptor(WEIGHTS, f"{KIT}model.v1.tar")]
        ),
    ),
    "a config that is no JSON": at_reading("invalid_modelkit_config", always(kit(config=b"{"))),
    "a config that is empty": at_reading("invalid_modelkit_config", always(kit(config=b""))),
    "a config of YAML": at_reading(
        "invalid_modelkit_config", always(kit(config=b"manifestVersion: 1.0.0\n"))
    ),
    "a config with keys twice": at_reading(
        "invalid_modelkit_config",
        always(kit(config=b'{"model":{"path":"a"},"model":{"path":"b"}}')),
    ),
    "a config with NaN": at_reading("invalid_modelkit_config", always(kit(config=b'{"x":NaN}'))),
    "a config with 10,000 levels": at_reading(
        "invalid_modelkit_config",
        always(kit(config=b'{"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}")),
    ),
    "a config of 17 MiB": at_pull("too_large", config(package={"name": "x" * 17 * MIB})),
    "a model that is a list": at_reading("invalid_modelkit_config", config(model=["x"])),
    "datasets that are text": at_reading("invalid_modelkit_config", config(datasets="x")),
    "authors that are numbers": at_reading(
        "invalid_modelkit_config", config(package={"authors": [1]})
    ),
    "a path that is a number": at_reading("invalid_modelkit_config", entry(path=7)),
    "20,001 entries": at_reading("invalid_modelkit_config", config(code=[{"path": "x"}] * 20_001)),
    "an entry's digest that leads out": at_reading(
        "invalid_modelkit_config", entry(digest=PATH_LIKE)
    ),
    "an entry's digest that is no layer's": at_unpack(
        "kit_mismatch", entry(digest="sha256:" + "0" * 64)
    ),
    "an entry's digest that is the config's": at_unpack(
        "kit_mismatch",
        config(code=[{"path": "x", "digest": digest_of(encode(config_of()))}]),
    ),
    "some entries without a digest": at_unpack("kit_mismatch", config(code=[{"path": "x"}])),
    "fewer layers than entries": at_unpack(
        "kit_mismatch", always(kit(layers=(), config=config_of(model=NO_ENTRY)))
    ),
    "more layers than entries": at_unpack(
        "kit_mismatch",
        always(kit(layers=(Layer(WEIGHTS), Layer(tar(b=b"1"))), config=config_of(model=NO_ENTRY))),
    ),
    "a ModelKit that calls itself a ModelPack": at_reading(
        "kit_mismatch", always(kit(artifactType=f"{CNCF}manifest.v1+json"))
    ),
    "a type of escape characters": at_reading(
        "unsupported_kit",
        always(kit(artifactType=ESCAPES * 1000, config_more={"mediaType": f"a/{ESCAPES}"})),
    ),
    "a path of escape characters that is no layer's": at_unpack(
        "kit_mismatch", entry(path=ESCAPES * 1000, digest="sha256:" + "0" * 64)
    ),
    "a type of layer of escape characters": at_unpack(
        "invalid_layer_type", layer(mediaType=f"a/{ESCAPES * 1000}")
    ),
    "a key of escape characters twice": at_pull(
        "invalid_manifest",
        manifest(b'{"\x7fX":1,"\x7fX":2}'.replace(b"X", ESCAPES[9:].encode() * 1000)),
    ),
    "an image that calls itself a ModelKit's config": at_reading(
        "unsupported_kit",
        always(kit(config_more={"mediaType": "application/vnd.oci.image.config.v1+json"})),
    ),
}
PATH_CASES = {
    "a file that leads out": at_unpack("unsafe_name", always(modelpack(raw("../../evil")))),
    "a file that is absolute": at_unpack("unsafe_name", always(modelpack(raw("/tmp/kitd-evil")))),
    "a file with NUL": at_unpack("unsafe_name", always(modelpack(raw("a\0b")))),
    "a file that is the directory": at_unpack("unsafe_name", always(modelpack(raw(".")))),
    "a file of 1 MiB of name": at_unpack("unsafe_name", always(modelpack(raw("x" * MIB)))),
    "a file with escape characters that leads out": at_unpack(
        "unsafe_name", always(modelpack(raw(f"../{ESCAPES}")))
    ),
    "a file without a name": at_reading("invalid_modelkit_config", always(modelpack(raw(None)))),
    "a name in the metadata that leads out": at_unpack(
        "unsafe_name",
        always(
            modelpack(
                raw(None, **{"org.cncf.model.file.metadata+json": '{"name":"../evil","mode":420}'})
            )
        ),
    ),
    "metadata that is no JSON": at_reading(
        "invalid_modelkit_config",
        always(modelpack(raw(None, **{"org.cncf.model.file.metadata+json": "{"}))),
    ),
    "a mode that is none": at_unpack(
        "invalid_modelkit_config",
        always(modelpack(raw("x", **{"org.cncf.model.file.metadata+json": '{"mode":-1}'}))),
    ),
    "two files of one name": at_unpack(
        "duplicate_entry", always(modelpack(raw("x", b"1"), raw("./x", b"2")))
    ),
    "one file below another": at_unpack(
        "duplicate_entry", always(modelpack(raw("x", b"1"), raw("x/y", b"2")))
    ),
    "one file above another": at_unpack(
        "duplicate_entry", always(modelpack(raw("x/y", b"1"), raw("x", b"2")))
    ),
    "a file called Kitfile": at_unpack(
        "duplicate_entry",
        always(
            kit(
                layers=(Layer(tar(Kitfile=b"evil")),),
                config=config_of(
                    model=model(
                        digest=digest_of(tar(Kitfile=b"evil")),
                        diffId=digest_of(tar(Kitfile=b"evil")),
                    )
                ),
            )
        ),
    ),
    "layers that hold one name": at_unpack(
        "duplicate_entry", two({"path": "a"}, {"path": "b"}, tar(x=b"1"), tar(x=b"2"))
    ),
    "a directory where a file is": at_unpack(
        "duplicate_entry", two({"path": "a"}, {"path": "b"}, tar(x=b"1"), tar(x__y=b"2"))
    ),
    "an archive that leads out": at_unpack(
        "unsafe_name", two({"path": "a"}, {"path": "b"}, tar(x=b"1"), tar(**{"..__evil": b"2"}))
    ),
    "an old kit's directory that leads out": at_unpack(
        "unsafe_name", config(model={"path": "../../evil/model.bin"})
    ),
    "an old kit's directory that is absolute": at_unpack(
        "unsafe_name", config(model={"path": "/tmp/kitd-evil/model.bin"})
    ),
}
MODELPACK_CASES = {
    "a Kitfile that is no JSON": at_unpack(
        "unsafe_name", always(modelpack(raw("../evil"), kitfile="{"))
    ),
    "a Kitfile of other layers": at_unpack(
        "unsafe_name", always(modelpack(raw("../evil"), kitfile='{"code":[{"path":"x"}]}'))
    ),
    "a Kitfile of 10,000 levels": at_unpack(
        "unsafe_name", always(modelpack(raw("../evil"), kitfile='{"x":' + "[" * 10_000))
    ),
    "diffIds that are text": at_reading(
        "invalid_modelkit_config", always(modelpack(raw("x"), config={"modelfs": {"diffIds": "x"}}))
    ),
    "a diffId that leads out": at_reading(
        "invalid_modelkit_config",
        always(modelpack(raw("x"), config={"modelfs": {"diffIds": [PATH_LIKE]}})),
    ),
    "a diffId of something else": at_unpack(
        "invalid_layer",
        always(modelpack(raw("x"), config={"modelfs": {"diffIds": [digest_of(b"other")]}})),
    ),
    "a config that is a list": at_reading(
        "invalid_modelkit_config", always(modelpack(raw("x"), config=b"[]"))
    ),
}
LAYER_CASES = {
    "a diffId that is another's": at_unpack("invalid_layer", entry(diffId=digest_of(b"other"))),
    "gzip that is a tar": at_unpack("invalid_layer", compressed(WEIGHTS, "gzip")),
    "zstd that is a tar": at_unpack("invalid_layer", compressed(WEIGHTS, "zstd")),
    "a tar that is gzip": at_unpack(
        "damaged_archive",
        always(
            kit(
                layers=(Layer(squeezed(WEIGHTS)),),
                config=config_of(
                    model=model(
                        digest=digest_of(squeezed(WEIGHTS)), diffId=digest_of(squeezed(WEIGHTS))
                    )
                ),
            )
        ),
    ),
    "gzip with more behind": at_unpack(
        "invalid_layer", compressed(squeezed(WEIGHTS) + b"evil", "gzip")
    ),
    "gzip with another member behind": at_unpack(
        "invalid_layer", compressed(squeezed(WEIGHTS) + squeezed(bytes(512)), "gzip")
    ),
    "gzip that is cut short": at_unpack(
        "invalid_layer", compressed(squeezed(WEIGHTS)[:-9], "gzip")
    ),
    "a gzip bomb": at_unpack("damaged_archive", compressed(bomb(), "gzip")),
    "a zstd bomb": at_unpack("damaged_archive", compressed(zstd_bomb(), "zstd")),
    "an unknown compression": at_unpack("invalid_layer_type", compressed(WEIGHTS, "lzma")),
    "an unknown kind of layer": at_unpack(
        "invalid_layer_type", layer(mediaType=f"{KIT}evil.v1.tar")
    ),
    "a layer of an image": at_unpack(
        "invalid_layer_type", layer(mediaType="application/vnd.oci.image.layer.v1.tar")
    ),
    "a layer that is a manifest": at_pull("invalid_manifest", with_child(b"{}"), show=None),
    "a layer of another place": at_pull(
        "not_found", fetched_elsewhere(f"{KIT}model.v1.tar"), show=None
    ),
    "a layer that is not distributed": at_unpack(
        "invalid_layer_type",
        fetched_elsewhere("application/vnd.oci.image.layer.nondistributable.v1.tar"),
    ),
}
GRAPH_CASES = {
    "an index of nothing": at_reading("unsupported_kit", always(index())),
    "an index of kits": at_reading("unsupported_kit", always(index(good(), blobs=kit().blobs))),
    "an index of 20,001": at_pull(
        "invalid_manifest",
        always(index(manifests=[descriptor(b"", OCI_MANIFEST)] * 20_001)),
    ),
    "an index that lists what is not there": at_pull(
        "not_found", always(listing_nothing()), show="unsupported_kit"
    ),
    "indexes, nine in each other": at_pull("graph_too_large", nested(9), show="unsupported_kit"),
    "a subject that is text": at_pull("invalid_manifest", document(subject="x")),
    "a subject with a digest that leads out": at_pull(
        "invalid_descriptor",
        document(subject={"mediaType": OCI_MANIFEST, "digest": PATH_LIKE, "size": 1}),
    ),
    "a kit that builds on itself": Case(
        "reference_cycle", refers_to(":v1"), "reference_cycle", None
    ),
}

HARMLESS: Mapping[str, Make] = {
    "a header with a digest that leads out": manifest(
        good().content, Docker_Content_Digest=PATH_LIKE
    ),
    "10,001 times the same layer": document(
        layers=[descriptor(WEIGHTS, f"{KIT}model.v1.tar")] * 10_001
    ),
    "data as it should be": layer(data=base64.b64encode(WEIGHTS).decode()),
    "a URL of a layer that is here": layer(urls=["http://127.0.0.1:1/canary"]),
    "a subject that is a blob": document(subject=descriptor(WEIGHTS, "a/b")),
    "a subject that is not there": document(subject=descriptor(b"nobody's", OCI_MANIFEST)),
    "fields that nobody knows": document(evil={"x": [1, 2]}),
    "a file that ends in a slash": always(modelpack(raw("model.bin/"))),
    "diffIds that are too many": always(
        modelpack(raw("model.bin"), config={"modelfs": {"diffIds": [digest_of(b"x")] * 2}})
    ),
    "gzip of two members": compressed(squeezed(WEIGHTS[:512]) + squeezed(WEIGHTS[512:]), "gzip"),
    "a Kitfile that describes no layer": always(
        modelpack(raw("model.bin"), kitfile='{"code":[{"path":"../evil"}]}')
    ),
}
"""What looks like harm and does none: each is unpacked to one file, `model.bin`, and a Kitfile."""

CASES: Mapping[str, Case] = {
    **JSON_CASES,
    **TYPE_CASES,
    **DIGEST_CASES,
    **CONFIG_CASES,
    **PATH_CASES,
    **MODELPACK_CASES,
    **LAYER_CASES,
    **GRAPH_CASES,
}
