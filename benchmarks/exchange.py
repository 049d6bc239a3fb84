"""Kits that kitd and the real `kit` make for each other, and how much of a kit is fetched.

One large project goes through Debian's registry both ways: the trees have to be those that were
packed, modes included. Then one layer of a kit is unpacked straight from the registry, and the
registry's own log says how many bytes left it.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks import tree
from benchmarks.kit import empty_home
from benchmarks.measure import (
    Comparison,
    Run,
    Settings,
    absent,
    alternate,
    command,
    mebibytes,
    peer,
)
from benchmarks.scene import DockerRegistry, Scene, daemon, docker_registry

MODES = (0o644, 0o755, 0o600, 0o640, 0o444)


def write_project(root: Path, *, model_bytes: int, files: int) -> None:
    """Write a model and so many files of all modes, as data, code and documents."""
    tree.write_small_files(root, files)
    (root / "src").mkdir()
    for number, name in enumerate(tree.files_of(root)):
        path = root / name
        path.chmod(MODES[number % len(MODES)])
        if number % 10 == 0:
            path.rename(root / "src" / path.name)
    (root / "README.md").write_text("# Both ways\n")
    tree.write_bytes(root / "model.bin", model_bytes)
    tree.write_kitfile(
        root,
        model={"name": "both-ways", "path": "model.bin"},
        datasets=[{"name": "data", "path": "data"}],
        code=[{"path": "src"}],
        docs=[{"path": "README.md"}],
    )


def differences(one: Path, other: Path) -> int:
    """Return how many entries two trees do not share: names, modes and contents; not Kitfiles."""

    def entries(root: Path) -> dict[str, tuple[int, Path | None]]:
        return {
            str(path.relative_to(root)): (path.stat().st_mode, path if path.is_file() else None)
            for path in root.rglob("*")
            if path.name != "Kitfile"
        }

    def equal(name: str) -> bool:
        here, there = ours.get(name), theirs.get(name)
        if here is None or there is None or here[0] != there[0]:
            return False
        return here[1] is None or there[1] is None or _same_bytes(here[1], there[1])

    ours, theirs = entries(one), entries(other)
    return sum(not equal(name) for name in ours.keys() | theirs.keys())


def _same_bytes(one: Path, other: Path) -> bool:
    with one.open("rb") as ours, other.open("rb") as theirs:
        while block := ours.read(tree.BLOCK_BYTES):
            if theirs.read(len(block)) != block:
                return False
        return not theirs.read(1)


@contextlib.contextmanager
def with_kitctl(place: Path, reference: str, target: Path) -> Iterator[Run]:
    """Prepare an unpack through a daemon that has nothing yet; the tree stays."""
    shutil.rmtree(target, ignore_errors=True)
    with daemon(place, {}) as scene:
        yield partial(scene.kitctl, "unpack", reference, "-d", str(target))
    shutil.rmtree(place)


@contextlib.contextmanager
def with_kit(
    kit: str, home: Path, reference: str, target: Path, *, pulled: bool = False
) -> Iterator[Run]:
    """Prepare an unpack by kit, which has nothing yet either; or one of what it pulls first."""
    shutil.rmtree(target, ignore_errors=True)
    with empty_home(kit, home) as options:
        plain = ("--plain-http", *options)
        pull = command(kit, "pull", reference, *plain)
        unpack = command(kit, "unpack", reference, "-d", str(target), *plain)

        def both() -> None:
            pull()
            unpack()

        yield both if pulled else unpack


def both_ways(place: Path, kit: str, registry: DockerRegistry, settings: Settings) -> Iterator[str]:
    """Pack with one and unpack with the other, and the other way round."""
    files, model_bytes = settings.scaled(5_000), settings.scaled(2 << 30)
    root = place / "project"
    write_project(root, model_bytes=model_bytes, files=files)
    by_kitd, by_kit = f"{registry.host}/exchange/kitd:v1", f"{registry.host}/exchange/kit:v1"
    with daemon(place / "packing", {}) as packing:
        packing.kitctl("pack", str(root), "-t", by_kitd, "--push")
    with empty_home(kit, place / "packing-kit") as home:
        command(kit, "pack", str(root), "-t", by_kit, *home)()
        command(kit, "push", by_kit, "--plain-http", *home)()
    ours, theirs = place / "with-kitctl", place / "with-kit"
    for packer, reference in (("kitd", by_kitd), ("kit", by_kit)):
        by_theirs = partial(with_kit, kit, place / "kit", reference, theirs)
        seconds = alternate(
            {
                "kitctl": partial(with_kitctl, place / "empty", reference, ours),
                "kit": by_theirs,
                "kit, pulled": partial(by_theirs, pulled=True),
            },
            rounds=settings.rounds,
        )
        found = [differences(root, at) for at in (ours, theirs)]
        yield Comparison(
            f"unpack from a registry what {packer} packed, {files:,} files and a model of "
            f"{mebibytes(model_bytes)}",
            seconds,
            note=(
                "kitctl verifies every byte and leaves the kit in its cache, as kit does once it "
                "pulls;\n  entries unlike those packed (names, modes, contents): "
                f"by kitctl {found[0]}, by kit {found[1]}"
            ),
        ).table()


def one_layer(scene: Scene, registry: DockerRegistry, settings: Settings) -> str:
    """Unpack the model of a kit whose dataset is many times as large."""
    model_bytes, data_bytes = settings.scaled(64 << 20), settings.scaled(2 << 30)
    root = scene.place / "parts"
    root.mkdir()
    tree.write_bytes(root / "model.bin", model_bytes)
    tree.write_bytes(root / "data.bin", data_bytes)
    tree.write_kitfile(root, model={"path": "model.bin"}, datasets=[{"path": "data.bin"}])
    reference = f"{registry.host}/exchange/parts:v1"
    packed = json.loads(scene.kitctl("--json", "pack", str(root), "-t", reference, "--push"))
    # The daemon that packed has it all: another one, with an empty cache, is to unpack.
    with daemon(scene.place / "elsewhere", {}) as elsewhere:
        sent_bytes = registry.sent_bytes()
        target = scene.place / "model"
        elsewhere.kitctl("unpack", reference, "-d", str(target), "--filter", "model")
        sent_bytes = registry.sent_bytes() - sent_bytes
    assert [path.name for path in target.iterdir()] == ["model.bin"]
    assert _same_bytes(target / "model.bin", root / "model.bin")
    layer_bytes = next(layer["size"] for layer in packed["layers"] if "model" in layer["mediaType"])
    return (
        f"unpack --filter model of a kit with a dataset of {mebibytes(data_bytes)}\n"
        f"  the model's layer has {layer_bytes:,} bytes; the registry sent {sent_bytes:,}, "
        f"{sent_bytes - layer_bytes:,} more (manifest, config)"
    )


def run(place: Path, settings: Settings) -> Iterator[str]:
    """Measure both; what is counted needs no peer."""
    program = peer("docker-registry")
    if program is None:
        yield f"exchange: {absent('docker-registry')}"
        return
    with docker_registry(program, place / "registry", access_log=True) as registry:
        with daemon(place / "kitd", {}) as scene:
            yield one_layer(scene, registry, settings)
        kit = peer("kit")
        if kit is None:
            yield f"both ways: {absent('kit')}"
            return
        yield from both_ways(place, kit, registry, settings)
