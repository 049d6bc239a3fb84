"""Everything that reads what others wrote: bytes in, a value or an error of kitd's out."""

import gzip
import hashlib
import io
import json
import os
import struct
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
import zstandard

from kitd.client import protocol
from kitd.client.extract import OpenLayer, extract
from kitd.client.record import Layer
from kitd.client.tar_reader import TarReader
from kitd.config.parse import parse_config
from kitd.config.places import find_places
from kitd.config.schedule import parse_schedule
from kitd.config.tag_template import parse_tag_template
from kitd.errors import KitdError
from kitd.gateway.byte_range import parse_content_range, parse_range
from kitd.gateway.naming import repository_of
from kitd.modelkit.config_blob import MAX_CONFIG_BYTES
from kitd.modelkit.config_blob import parse_config as parse_kit_config
from kitd.modelkit.filter import parse_filter
from kitd.modelkit.ignore import IgnoreRules
from kitd.modelkit.kit import read_kit
from kitd.modelkit.kitfile import parse_kitfile
from kitd.modelkit.media_type import parse_layer_type
from kitd.modelkit.modelpack import layer_mode, parse_modelpack_config
from kitd.modelkit.plan import FILE_METADATA, FILE_PATH
from kitd.modelkit.unpack_plan import plan_unpack
from kitd.modelkit.yaml_writer import kitfile_to_yaml
from kitd.oci.challenge import parse_challenges
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import parse_digest
from kitd.oci.manifest import parse_manifest
from kitd.oci.reference import parse_reference, parse_tagged
from kitd.oci.registry_error import parse_error_body
from kitd.packing.gate.format.content import Content
from kitd.packing.gate.truncated import truncation
from kitd.registry.credentials import parse_auth_file, parse_helper_answer
from kitd.rpc import codec
from kitd.webhooks.delivery import Delivery
from kitd.webhooks.format import MalformedDeliveryError
from kitd.webhooks.formats import FORMATS as SENDERS

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + "0" * 64
TAR = "application/vnd.kitops.modelkit.model.v1.tar"
KITFILES = [
    b"""\
manifestVersion: 1.0.0
package: {name: demo, version: 0.1.0, license: MIT, authors: [Ada, "Bob"]}
model:
  name: weights
  path: model.bin
  framework: torch
  parameters: {learning rate: 0.1, layers: [1, 2.5, null, true], nested: {a: &x 1, b: *x}}
  parts: [{name: adapter, path: lora, type: lora}]
datasets: [{name: reviews, path: data, description: "a\\tb"}]
code: [{path: src}]
docs: [{path: README.md}]
prompts: [{path: prompts/one.md}]
""",
    b"manifestVersion: v1.0.0\nmodel:\n  path: registry.example.com/team/base:v1\n",
    b"base: &a {name: x, path: y}\nmanifestVersion: 1.0.0\nmodel: {<<: *a, name: z}\n",
]
MANIFESTS = [
    json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/vnd.kitops.modelkit.manifest.v1+json",
            "config": {"mediaType": "application/json", "digest": DIGEST, "size": 2},
            "layers": [{"mediaType": TAR, "digest": DIGEST, "size": 1, "annotations": {"a": "b"}}],
            "subject": {"mediaType": "a/b", "digest": DIGEST, "size": 3},
            "annotations": {"ml.kitops.modelkit.cli-version": "1"},
        }
    ).encode(),
    json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                {"mediaType": "a/b", "digest": DIGEST, "size": 5, "platform": {"os": "linux"}}
            ],
        }
    ).encode(),
]
CALLS = [
    b'{"jsonrpc":"2.0","id":1,"method":"jobs.list","params":{"limit":5}}',
    b'[{"jsonrpc":"2.0","id":"a","method":"m"},{"jsonrpc":"2.0","method":"n","params":[]}]',
    b'{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":-7.5e3}}\n{"a":"\\u00e9"}\n',
]
ANSWERS = [
    b'{"jsonrpc":"2.0","id":1,"result":{"jobs":[]}}',
    b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"m","data":{"code":"c"}}}',
    b'{"jsonrpc":"2.0","method":"events.event","params":{"event":{"seq":1}}}',
]
AUTH_FILES = [
    (
        b'{"auths":{"https://index.docker.io/v1/":{"auth":"YWRhOnNlY3JldA=="},'
        b'"r.example.com":{"identitytoken":"t"}},"credHelpers":{"x":"pass"},"credsStore":"pass"}'
    ),
]
DELIVERIES = [
    json.loads(path.read_text(encoding="utf-8"))["delivery"]["body"].encode()
    for path in sorted((ROOT / "tests/golden/webhooks").glob("*/push*.json"))
]
PLACES = find_places({"HOME": "/home/ada"}, 1000)


def archive(form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, bufsize=512) as tar:
        for name, content in (("a", b"1"), ("d/" * 30 + "n" * 90, b"2" * 600), ("d/é", b"")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        member = tarfile.TarInfo("d/e")
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(member)
    return buffer.getvalue()[:6144]


TARS = [archive(form) for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT)]


def resealed(data: bytes) -> bytes:
    """Mend the checksum of every block: without that a mutant hardly gets past the first check."""
    blocks = [bytearray(data[at : at + 512]) for at in range(0, len(data) - 511, 512)]
    for block in blocks:
        if block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
    return b"".join(blocks) + data[512 * len(blocks) :]


def read_tar(data: bytes) -> None:
    source = io.BytesIO(resealed(data))
    reader = TarReader(source.read)
    for _ in reader.entries():
        for _ in reader.content():
            pass


def unpack(data: bytes, media_type: str) -> None:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    with tempfile.TemporaryDirectory() as world, tempfile.TemporaryFile() as blob:
        blob.write(data)
        blob.flush()
        layer = OpenLayer(Layer(digest, len(data), media_type, None, "kit"), blob.fileno())
        target = Path(world, "target")
        try:
            extract(target, [layer], kitfile=None, progress=lambda _: None)
        finally:
            assert set(os.listdir(world)) <= {"target"}


def judge_format(suffix: bytes, data: bytes) -> str | None:
    return truncation(b"f" + suffix, Content(len(data), lambda at, count: data[at : at + count]))


def frame(data: bytes) -> None:
    decoder = codec.Decoder(4096)
    for at in range(0, len(data), 100):
        for line in decoder.feed(data[at : at + 100]):
            if isinstance(line, bytes):
                message = codec.parse(line)
                calls = message.calls if isinstance(message, codec.Batch) else (message,)
                if all(isinstance(call, codec.Violation) for call in calls):
                    raise calls[0].error
            else:
                raise RefusedError("too long")


def ignored(rules: IgnoreRules) -> str:
    paths = (b"x.log", b"keep.log", b"a", b"a/d/b", b"#", b"deep/x/file")
    return " ".join(str(rules.is_ignored(rules.judge(path, 0))) for path in paths)


def ask_helper(data: bytes) -> None:
    try:
        parse_helper_answer(data)
    except ValueError as error:
        raise RefusedError(str(error)) from error


def deliver(data: bytes) -> str:
    """Give one body to every sender's format."""
    headers = {"x-github-event": "package", "x-gitea-event": "package"}
    delivery = Delivery(method="POST", headers=headers, body=data, received_us=0)
    answers = []
    for sender in SENDERS.values():
        sender.delivery_id(delivery)
        try:
            answers.append(type(sender.read(delivery)).__name__)
        except MalformedDeliveryError as error:
            answers.append(error.message)
    return " ".join(answers)


class RefusedError(KitdError):
    """Stands for a refusal that is told in another way."""


def text(parse):
    """Parse what can stand in a header, an argument or a file name."""
    return lambda data: parse(data.decode("utf-8", "surrogateescape"))


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("data.pkl", b"1" * 50)
    return buffer.getvalue()


HEADER = json.dumps({"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
FORMATS = {
    b".safetensors": [struct.pack("<Q", len(HEADER)) + HEADER + b"1234"],
    b".pt": [zipped()],
    b".gguf": [
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a" + struct.pack("<II", 4, 7),
        b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 1) + b"w" + struct.pack("<IQIQ", 1, 2, 0, 0),
    ],
    b".npy": [b"\x93NUMPY\1\0\x76\0{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}\n1234"],
    b".tar": [TARS[0]],
    b".parquet": [b"PAR1" + bytes(20) + struct.pack("<I", 20) + b"PAR1"],
}
MODELPACK_CONFIGS = [
    b'{"descriptor":{"name":"a","authors":["b"],"licenses":["MIT"]},"modelfs":{"type":"layers",'
    b'"diffIds":["%s"]},"config":{"format":"gguf"}}' % DIGEST.encode(),
    b'{"modelfs":{"diff_ids":[]}}',
]
MODELPACKS = [
    json.dumps(
        {
            "schemaVersion": 2,
            "artifactType": "application/vnd.cncf.model.manifest.v1+json",
            "config": {"mediaType": "application/json", "digest": DIGEST, "size": 2},
            "layers": [
                {
                    "mediaType": "application/vnd.cncf.model.weight.v1.raw",
                    "digest": DIGEST,
                    "size": 1,
                    "annotations": {FILE_PATH: "a", FILE_METADATA: '{"mode":420}'},
                }
            ],
            "annotations": annotations,
        }
    ).encode()
    for annotations in (
        {},
        {"ml.kitops.modelkit.kitfile": f'{{"model":{{"path":"a","digest":"{DIGEST}"}}}}'},
    )
]


def plan_modelpack(data: bytes) -> None:
    manifest = parse_manifest(data)
    kit = read_kit(manifest, MODELPACK_CONFIGS[0])
    plan_unpack(manifest, kit.kitfile, ())
    kitfile_to_yaml(kit.kitfile)


TARGETS = {
    "rpc framing": (frame, CALLS),
    "rpc answers": (protocol.decode_message, ANSWERS),
    "Kitfile": (parse_kitfile, KITFILES),
    "manifest": (parse_manifest, MANIFESTS),
    "kit config": (
        parse_kit_config,
        [b'{"manifestVersion":"1.0.0","model":{"path":"a","parameters":{"x":[1,2.5e3,null]}}}'],
    ),
    "modelpack config": (
        lambda data: parse_modelpack_config(data, max_bytes=MAX_CONFIG_BYTES),
        MODELPACK_CONFIGS,
    ),
    "file metadata": (
        text(lambda value: layer_mode(Descriptor(TAR, DIGEST, 1, {FILE_METADATA: value}))),
        [b'{"name":"a","mode":420,"uid":0,"size":1,"mtime":"1970-01-01T00:00:00Z","typeflag":48}'],
    ),
    "modelpack": (plan_modelpack, MODELPACKS),
    "configuration": (
        lambda data: parse_config(data, source="kitd.yaml", places=PLACES),
        [(ROOT / "config" / "kitd.example.yaml").read_bytes(), b"log: {level: info}\n"],
    ),
    "tar": (read_tar, TARS),
    "tar layer": (lambda data: unpack(resealed(data), TAR), TARS),
    "gzip layer": (
        lambda data: unpack(data, TAR + "+gzip"),
        [gzip.compress(tar, mtime=0) for tar in TARS],
    ),
    "zstd layer": (
        lambda data: unpack(data, TAR + "+zstd"),
        [zstandard.compress(tar) for tar in TARS],
    ),
    "ignore rules": (
        lambda data: ignored(IgnoreRules.parse(data)),
        [b"*.log\n!keep.log\n/a/**/b\n[a-z]?\\#\n# c\n", b"**/x/\n"],
    ),
    "docker config": (lambda data: parse_auth_file(data, Path("config.json")), AUTH_FILES),
    "credential helper": (ask_helper, [b'{"Username":"ada","Secret":"s"}']),
    "registry error": (
        lambda data: str(parse_error_body(data, "application/json")),
        [b'{"errors":[{"code":"DENIED","message":"m","detail":{"a":[1]}}]}'],
    ),
    "reference": (
        text(parse_reference),
        [b"registry.example.com:5000/team/x:v1@" + DIGEST.encode()],
    ),
    "tags": (text(parse_tagged), [b"localhost/team/x:v1,v2,latest"]),
    "digest": (text(parse_digest), [DIGEST.encode(), b"sha512:" + b"a" * 128]),
    "gateway name": (text(repository_of), [b"registry.example.com_5000/team/x", b"team/x"]),
    "range": (
        text(lambda value: parse_range(value, 1000)),
        [b"bytes=0-499", b"bytes=-5", b"bytes=9-"],
    ),
    "content range": (text(parse_content_range), [b"0-499", b"bytes 5-9/100"]),
    "challenge": (
        text(lambda value: str(parse_challenges(value))),
        [b'Bearer realm="https://a/t",service="s",scope="repository:a:pull,push", Basic realm=x'],
    ),
    "tag template": (
        text(parse_tag_template),
        [b"{time:%Y%m%d}-{digest:12}", b"{git.commit:12}-x"],
    ),
    "webhook": (deliver, DELIVERIES),
    "schedule": (text(parse_schedule), [b"*/15 0-6,8 1 * mon-fri", b"1h30m"]),
    "filter": (text(parse_filter), [b"model:weights,data", b"datasets"]),
    "layer type": (text(parse_layer_type), [TAR.encode(), TAR.encode() + b"+gzip"]),
    **{
        f"format {suffix.decode()}": (
            lambda data, suffix=suffix: judge_format(suffix, data),
            corpus,
        )
        for suffix, corpus in FORMATS.items()
    },
}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_takes_or_refuses_whatever_it_is_given(name, bombard):
    """Nothing but the errors that are meant for it, in bounded time and memory."""
    target, corpus = TARGETS[name]
    bombard(target, corpus, (KitdError,))
