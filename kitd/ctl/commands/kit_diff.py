"""`kitctl diff`: what two kits share, and which layers and files only one of them has."""

from collections.abc import Sequence
from typing import Any

from kitd.client import Client, request
from kitd.client.diff import ChangedFile, File, FileDiff, compare_files, layers_elsewhere
from kitd.client.protocol import Document
from kitd.client.record import DiffAnnotation, DiffLayer, DiffSide, KitDiff, Progress
from kitd.ctl.cells import fold, shorten
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.format import plural, printable, short_digest, size
from kitd.ctl.progress import ProgressLine
from kitd.ctl.session import Session
from kitd.ctl.table import Column, render

REMOTE_S = 120.0
MAX_FILES = 100
"""Files of each kind, and annotations, that are named on a screen."""
MAX_FILES_AS_JSON = 10_000
"""And as JSON; the others are counted in `omitted`."""
MAX_ANNOTATION_CELLS = 400
"""Of an annotation, on a terminal: a registry's may have megabytes."""
_COLUMNS = (
    Column("IN"),
    Column("TYPE"),
    Column("PATH", can_shrink=True, keeps_end=True, least=20),
    Column("SIZE", is_right=True, leaves=2),
    Column("DIGEST", leaves=1),
)


def diff_kits(session: Session, *, a: str, b: str, layers: bool) -> int:
    """Show what two kits share, and what they do not."""
    with session.connect() as client:
        diff = client.call(request.diff_kits(a, b), timeout_s=REMOTE_S)
        files, why_not = None, None
        if not diff.identical and not layers:
            why_not = _why_not(diff)
            files = None if why_not else _compare(session, client, diff)
    document = {**diff.document, "files": None if files is None else _document(files)}
    if diff.identical:
        text = f"the kits are identical: {printable(diff.a.digest)}"
    else:
        text = "\n".join(_lines(session, diff, files))
        if why_not:
            session.terminal.note(f"files are not compared: {why_not}")
    session.terminal.show(document, text)
    return ExitCode.DONE


def _why_not(diff: KitDiff) -> str | None:
    lacking = layers_elsewhere(diff)
    if not lacking:
        return None
    digests = {layer.layer.digest for layer in lacking}
    side = diff.a if any(each.layer.digest in digests for each in diff.only_a) else diff.b
    return printable(
        f"{plural(len(digests), 'layer')} of {size(sum(each.layer.size for each in lacking))}"
        f" would have to come first: kitctl pull {side.reference}"
    )


def _compare(session: Session, client: Client, diff: KitDiff) -> FileDiff:
    total = sum(each.layer.size for each in (*diff.only_a, *diff.only_b))
    done = 0
    with ProgressLine(session.terminal) as line:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            line.update(Progress("comparing", done, total))

        return compare_files(client, diff, advance)


def _document(files: FileDiff) -> Document:
    most = MAX_FILES_AS_JSON
    more = sum(max(0, len(each) - most) for each in (files.added, files.removed, files.changed))
    return {
        "added": [_file(file) for file in files.added[:most]],
        "removed": [_file(file) for file in files.removed[:most]],
        "changed": [
            {"path": pair.a.path, "a": _content(pair.a), "b": _content(pair.b)}
            for pair in files.changed[:most]
        ],
        "unchanged": files.unchanged,
        "omitted": more,
    }


def _file(file: File) -> dict[str, Any]:
    return {"path": file.path, **_content(file)}


def _content(file: File) -> dict[str, Any]:
    return {"size": file.size, "mode": f"{file.mode:04o}", "digest": f"sha256:{file.sha256}"}


def _lines(session: Session, diff: KitDiff, files: FileDiff | None) -> list[str]:
    width = session.terminal.width
    lines = [*fold(_side("a", diff.a), width), *fold(_side("b", diff.b), width), ""]
    lines += _some([_annotation(each, width) for each in diff.annotations])
    lines += [""] if diff.annotations else []
    rows = [
        *(_row("both", layer) for layer in diff.shared),
        *(_row("a", layer) for layer in diff.only_a),
        *(_row("b", layer) for layer in diff.only_b),
    ]
    lines += render(_COLUMNS, rows, width=width)
    if files is not None:
        lines += ["", *_changes(session, files)]
    return lines


def _side(letter: str, side: DiffSide) -> str:
    where = "in its registry" if side.remote else "in the cache"
    return printable(f"{letter}: {side.reference} ({short_digest(side.digest)}, {where})")


def _annotation(each: DiffAnnotation, width: int | None) -> str:
    texts = [printable(text) for text in (each.key, each.a or "nothing", each.b or "nothing")]
    if width is not None:
        texts = [shorten(text, MAX_ANNOTATION_CELLS) for text in texts]
    return "\n".join(fold(f"{texts[0]}: {texts[1]} -> {texts[2]}", width, indent="  "))


def _row(where: str, each: DiffLayer) -> tuple[str, ...]:
    layer = each.layer
    return where, each.kind, layer.path, size(layer.size), short_digest(layer.digest)


def _changes(session: Session, files: FileDiff) -> list[str]:
    paint, width = session.terminal.paint, session.terminal.width
    lines: list[str] = []
    for colour, sign, changed in (("red", "-", files.removed), ("green", "+", files.added)):
        lines += _some(
            [paint(colour, _file_line(sign, file.path, size(file.size), width)) for file in changed]
        )
    lines += _some([paint("yellow", _change(pair, width)) for pair in files.changed])
    counts = f"{len(files.removed)} removed, {len(files.added)} added, {len(files.changed)} changed"
    total = f"files of layers that differ: {counts}, {files.unchanged} unchanged"
    return [*lines, *fold(total, width, indent="  ")]


def _file_line(sign: str, path: str, facts: str, width: int | None) -> str:
    """Return a file with what there is to say of it; of a long path the end is left."""
    name = printable(path)
    if width is not None:
        name = shorten(name, max(width - len(sign) - len(facts) - 3, 8), keeps_end=True)
    return f"{sign} {name}  {facts}"


def _change(pair: ChangedFile, width: int | None) -> str:
    was, now = pair
    facts = size(was.size) if was.size == now.size else f"{size(was.size)} -> {size(now.size)}"
    if was.mode != now.mode:
        facts += f", mode {was.mode:04o} -> {now.mode:04o}"
    return _file_line("~", was.path, facts, width)


def _some(lines: Sequence[str]) -> list[str]:
    more = len(lines) - MAX_FILES
    return [*lines[:MAX_FILES], f"… and {more} more"] if more > 0 else list(lines)
