"""The worker process: `python -m kitd.packing.worker`. Takes orders on stdin, answers on stdout.

One order at a time. The end of stdin means that the daemon is gone, and then so is the worker, at
once and whatever it is doing: what it leaves is a temporary file that the next start sweeps.
"""

import errno
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from kitd.errors import KitdError
from kitd.modelkit.config_blob import encode_config
from kitd.modelkit.dialect import Dialect
from kitd.modelkit.errors import UnsupportedKitError
from kitd.modelkit.ignore import KITIGNORE_NAME, MAX_KITIGNORE_BYTES, IgnoreRules
from kitd.modelkit.kit_divergence import MAX_PATHS, Divergence, find_divergences
from kitd.modelkit.kitfile import (
    KITFILE_NAMES,
    LayerDigests,
    parse_kitfile,
    with_layer_digests,
)
from kitd.modelkit.kitfile_yaml import MAX_KITFILE_BYTES
from kitd.modelkit.media_type import LayerFormat
from kitd.modelkit.plan import Selection, plan_layers
from kitd.modelkit.validation import require_valid
from kitd.oci.digest import Digest
from kitd.packing.git_head import head_commit
from kitd.packing.layer import MEDIA_COMPRESSION, build_layer
from kitd.packing.order import (
    Advanced,
    Answer,
    Order,
    Packed,
    PackedLayer,
    PackOrder,
    Project,
    Scanned,
    ScanOrder,
    failed,
)
from kitd.packing.scan import (
    Entry,
    InputChangedError,
    InputError,
    MissingInputError,
    Tree,
    fingerprint,
    open_root,
    printable,
    read_beneath,
    require_paths,
    scan,
)
from kitd.store.blob_store import BlobStore

REPORT_INTERVAL_S = 0.1


def read_small(root: int, path: str, max_bytes: int) -> bytes | None:
    """Return the content of a Kitfile or .kitignore, or None if there is none.

    Raises `InputError`.
    """
    try:
        content = read_beneath(root, path, max_bytes + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        linked = error.errno in (errno.ELOOP, errno.ENOTDIR)
        raise InputError(
            f"cannot read {printable(path)}: {error.strerror}",
            hint="links are not followed: put the file itself there" if linked else None,
        ) from error
    if len(content) > max_bytes:
        raise InputError(f"{printable(path)} is larger than {max_bytes} bytes")
    return content


def _read_kitfile(root: int, project: Project) -> tuple[str, bytes]:
    names = KITFILE_NAMES if project.kitfile is None else (project.kitfile,)
    for name in names:
        content = read_small(root, name, MAX_KITFILE_BYTES)
        if content is not None:
            return name, content
    raise MissingInputError(
        f"there is no {names[0]} in {printable(project.root)}",
        hint="write one: the README has a small example"
        if project.kitfile is None
        else "correct the project's kitfile setting",
    )


class _Input:
    """A project as it is now: Kitfile, layer plans and the walk's result."""

    def __init__(self, root: int, project: Project) -> None:
        name, content = _read_kitfile(root, project)
        dialect = Dialect(project.dialect)
        if project.compression not in MEDIA_COMPRESSION:
            raise UnsupportedKitError(
                f"layers cannot be compressed with {project.compression} yet",
                hint=f"set modelkit.compression to one of {', '.join(MEDIA_COMPRESSION)}",
            )
        self.kitfile = parse_kitfile(content, name=name)
        self.warnings = require_valid(self.kitfile, dialect, name=name)
        self.plans = plan_layers(
            self.kitfile,
            dialect,
            layer_format=LayerFormat(project.layer_format),
            compression=MEDIA_COMPRESSION[project.compression],
        )
        require_paths(root, self.plans)
        rules = IgnoreRules.parse(read_small(root, KITIGNORE_NAME, MAX_KITIGNORE_BYTES) or b"")
        self.tree: Tree = scan(root, Selection(self.plans, rules))
        self.fingerprint = fingerprint(project, content, self.tree)
        self.dialect = dialect


def run_scan(order: ScanOrder) -> Scanned:
    """Return the state of a project. Raises `KitdError`."""
    root = open_root(order.project.root)
    try:
        found = _Input(root, order.project)
    finally:
        os.close(root)
    return Scanned(found.fingerprint, len(found.tree.entries), found.tree.size_bytes)


def run_pack(order: PackOrder, report: Callable[[Advanced], None]) -> Packed:
    """Build a project's layers and config. Raises `KitdError`; then no kit came of it."""
    store = BlobStore(Path(order.cache), label=order.label)
    root = open_root(order.project.root)
    try:
        found = _Input(root, order.project)
        layers = _build(root, found, order, store, report)
        commit = head_commit(root)
        if _Input(root, order.project).fingerprint != found.fingerprint:
            raise InputChangedError(
                f"{printable(order.project.root)} changed while the kit was packed"
            )
    finally:
        os.close(root)
    digests = [LayerDigests(Digest(layer.digest), Digest(layer.diff_id)) for layer in layers]
    config = store.put(encode_config(with_layer_digests(found.kitfile, digests)))
    package, model = found.kitfile.package, found.kitfile.model
    return Packed(
        config_digest=config.digest,
        config_size=config.size,
        layers=layers,
        fingerprint=found.fingerprint,
        model_name=package.name or ("" if model is None else model.name),
        author=package.authors[0] if package.authors else "",
        package_version=package.version or None,
        git_commit=commit,
        warnings=_warnings(found),
    )


def _warnings(found: _Input) -> tuple[str, ...]:
    links = found.tree.links
    divergences = find_divergences(found.plans, found.tree.entries, found.dialect)
    return (
        *found.warnings,
        *(f"{printable(path)} is a symbolic link and stays out" for path in links[:MAX_PATHS]),
        *_rest(len(links), "symbolic links stay out"),
        *(line for divergence in divergences for line in _lines(divergence)),
    )


def _lines(divergence: Divergence) -> Iterator[str]:
    for path in divergence.paths:
        yield f"{printable(path)}: {divergence.reason}"
    yield from _rest(divergence.count, f"paths: {divergence.reason}")


def _rest(count: int, what: str) -> Iterator[str]:
    if count > MAX_PATHS:
        yield f"{count - MAX_PATHS} more {what}"


def _build(
    root: int,
    found: _Input,
    order: PackOrder,
    store: BlobStore,
    report: Callable[[Advanced], None],
) -> tuple[PackedLayer, ...]:
    entries: list[list[Entry]] = [[] for _ in found.plans]
    for entry in found.tree.entries:
        for index in entry.layers:
            entries[index].append(entry)
    done_bytes, reported_s = 0, 0.0

    def advanced(count: int) -> None:
        nonlocal done_bytes, reported_s
        done_bytes += count
        now_s = time.monotonic()
        if now_s - reported_s >= REPORT_INTERVAL_S:
            reported_s = now_s
            report(Advanced(done_bytes, found.tree.size_bytes))

    layers = []
    for plan, taken in zip(found.plans, entries, strict=True):
        built = build_layer(
            root, plan, taken, store, compression=order.project.compression, advanced=advanced
        )
        layers.append(
            PackedLayer(
                media_type=str(plan.type),
                digest=built.blob.digest,
                size=built.blob.size,
                diff_id=built.diff_id,
                annotations=built.annotations,
                reused=built.blob.reused,
            )
        )
    return tuple(layers)


def _serve(orders: "queue.SimpleQueue[bytes]", out: BinaryIO) -> None:
    encoder = msgspec.json.Encoder()

    def answer(message: Answer) -> None:
        out.write(encoder.encode(message) + b"\n")
        out.flush()

    while True:
        order = msgspec.json.decode(orders.get(), type=Order)
        try:
            if isinstance(order, ScanOrder):
                answer(run_scan(order))
            else:
                answer(run_pack(order, answer))
        except KitdError as error:
            answer(failed(error))
        except Exception as error:  # noqa: BLE001 - the boundary: a defect is told, not died of
            traceback.print_exc()
            what = f"a defect in kitd: {type(error).__name__}: {error}"
            answer(failed(KitdError(what, hint="the log has the details; please report it")))


def main() -> None:
    """Serve orders until stdin ends."""
    orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    out = os.fdopen(os.dup(1), "wb")
    # Nothing but answers may reach the pipe.
    os.dup2(2, 1)

    def listen() -> None:
        for line in sys.stdin.buffer:
            orders.put(line)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    _serve(orders, out)


if __name__ == "__main__":
    main()
