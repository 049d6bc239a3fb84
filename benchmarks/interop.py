"""Not a race: the real `kit` pulls and unpacks what kitd packed and pushed, and the reverse.

Uses the golden cases of the tests and kitd's own registry. Trees have to be equal, modes included,
those of directories too; kit 1.7 alone sets the sticky bit, which is no permission. Where kit
cannot unpack what kit itself packs (a file that a `.kitignore` takes back in below a directory that
it leaves out), the line says so.
"""

import json
import os
import runpy
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import Settings, peer
from benchmarks.scene import Scene, daemon

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "conftest.py"
COMPRESSIONS = ("none", "gzip", "gzip-fastest")
"""Those that kit 1.7 reads. What is compressed has digests of its own and the same `diffId`s."""
DIALECTS = {"current": "1.16.0", "kit-1.7": "1.7.0"}


def tree(root: Path) -> dict[str, tuple[int, bytes | None]]:
    """Return permissions, and what is in files, of all but the Kitfile, which is written anew."""
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mode & 0o777,
            path.read_bytes() if path.is_file() else None,
        )
        for path in root.rglob("*")
        if path != root / "Kitfile"
    }


def verdict(scene: Scene, kit: str, root: Path, reference: str, *, pulls: bool = True) -> str:
    """Unpack with both programs and compare; kit has it already unless it `pulls`."""
    where = root.relative_to(scene.place)
    theirs, ours = scene.place / "kit" / where, scene.place / "kitctl" / where
    scene.kitctl("unpack", reference, "-d", str(ours))
    commands = [["pull", reference]] if pulls else []
    for command in (*commands, ["unpack", reference, "-d", str(theirs)]):
        if failure := run_kit(scene, kit, *command):
            return failure
    return "trees equal" if tree(theirs) == tree(ours) else "TREES DIFFER"


def run_kit(scene: Scene, kit: str, *command: str) -> str | None:
    """Run kit with a home of its own; return what it says if it fails."""
    home = str(scene.place / "kit-home")
    plain = ("--plain-http",) if command[0] != "pack" else ()
    done = subprocess.run(
        [kit, *command, *plain, "--config", home], check=False, capture_output=True, text=True
    )
    if done.returncode == 0:
        return None
    return f"kit {command[0]} failed: {done.stderr.strip().splitlines()[-1]}"


def diff_ids(document: object) -> Iterator[str]:
    """Yield every `diffId` in a document: digests of layers before compression."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from (value,) if key == "diffId" else diff_ids(value)
    elif isinstance(document, list):
        for item in document:
            yield from diff_ids(item)


def check(
    scene: Scene, kit: str, dialect: str, address: str, compression: str
) -> Iterator[tuple[str, str]]:
    """Pack, push and compare every golden case; yield the names and what came out."""
    golden = runpy.run_path(str(GOLDEN))
    for case, expected in zip(golden["CASES"], golden["EXPECTED"], strict=True):
        if not expected["ok"]:
            continue
        root = scene.place / dialect / compression / case["name"]
        root.mkdir(parents=True)
        golden["_materialise"](case, root)
        reference = f"{address}/{dialect}/{compression}/{case['name']}:v1"
        options = ["-t", reference, "--push", "--compression", compression]
        packed: dict[str, Any] = json.loads(scene.kitctl("--json", "pack", str(root), *options))
        plain = [layer["digest"] for layer in expected["layers"]]
        if compression == "none":
            same = [layer["digest"] for layer in packed["layers"]] == plain
            same = same and packed["config"]["digest"] == expected["config"]["digest"]
            if dialect == "kit-1.7":
                same = same and packed["digest"] == expected["manifest"]["digest"]
        else:
            inspected = json.loads(scene.kitctl("--json", "inspect", reference))
            same = set(diff_ids(inspected)) == set(plain)
        digests = "digests equal" if same else "DIGESTS DIFFER"
        told = f"{digests}, {verdict(scene, kit, root, reference)}"
        yield case["name"], told


def check_reverse(
    scene: Scene, kit: str, address: str, compression: str
) -> Iterator[tuple[str, str]]:
    """Let kit pack and push every golden case, and compare what both unpack of it."""
    golden = runpy.run_path(str(GOLDEN))
    for case, expected in zip(golden["CASES"], golden["EXPECTED"], strict=True):
        if not expected["ok"]:
            continue
        root = scene.place / "of-kit" / compression / case["name"]
        root.mkdir(parents=True)
        golden["_materialise"](case, root)
        reference = f"{address}/of-kit/{compression}/{case['name']}:v1"
        told = (
            run_kit(scene, kit, "pack", str(root), "-t", reference, "--compression", compression)
            or run_kit(scene, kit, "push", reference)
            or verdict(scene, kit, root, reference, pulls=False)
        )
        yield case["name"], told


def summary(title: str, told: Iterator[tuple[str, str]]) -> str:
    """Return how many cases came out as most do, and a line for each of the others."""
    verdicts = dict(told)
    usual, count = Counter(verdicts.values()).most_common(1)[0]
    others = [f"  {name}: {text}" for name, text in verdicts.items() if text != usual]
    return "\n".join([f"{title}: {count} of {len(verdicts)} cases: {usual}", *others])


def run(place: Path, settings: Settings) -> Iterator[str]:
    """Check both dialects, and what kit packs itself."""
    kit = peer("kit")
    if kit is None:
        yield "interop: kit is not on PATH"
        return
    os.umask(0o022)
    for dialect, version in DIALECTS.items():
        config = {
            "registry": {"listen": "127.0.0.1:0"},
            "modelkit": {"dialect": dialect, "cli_version": version},
        }
        with daemon(place / f"with-{dialect}", config) as scene:
            for compression in COMPRESSIONS:
                address = scene.registry_address()
                title = f"packed by kitd as {dialect}, {compression}"
                yield summary(title, check(scene, kit, dialect, address, compression))
                if dialect == "kit-1.7":
                    told = check_reverse(scene, kit, address, compression)
                    yield summary(f"packed by kit, {compression}", told)
