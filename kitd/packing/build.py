"""Building the layers of a kit that nobody has built yet, several at once.

They go into the blob store; where the kit is to be pushed, those that are too large for it leave
through a pipe while they are read.

One thread for each core: hashing, reading and writing leave the interpreter to the others. The
largest layers begin first, so that no core is left with a large one at the end.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial

from kitd.errors import printable
from kitd.modelkit.plan import LayerPlan
from kitd.packing.compress import block_threads, compressing
from kitd.packing.cores import cores
from kitd.packing.gate.lease import Leases
from kitd.packing.layer import BuiltLayer, build_layer, write_layer
from kitd.packing.order import Advanced, Built, Notice, PackedLayer, Streaming, Streams
from kitd.packing.outlet import hashed, new_pipe, piped
from kitd.packing.reader import YOUNG_NS
from kitd.packing.recipe import Inputs, Recipe
from kitd.packing.scan import Entry, InputChangedError, racy_until
from kitd.store.blob_store import BlobStore, NoSpaceError

REPORT_INTERVAL_S = 0.1
MAX_AT_ONCE = 8
"""Layers. Each takes up to four threads more, and 4 MiB; one that is compressed takes 8 MiB, and
2 MiB for each thread that compresses."""


@dataclass(frozen=True, slots=True)
class BuiltLayers:
    """All layers of a kit; `proven` if any later change of their files shows in their times.

    `written` are files that a program had open for writing when kitd began to read them.
    """

    layers: tuple[PackedLayer, ...]
    proven: bool
    written: tuple[bytes, ...]


class _Meter:
    """Adds up what all threads have read, and makes them stop when one of them failed."""

    def __init__(self, done_bytes: int, total_bytes: int, tell: Callable[[Notice], None]) -> None:
        self._done_bytes = done_bytes
        self._total_bytes = total_bytes
        self._tell = tell
        self._told_s = 0.0
        self._lock = threading.Lock()
        self.stopped = False

    def advanced(self, count: int) -> None:
        with self._lock:
            self._done_bytes += count
            now_s = time.monotonic()
            due = now_s - self._told_s >= REPORT_INTERVAL_S
            if due:
                self._told_s = now_s
            # What had to be begun anew was counted twice.
            notice = Advanced(min(self._done_bytes, self._total_bytes), self._total_bytes)
        if self.stopped:
            raise InputChangedError("another layer of the kit could not be built")
        if due:
            self._tell(notice)

    def expect(self, count: int) -> None:
        """Count on more bytes than the files have: some are read twice."""
        with self._lock:
            self._total_bytes += count


@dataclass(frozen=True, slots=True)
class Destination:
    """Where layers go: into a store, and what is too large for it through pipes, if it may."""

    store: BlobStore
    streams: Streams | None = None

    @property
    def repository(self) -> str | None:
        """Where the pipes lead."""
        return None if self.streams is None else self.streams.repository

    def is_not_for(self, size: int) -> bool:
        """Whether a layer of so many bytes leaves through a pipe, however much room there is."""
        over_bytes = None if self.streams is None else self.streams.over_bytes
        return over_bytes is not None and size > over_bytes


def build_layers(
    root: int,
    recipe: Recipe,
    inputs: Inputs,
    destination: Destination,
    *,
    known: Mapping[str, PackedLayer],
    leases: Leases,
    is_finished: bool,
    tell: Callable[[Notice], None],
) -> BuiltLayers:
    """Return all layers in their order; those whose key is not known are built, and told of.

    Unless the project `is_finished`, nothing of it is proven: what is known is never judged again.
    Raises `InputError`, `InputChangedError`, `StoreError`, `PipeClosedError`; layers that are done
    stay in the store.
    """
    sizes = [sum(entry.size for entry in layer) for layer in inputs.layers]
    layers: list[PackedLayer | None] = [known.get(key) for key in inputs.keys]
    missing = [index for index, layer in enumerate(layers) if layer is None]
    unproven: list[int] = []
    written: set[bytes] = set()
    done_bytes = sum(sizes) - sum(sizes[index] for index in missing)
    meter = _Meter(done_bytes, sum(sizes), tell)
    threads = block_threads()
    compress = compressing(recipe.compression, threads)

    def store(index: int) -> BuiltLayer:
        return build_layer(
            root,
            recipe.plans[index],
            inputs.layers[index],
            destination.store,
            compress=compress,
            advanced=meter.advanced,
            leases=leases,
            may_leave=destination.streams is not None,
        )

    def stream(index: int, streams: Streams) -> tuple[BuiltLayer, str]:
        write = partial(
            write_layer,
            root,
            recipe.plans[index],
            inputs.layers[index],
            compress=compress,
            advanced=meter.advanced,
            leases=leases,
        )
        first = None
        if streams.digest_first:
            meter.expect(sizes[index])
            with hashed() as outlet:
                first = write(outlet).blob
        with new_pipe(destination.store) as path:
            tell(
                Streaming(
                    key=inputs.keys[index],
                    pipe=str(path),
                    digest=None if first is None else first.digest,
                    size=None if first is None else first.size,
                    least_size=sizes[index] if recipe.compression == "none" else 0,
                )
            )
            with piped(path) as outlet:
                built = write(outlet)
        if first not in (None, built.blob):
            raise InputChangedError(
                f"{printable(recipe.plans[index].path)} changed between two looks at it"
            )
        return built, str(path)

    def make(index: int) -> tuple[BuiltLayer, str | None]:
        """Return a layer, and the pipe that it left through if it is not in the store."""
        streams = destination.streams
        if streams is None or not destination.is_not_for(sizes[index]):
            try:
                return store(index), None
            except NoSpaceError:
                if streams is None:
                    raise
        return stream(index, streams)

    def build(index: int) -> None:
        built, pipe = make(index)
        repository = destination.repository if pipe is not None else None
        layers[index] = layer = _packed_layer(recipe.plans[index], built, repository)
        written.update(built.writers.paths)
        proven = is_finished and _is_proven(inputs.layers[index], built, inputs.looked_ns)
        if not proven:
            unproven.append(index)
        tell(Built(inputs.keys[index] if proven else None, layer, pipe))

    missing.sort(key=lambda index: -sizes[index])
    with threads:
        _run_all(build, missing, meter)
    return BuiltLayers(
        tuple(layer for layer in layers if layer is not None),
        proven=not unproven,
        written=tuple(sorted(written)),
    )


def _run_all(build: Callable[[int], None], indexes: Sequence[int], meter: _Meter) -> None:
    """Run all of them, and raise what one that failed did; the others stop then."""
    workers = min(MAX_AT_ONCE, cores(), len(indexes))
    if workers <= 1:
        for index in indexes:
            build(index)
        return
    with ThreadPoolExecutor(workers) as pool:
        futures: list[Future[None]] = [pool.submit(build, index) for index in indexes]
        wait(futures, return_when=FIRST_EXCEPTION)
        ended = (future for future in futures if future.done())
        errors = [error for future in ended if (error := future.exception()) is not None]
        if errors:
            meter.stopped = True
            pool.shutdown(wait=True, cancel_futures=True)
            raise errors[0]


def _is_proven(entries: Sequence[Entry], built: BuiltLayer, looked_ns: int) -> bool:
    """Whether any later change of the layer's files shows in their times."""
    if built.writers.paths:
        return False
    files = [entry.ctime_ns for entry in entries if not entry.is_dir]
    if not built.writers.is_known and max(files, default=0) > looked_ns - YOUNG_NS:
        return False
    return max(map(racy_until, files), default=0) <= looked_ns


def _packed_layer(plan: LayerPlan, built: BuiltLayer, repository: str | None) -> PackedLayer:
    return PackedLayer(
        media_type=str(plan.type),
        digest=built.blob.digest,
        size=built.blob.size,
        diff_id=built.diff_id,
        annotations=built.annotations,
        reused=built.blob.reused,
        repository=repository,
    )
