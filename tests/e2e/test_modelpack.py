"""ModelPacks and kits of other tools, from a registry to files and back."""

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

CNCF = "application/vnd.cncf.model."
KIT = "application/vnd.kitops.modelkit."
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EPOCH = {"SOURCE_DATE_EPOCH": "1767323045"}


class Layer(NamedTuple):
    """A layer that another tool made."""

    media_type: str
    content: bytes
    annotations: dict[str, str] = {}  # noqa: RUF012 - read only


def raw(kind: str, path: str, content: bytes, mode: int = 0o644) -> Layer:
    """Return a file as modctl describes it."""
    metadata = {"name": path.rpartition("/")[2], "mode": mode, "size": len(content), "typeflag": 0}
    return Layer(
        f"{CNCF}{kind}.v1.raw",
        content,
        {
            "org.cncf.model.filepath": path,
            "org.cncf.model.file.metadata+json": json.dumps(metadata),
        },
    )


def tar(files: dict[str, bytes]) -> bytes:
    """Return an archive of files without their directories, as modctl writes it."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as writer:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o640
            writer.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture
def publish(tmp_path: Path, skopeo: Callable[..., bytes]) -> Callable[..., str]:
    """Bring a manifest that is made here to a registry, by skopeo; return its digest."""

    def write(root: Path, content: bytes, media_type: str) -> dict[str, Any]:
        digest = digest_of(content)
        (root / "blobs/sha256" / digest[7:]).write_bytes(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def publish(
        reference: str,
        layers: Sequence[Layer],
        config: dict[str, Any],
        config_type: str,
        **more: Any,
    ) -> str:
        root = tmp_path / f"layout-{len(list(tmp_path.iterdir()))}"
        (root / "blobs/sha256").mkdir(parents=True)
        manifest = {
            "schemaVersion": 2,
            "config": write(root, json.dumps(config).encode(), config_type),
            "layers": [
                write(root, layer.content, layer.media_type) | {"annotations": layer.annotations}
                for layer in layers
            ],
            **more,
        }
        described = write(root, json.dumps(manifest).encode(), OCI_MANIFEST)
        named = {"annotations": {"org.opencontainers.image.ref.name": "it"}}
        index = {"schemaVersion": 2, "manifests": [described | named]}
        (root / "index.json").write_text(json.dumps(index))
        (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        skopeo("copy", "--dest-tls-verify=false", f"oci:{root}:it", f"docker://{reference}")
        return str(described["digest"])

    return publish


def modelpack(layers: Sequence[Layer], **descriptor: Any) -> dict[str, Any]:
    """Return what `publish` needs of a ModelPack without a Kitfile."""
    return {
        "layers": layers,
        "config": {
            "descriptor": descriptor,
            "modelfs": {
                "type": "layers",
                "diffIds": [digest_of(layer.content) for layer in layers],
            },
            "config": {"format": "safetensors"},
        },
        "config_type": f"{CNCF}config.v1+json",
        "artifactType": f"{CNCF}manifest.v1+json",
    }


def files(root: Path) -> dict[str, tuple[int, bytes]]:
    """Return the files below a directory, with their permission bits."""
    return {
        str(path.relative_to(root)): (path.stat().st_mode & 0o777, path.read_bytes())
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def blobs(daemon) -> set[str]:
    return {path.name for path in (daemon.cache / "blobs/sha256").iterdir()}


LAYERS = (
    raw("weight.config", "config.json", b'{"a":1}\n'),
    raw("weight", "weights/model-1.safetensors", b"first shard"),
    raw("weight", "weights/model-2.safetensors", b"second shard"),
    raw("code", "bin/run.sh", b"#!/bin/sh\n", 0o755),
    raw("code", "src/__init__.py", b""),
    raw("code", "src/deep/er/__init__.py", b""),
    Layer(
        f"{CNCF}dataset.v1.tar",
        tar({"data/deep/train.csv": b"1\n", "data/test.csv": b"2\n"}),
        {"org.cncf.model.filepath": "data"},
    ),
    raw("doc", "README.md", b"# tiny\n"),
)
UNPACKED = {
    "config.json": (0o644, b'{"a":1}\n'),
    "weights/model-1.safetensors": (0o644, b"first shard"),
    "weights/model-2.safetensors": (0o644, b"second shard"),
    "bin/run.sh": (0o755, b"#!/bin/sh\n"),
    "src/__init__.py": (0o644, b""),
    "src/deep/er/__init__.py": (0o644, b""),
    "data/deep/train.csv": (0o640, b"1\n"),
    "data/test.csv": (0o640, b"2\n"),
    "README.md": (0o644, b"# tiny\n"),
}


def test_a_modelpack_of_another_tool_is_unpacked(kitd, docker_registry, publish, tmp_path):
    """Files and archives, two shards, directories that nobody made, equal files at two paths."""
    reference = f"{docker_registry.host}/team/tiny:v1"
    published = publish(reference, **modelpack(LAYERS, name="tiny", authors=["Ada"]))
    daemon = kitd().start()
    unpacked = daemon.json("unpack", reference, "-d", tmp_path / "all")

    assert unpacked["digest"] == published
    assert files(tmp_path / "all") == UNPACKED

    daemon.json("unpack", reference, "-d", tmp_path / "model", "-f", "model,kitfile")
    model = files(tmp_path / "model")
    # Nobody wrote a Kitfile: the one that kitd made of the manifest comes to who asks for it.
    kitfile = model.pop("Kitfile")[1].decode()
    assert set(model) == {
        "config.json",
        "weights/model-1.safetensors",
        "weights/model-2.safetensors",
    }
    assert "path: weights/model-1.safetensors" in kitfile


def test_a_file_with_a_colon_in_its_name_is_no_other_kit(kitd, docker_registry, publish, tmp_path):
    """Though it reads as a reference to one: it has a layer. A child of it has nothing of that."""
    reference = f"{docker_registry.host}/team/quantized:v1"
    layers = (raw("weight", "llama3:8b.gguf", b"weights"), raw("doc", "README.md", b"read"))
    publish(reference, **modelpack(layers))
    daemon = kitd().start()
    daemon.json("pull", reference)
    daemon.json("unpack", reference, "-d", tmp_path / "whole")
    unpacked = files(tmp_path / "whole")
    assert unpacked["llama3:8b.gguf"][1] == b"weights"
    assert "README.md" in unpacked

    child = tmp_path / "child"
    child.mkdir()
    (child / "Kitfile").write_text(
        f"manifestVersion: 1.0.0\nmodel: {{path: '{reference}'}}\ncode: [{{path: .}}]\n"
    )
    daemon.json("pack", child, "-t", "child:v1")
    daemon.json("unpack", "child:v1", "-d", tmp_path / "both")
    assert files(tmp_path / "both")["llama3:8b.gguf"][1] == b"weights"


def test_a_modelpack_is_shown_like_a_kit(kitd, docker_registry, publish):
    """By list, info and inspect, in the cache and in the registry."""
    reference = f"{docker_registry.host}/team/tiny:v1"
    unknown = Layer(f"{CNCF}tokens.v1.raw", b"?", {"org.cncf.model.filepath": "x"})
    publish(reference, **modelpack((*LAYERS, unknown), name="tiny", authors=["Ada"]))
    daemon = kitd().start()
    remote = daemon.json("inspect", reference, "--remote")
    daemon.json("pull", reference)
    (listed,) = daemon.json("list")
    inspected = daemon.json("inspect", reference)

    assert (listed["modelName"], listed["author"], listed["tags"]) == ("tiny", "Ada", ["v1"])
    assert inspected == remote
    assert inspected["kitfile"]["model"]["path"] == "weights/model-1.safetensors"
    assert digest_of(b"?") in inspected["notes"][0]
    assert "path: bin/run.sh" in daemon.kitctl("info", reference).out
    assert digest_of(b"?") in daemon.kitctl("unpack", reference, "-f", "docs").err


def test_a_pull_with_a_filter_fetches_only_what_it_selects(
    kitd, docker_registry, publish, tmp_path
):
    """Of a ModelPack too: the rest stays in the registry."""
    reference = f"{docker_registry.host}/team/tiny:v1"
    publish(reference, **modelpack(LAYERS))
    daemon = kitd().start()
    daemon.json("unpack", reference, "-d", tmp_path / "docs", "-f", "docs")

    assert set(files(tmp_path / "docs")) == {"README.md"}
    assert LAYERS[7].content in {
        path.read_bytes() for path in (daemon.cache / "blobs/sha256").iterdir()
    }
    assert not blobs(daemon) & {digest_of(LAYERS[n].content)[7:] for n in (1, 2, 6)}


@pytest.mark.parametrize("path", ["../escaped", "/escaped", "a/../../escaped", "a\0b", "..", "."])
def test_a_modelpack_that_leads_out_of_the_target_is_refused(
    kitd, docker_registry, publish, tmp_path, path
):
    """Nothing is written, not even what comes before."""
    reference = f"{docker_registry.host}/team/hostile:v1"
    publish(reference, **modelpack([LAYERS[0], raw("weight", path, b"x")]))
    daemon = kitd().start()
    target = tmp_path / "inner" / "target"
    answer = daemon.kitctl("--json", "unpack", reference, "-d", target)

    assert answer.code == 1
    assert answer.json["error"]["code"] == "unsafe_name"
    assert not (tmp_path / "inner").exists()
    assert not (tmp_path / "escaped").exists()


def test_a_modelpack_beside_a_modelkit_costs_two_small_blobs(
    kitd, project, docker_registry, skopeo, tmp_path
):
    """Of one project; both unpack to the same files, from a registry and with the Kitfile."""
    host = docker_registry.host
    here = kitd().start()
    kit = here.json("pack", project, "-t", f"{host}/team/demo:kit", "--push")
    before = blobs(here)
    pack = here.json("pack", project, "-t", f"{host}/team/demo:pack", "--model-pack", "--push")

    assert blobs(here) - before == {pack["digest"][7:], pack["config"]["digest"][7:]}
    assert pack["push"]["bytes"]["sent"] < 4096
    assert [layer["digest"] for layer in pack["layers"]] == [
        layer["digest"] for layer in kit["layers"]
    ]
    manifest = json.loads(
        skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{host}/team/demo:pack")
    )
    assert manifest["artifactType"] == f"{CNCF}manifest.v1+json"
    assert [layer["mediaType"] for layer in manifest["layers"]] == [
        f"{CNCF}weight.v1.tar",
        f"{CNCF}dataset.v1.tar",
    ]
    assert (
        json.loads(manifest["annotations"]["ml.kitops.modelkit.kitfile"])
        == (here.json("inspect", f"{host}/team/demo:kit")["kitfile"])
    )
    there = kitd().start()
    for tag in ("kit", "pack"):
        there.json("unpack", f"{host}/team/demo:{tag}", "-d", tmp_path / tag)
    assert files(tmp_path / "kit") == files(tmp_path / "pack")
    assert {each["modelName"] for each in there.json("list")} == {"demo"}


def test_equal_content_is_no_new_modelpack(kitd, project):
    """Whatever the time; but it is another kit than the ModelKit."""
    daemon = kitd().start()
    first = daemon.json("pack", project, "-t", "demo:v1", "--model-pack")
    again = daemon.json("pack", project, "-t", "demo:v2", "--use-model-pack")
    kit = daemon.json("pack", project, "-t", "demo:v3")

    assert (again["digest"], again["unchanged"]) == (first["digest"], True)
    assert (again["config"], again["layers"][0]["mediaType"]) == (
        first["config"],
        f"{CNCF}weight.v1.tar",
    )
    assert (kit["digest"] == first["digest"], kit["unchanged"]) == (False, False)


@pytest.mark.parametrize("form", [(), ("--model-pack",)])
@pytest.mark.parametrize("layer_format", ["tar", "raw"])
def test_a_date_makes_digests_equal_everywhere(kitd, project, form, layer_format):
    """That of who packs, whatever the daemon has packed before."""
    if layer_format == "raw":
        text = (project / "Kitfile").read_text().replace("path: data", "path: data/a.csv")
        (project / "Kitfile").write_text(text)
        (project / "model.bin").chmod(0o755)
    options = ("--layer-format", layer_format, *form)
    packed = []
    for first in (False, True):
        daemon = kitd().start()
        if first:
            daemon.json("pack", project, "-t", "demo:now", *options)
        daemon.environ |= EPOCH
        packed.append(daemon.json("pack", project, "-t", "demo:v1", *options))
    assert packed[0]["digest"] == packed[1]["digest"]
    manifest = daemon.json("inspect", "demo:v1")["manifest"]
    assert manifest["annotations"]["org.opencontainers.image.created"] == "2026-01-02T03:04:05Z"
    assert all(layer["mediaType"].endswith(f".v1.{layer_format}") for layer in packed[0]["layers"])

    target = daemon.place / "target"
    daemon.json("unpack", "demo:v1", "-d", target)
    found, expected = files(target), files(project)
    assert found.pop("Kitfile")
    assert expected.pop("Kitfile")
    assert found == expected


def test_a_date_that_is_none_is_refused(kitd, project):
    """As kit does: nobody gets a kit that bears the present by mistake."""
    daemon = kitd().start()
    daemon.environ["SOURCE_DATE_EPOCH"] = "yesterday"
    answer = daemon.kitctl("pack", project, "-t", "demo:v1")
    assert answer.code == 2
    assert "SOURCE_DATE_EPOCH" in answer.err


def test_the_older_dialect_has_its_modelpacks_in_the_current_one(kitd, project):
    """kit 1.7 cannot read any; layers have their paths."""
    daemon = kitd({"modelkit": {"dialect": "kit-1.7", "cli_version": "1.7.0"}}).start()
    daemon.json("pack", project, "-t", "demo:v1", "--model-pack")
    layers = daemon.json("inspect", "demo:v1")["manifest"]["layers"]
    assert [layer["annotations"]["org.cncf.model.filepath"] for layer in layers] == [
        "model.bin",
        "data",
    ]


@pytest.mark.parametrize(
    ("kitfile", "options", "problem"),
    [
        ("mcpServers: [{name: s, path: s.mcpb}]", (), "MCP servers"),
        ("package: {name: nothing}", (), "at least one layer"),
        (
            "model: {path: model.bin}",
            ("--layer-format", "raw", "--compression", "gzip"),
            "cannot be compressed",
        ),
        ("datasets: [{path: data}]", ("--layer-format", "raw"), "is not a file"),
    ],
)
def test_what_a_modelpack_cannot_hold_is_refused(
    kitd, project, mcp_bundle, kitfile, options, problem
):
    mcp_bundle(project / "s.mcpb")
    (project / "Kitfile").write_text(f"manifestVersion: 1.0.0\n{kitfile}\n")
    answer = kitd().start().kitctl("pack", project, "-t", "demo:v1", "--model-pack", *options)
    assert answer.code == 1
    assert problem in answer.err


@pytest.fixture
def mcp_bundle() -> Callable[[Path], None]:
    """Write an MCP bundle."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as bundle:
            bundle.writestr("manifest.json", "{}")

    return write


def test_prompts_and_mcp_servers_come_back(kitd, docker_registry, project, mcp_bundle, tmp_path):
    """Through a registry, and by their own filters."""
    mcp_bundle(project / "server.mcpb")
    (project / "ask.prompt.md").write_text("Be kind.\n")
    (project / "Kitfile").write_text(
        "manifestVersion: 1.0.0\npackage: {name: demo}\nmodel: {name: m, path: model.bin}\n"
        "prompts: [{name: ask, path: ask.prompt.md}]\n"
        "mcpServers: [{name: server, path: server.mcpb}]\n"
    )
    reference = f"{docker_registry.host}/team/demo:v1"
    kitd().start().json("pack", project, "-t", reference, "--push", "--compression", "gzip")
    there = kitd().start()
    for chosen, expected in (
        ("prompts:ask", {"ask.prompt.md"}),
        ("mcpservers", {"server.mcpb"}),
        ("model,prompts,mcpservers", {"model.bin", "ask.prompt.md", "server.mcpb"}),
    ):
        target = tmp_path / chosen.replace(":", "-")
        there.json("unpack", reference, "-d", target, "-f", chosen)
        assert files(target) == {
            name: found for name, found in files(project).items() if name in expected
        }
    layers = there.json("inspect", reference)["manifest"]["layers"]
    assert layers[1]["annotations"]["ml.kitops.modelkit.layer-subtype"] == "prompt"
    assert layers[2]["mediaType"] == f"{KIT}mcpb.v1.raw"


def test_kits_from_before_digests_were_recorded_are_unpacked(
    kitd, docker_registry, publish, tmp_path
):
    """Their layers are told apart by position, and begin in the directory of the entry."""
    reference = f"{docker_registry.host}/team/old:v1"
    layers = [
        Layer(f"{KIT}model.v1.tar", tar({"big/model.bin": b"weights"})),
        Layer(f"{KIT}code.v1.tar", tar({"src/run.py": b"code"})),
        Layer(f"{KIT}dataset.v1.tar", tar({"train.csv": b"1"})),
        Layer(f"{KIT}dataset.v1.tar", tar({"test.csv": b"2"})),
    ]
    config = {
        "manifestVersion": "1.0.0",
        "package": {"name": "old"},
        "model": {"path": "./models/big"},
        "code": [{"path": "src"}],
        "datasets": [{"path": "data/train.csv"}, {"path": "data/more/test.csv"}],
    }
    publish(reference, layers, config, f"{KIT}config.v1+json")
    daemon = kitd().start()
    daemon.json("unpack", reference, "-d", tmp_path / "all")
    found = files(tmp_path / "all")
    assert found.pop("Kitfile")
    assert {name: content for name, (_, content) in found.items()} == {
        "models/big/model.bin": b"weights",
        "src/run.py": b"code",
        "data/train.csv": b"1",
        "data/more/test.csv": b"2",
    }
    daemon.json("unpack", reference, "-d", tmp_path / "one", "-f", "datasets:data/more/test.csv")
    assert set(files(tmp_path / "one")) == {"data/more/test.csv"}


def test_watched_projects_are_packed_as_modelpacks_where_that_is_configured(
    kitd, watched, docker_registry, skopeo
):
    """Saved, found in the registry."""
    host = docker_registry.host
    config = watched(f"{host}/team/demo") | {"modelkit": {"model_pack": True}}
    daemon = kitd(config).start()
    daemon.quiet()
    name = f"docker://{host}/team/demo:latest"
    manifest = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", name))
    assert manifest["artifactType"] == f"{CNCF}manifest.v1+json"
