"""A planned unpack, from the daemon to a directory of the caller's."""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

from kitd.client import request
from kitd.client.client import Client
from kitd.client.connection import MAX_DESCRIPTORS, close_all
from kitd.client.error import RpcError
from kitd.client.extract import Extraction, OpenLayer, extract
from kitd.client.outcome import Unpacked
from kitd.client.placement import Existing
from kitd.client.record import Layer, Progress, UnpackPlan
from kitd.client.reference import has_registry
from kitd.client.show import Watch, watching


def unpack_kit(
    client: Client,
    reference: str,
    directory: str | os.PathLike[str],
    filters: Sequence[str],
    *,
    existing: str,
    progress: Watch,
) -> Unpacked:
    """Unpack a kit, which is pulled first where the cache does not know it: `Client.unpack`."""
    choice, asked = Existing(existing), request.plan_unpack(reference, filters)
    try:
        plan = client.call(asked)
    except RpcError as error:
        # Without a registry there is nowhere to pull it from.
        if error.code != "not_found" or not has_registry(reference):
            raise
        client.pull(reference, filters, progress=progress)
        plan = client.call(asked)
    target = Path(os.path.abspath(directory))
    total, done = sum(layer.size for layer in plan.layers), 0
    with watching(progress) as watch:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            watch(Progress("unpacking", done, total))

        extraction = unpack(client, plan, target, existing=choice, progress=advance)
    return Unpacked(plan.digest, plan.reference, str(target), extraction.files, extraction.bytes)


def unpack(
    client: Client,
    plan: UnpackPlan,
    target: Path,
    *,
    existing: Existing = Existing.REFUSE,
    progress: Callable[[int], None],
) -> Extraction:
    """Unpack what `kitd.client.request.plan_unpack` answered.

    The daemon opens the layers, this process writes the files. Raises what `Client.call` and
    `kitd.client.extract.extract` raise; whatever it raises, the target is as it was.
    """
    layers = _open_layers(client, plan)
    try:
        return extract(target, layers, kitfile=plan.kitfile, existing=existing, progress=progress)
    finally:
        layers.close()


def _open_layers(client: Client, plan: UnpackPlan) -> Generator[OpenLayer]:
    for batch in _batches(plan.layers):
        handles = client.open_layers(plan.digest, [layer.digest for layer in batch])
        try:
            for layer in batch:
                yield OpenLayer(layer, handles[0])
                os.close(handles.pop(0))
        finally:
            close_all(handles)


def _batches(layers: Sequence[Layer]) -> Iterator[Sequence[Layer]]:
    """Yield layers in order, to be opened together; what kitd fetches comes when it is read."""
    batch: list[Layer] = []
    for layer in layers:
        if batch and (layer.elsewhere or batch[-1].elsewhere or len(batch) == MAX_DESCRIPTORS):
            yield batch
            batch = []
        batch.append(layer)
    if batch:
        yield batch
