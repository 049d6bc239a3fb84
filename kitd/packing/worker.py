"""The worker process: `python -m kitd.packing.worker`. Takes orders on stdin, answers on stdout.

One order at a time. The end of stdin means that the daemon is gone, and then so is the worker, at
once and whatever it is doing: what it leaves is a temporary file that the next start sweeps.
"""

import gc
import math
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, assert_never

import msgspec

from kitd.caller import Caller
from kitd.errors import KitdError, printable
from kitd.hold import Hold
from kitd.modelkit.config_blob import encode_config
from kitd.modelkit.kit_divergence import MAX_PATHS, Divergence, find_divergences
from kitd.modelkit.kitfile import LayerDigests, with_layer_digests
from kitd.mount import is_overlaid, remote_mount
from kitd.oci.digest import Digest
from kitd.packing.build import Destination, build_layers
from kitd.packing.gate import TOOLS, TreeFinding, file_holds, tree_holds
from kitd.packing.gate.lease import Leases
from kitd.packing.git_head import head_commit
from kitd.packing.glance import Watches, as_glance, is_racy, is_unchanged, take_sight
from kitd.packing.order import (
    Answer,
    Failed,
    Glance,
    Known,
    Notice,
    Opened,
    Order,
    Packed,
    PackedLayer,
    PackOrder,
    ParentKit,
    Parents,
    Planned,
    Project,
    Referred,
    Scanned,
    ScanOrder,
    Unchanged,
    Watched,
    WatchedPart,
    WorkerError,
    failed,
)
from kitd.packing.recipe import Inputs, Recipe, look, read_recipe
from kitd.packing.scan import InputChangedError, open_root
from kitd.store.blob_store import BlobStore

NICE = 5
"""How far a worker steps back (nice(2)): on a busy machine it gets a third of what others get."""
MAX_WATCHED = 10_000
"""So many watches are told at once: the daemon takes five milliseconds for them."""
OPEN = "a program had it open for writing while it was packed"


class Daemon(Protocol):
    """The other side, as the work sees it. Safe to use from several threads."""

    def tell(self, notice: Notice) -> None:
        """Say something that needs no answer."""
        ...

    def known_layers(self, keys: tuple[str, ...]) -> Mapping[str, PackedLayer]:
        """Return the layers of these keys that need not be built."""
        ...

    def parents(self, reference: str, authors: tuple[int, ...]) -> tuple[ParentKit, ...]:
        """Return the kit of a reference and all that it builds on. Raises `KitdError`.

        `authors` as in `Referred`.
        """
        ...


def run_scan(order: ScanOrder, daemon: Daemon, inotify: int | None) -> Scanned | Unchanged:
    """Return the state of a project. Raises `KitdError`."""
    project = order.project
    watches = Watches(inotify if order.watch else None)
    complete = False
    place = _place(project)
    root = open_root(project.root, project.reader)
    try:
        status = os.fstat(root)
        daemon.tell(Opened(status.st_dev, status.st_ino))
        tree_finding = _tree_holds(root, project)
        recipe = read_recipe(root, project, daemon.parents, watch=watches.add)
        if order.known is not None and is_unchanged(root, recipe, order.known, watches):
            complete = True
            return Unchanged(holds=tree_finding.holds, warnings=tree_finding.warnings)
        inputs = look(root, project, recipe, watch=watches.add)
        complete = True
        return Scanned(
            fingerprint=inputs.fingerprint,
            glance=as_glance(recipe, inputs),
            is_racy=is_racy(inputs),
            holds=(
                *tree_finding.holds,
                *_file_holds(
                    root,
                    inputs,
                    daemon.known_layers(inputs.keys),
                    order.patience_s,
                    leases=place.leases,
                    reader=project.reader,
                ),
            ),
            warnings=tree_finding.warnings,
        )
    finally:
        os.close(root)
        if order.watch:
            placed = tuple(watches.descriptors)
            last = len(placed) // MAX_WATCHED * MAX_WATCHED
            for first in range(0, last, MAX_WATCHED):
                daemon.tell(WatchedPart(placed[first : first + MAX_WATCHED]))
            daemon.tell(
                Watched(
                    descriptors=placed[last:],
                    complete=complete,
                    refused=watches.refused,
                    remote=place.remote,
                )
            )


class _Place(NamedTuple):
    """What there is to know about the file systems that a project is on."""

    remote: str | None
    leases: Leases


def _place(project: Project) -> _Place:
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        mounts = b""
    root = os.fsencode(os.path.realpath(project.root))
    remote = remote_mount(mounts, root)
    if remote is not None:
        return _Place(remote, Leases.NOTHING)
    return _Place(None, Leases.REFUSALS_TELL if is_overlaid(mounts, root) else Leases.TELL)


def _tree_holds(root: int, project: Project) -> TreeFinding:
    """Judge the tree as a whole.

    Tools are looked for above the project too, and where their files point. That is not done on
    behalf of somebody who may not be able to look there himself.
    """
    tools = TOOLS if project.reader is None else ()
    return tree_holds(root, project.root, now_ns=time.time_ns(), tools=tools)


def _file_holds(
    root: int,
    inputs: Inputs,
    known: Mapping[str, PackedLayer],
    patience_s: float,
    *,
    leases: Leases,
    reader: Caller | None,
    is_read_next: bool = False,
) -> tuple[Hold, ...]:
    """Judge the files of the layers that nobody has built yet: the others were judged before."""
    judged = {
        entry.path
        for key, layer in zip(inputs.keys, inputs.layers, strict=True)
        if key not in known
        for entry in layer
        if not entry.is_dir
    }
    return file_holds(
        root,
        inputs.tree,
        judged,
        now_ns=time.time_ns(),
        patience_s=patience_s,
        leases=leases,
        is_read_next=is_read_next,
        reader=reader,
    )


def run_pack(order: PackOrder, daemon: Daemon) -> Packed | Unchanged:
    """Build a project's layers and config. Raises `KitdError`; then no kit came of it."""
    project = order.project
    store = BlobStore(Path(order.cache), label=order.label)
    root = open_root(project.root, project.reader)
    try:
        recipe = read_recipe(root, project, daemon.parents)
        if order.known is not None and is_unchanged(root, recipe, order.known, Watches(None)):
            return Unchanged(git_commit=head_commit(root, project.reader))
        inputs = look(root, project, recipe)
        if order.expected not in (None, inputs.fingerprint):
            raise _moved(project, "since it came to rest")
        known = daemon.known_layers(inputs.keys)
        leases = _place(project).leases
        # What came to rest was judged then; a person who asks is told and not kept waiting.
        unfinished: tuple[Hold, ...] = ()
        holds: tuple[Hold, ...] = ()
        if order.expected is None:
            unfinished = _file_holds(
                root,
                inputs,
                known,
                math.inf,
                leases=leases,
                reader=project.reader,
                is_read_next=True,
            )
            holds = _tree_holds(root, project).holds + unfinished
        built = build_layers(
            root,
            recipe,
            inputs,
            Destination(store, order.streams),
            known=known,
            leases=leases,
            is_finished=not unfinished,
            tell=daemon.tell,
        )
        commit = head_commit(root, project.reader)
        if any(key not in known for key in inputs.keys):
            _require_same(root, project, recipe, inputs, daemon)
    finally:
        os.close(root)
    glance = as_glance(recipe, inputs) if built.proven else None
    return _packed(
        recipe,
        built.layers,
        store,
        fingerprint=inputs.fingerprint,
        glance=glance,
        commit=commit,
        warnings=(
            *_warnings(recipe, inputs),
            *(f"{hold.path}: {hold.detail}" for hold in holds),
            *(f"{printable(path)}: {OPEN}" for path in built.written[:MAX_PATHS]),
            *_rest(len(built.written), "files were open for writing"),
        ),
    )


def _require_same(
    root: int, project: Project, recipe: Recipe, inputs: Inputs, daemon: Daemon
) -> None:
    """Check that what the layers took is still what they would take."""
    again = read_recipe(root, project, daemon.parents)
    if again.digest == recipe.digest:
        sight = take_sight(root, again, Watches(None), entries=inputs.tree.sight.entries)
        if sight == inputs.tree.sight:
            return
    # Something changed that may be in no layer.
    if look(root, project, again).fingerprint != inputs.fingerprint:
        raise _moved(project, "while the kit was packed")


def _moved(project: Project, when: str) -> InputChangedError:
    return InputChangedError(f"{printable(project.root)} changed {when}")


def _packed(
    recipe: Recipe,
    layers: tuple[PackedLayer, ...],
    store: BlobStore,
    *,
    fingerprint: str,
    glance: Glance | None,
    commit: str | None,
    warnings: tuple[str, ...],
) -> Packed:
    digests = [LayerDigests(Digest(layer.digest), Digest(layer.diff_id)) for layer in layers]
    config = store.put(encode_config(with_layer_digests(recipe.kitfile, digests)))
    package, model = recipe.kitfile.package, recipe.kitfile.model
    return Packed(
        config_digest=config.digest,
        config_size=config.size,
        layers=layers,
        fingerprint=fingerprint,
        glance=glance,
        model_name=package.name or ("" if model is None else model.name),
        author=package.authors[0] if package.authors else "",
        package_version=package.version or None,
        git_commit=commit,
        warnings=warnings,
        parents=recipe.parents,
    )


def _warnings(recipe: Recipe, inputs: Inputs) -> tuple[str, ...]:
    links = inputs.tree.links
    divergences = find_divergences(recipe.plans, inputs.tree.entries, recipe.dialect)
    return (
        *recipe.warnings,
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


class _Pipe:
    """The daemon at the other end of stdin and stdout."""

    def __init__(self, lines: "queue.SimpleQueue[bytes]", out: BinaryIO) -> None:
        self._lines = lines
        self._out = out
        self._encoder = msgspec.json.Encoder()
        self._order_decoder: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)
        self._known_decoder = msgspec.json.Decoder(Known)
        self._parents_decoder: msgspec.json.Decoder[Parents | Failed] = msgspec.json.Decoder(
            Parents | Failed
        )
        self._lock = threading.Lock()

    def next_order(self) -> Order:
        return self._order_decoder.decode(self._lines.get())

    def tell(self, message: Notice | Answer) -> None:
        line = self._encoder.encode(message) + b"\n"
        with self._lock:
            try:
                self._out.write(line)
                self._out.flush()
            except BrokenPipeError:
                # The daemon is gone, as `listen` may be about to see too.
                os._exit(0)

    def known_layers(self, keys: tuple[str, ...]) -> Mapping[str, PackedLayer]:
        self.tell(Planned(keys))
        return self._known_decoder.decode(self._lines.get()).layers

    def parents(self, reference: str, authors: tuple[int, ...]) -> tuple[ParentKit, ...]:
        self.tell(Referred(reference, authors))
        reply = self._parents_decoder.decode(self._lines.get())
        if isinstance(reply, Failed):
            raise WorkerError(reply)
        return reply.kits


def _serve(pipe: _Pipe, inotify: int | None) -> None:
    while True:
        order = pipe.next_order()
        try:
            match order:
                case ScanOrder():
                    pipe.tell(run_scan(order, pipe, inotify))
                case PackOrder():
                    pipe.tell(run_pack(order, pipe))
                case _:
                    assert_never(order)
        except KitdError as error:
            pipe.tell(failed(error))
        except Exception as error:  # noqa: BLE001 - the boundary: a defect is told, not died of
            traceback.print_exc()
            what = f"a defect in kitd: {type(error).__name__}: {error}"
            pipe.tell(failed(KitdError(what, hint="the log has the details; please report it")))
        gc.collect()


def main() -> None:
    """Serve orders until stdin ends. The argument is the descriptor of the inotify, if any."""
    # Whoever works at this machine goes first, and so does the loop that answers.
    os.nice(NICE)
    inotify = int(sys.argv[1]) if len(sys.argv) > 1 else None
    # A walk makes millions of objects and no cycles, and the collector would go through all of them
    # again and again. It runs between two orders instead.
    gc.disable()
    # Asking for a lease asks for this signal too.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    out = os.fdopen(os.dup(1), "wb")
    # Nothing but answers may reach the pipe.
    os.dup2(2, 1)

    def listen() -> None:
        for line in sys.stdin.buffer:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    _serve(_Pipe(lines, out), inotify)


if __name__ == "__main__":
    main()
