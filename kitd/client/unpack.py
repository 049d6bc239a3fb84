"""A planned unpack, from the daemon's cache to a directory of the caller's."""

import os
from collections.abc import Callable, Generator
from pathlib import Path

from kitd.client.client import Client
from kitd.client.connection import MAX_DESCRIPTORS, close_all
from kitd.client.extract import Extraction, OpenLayer, extract
from kitd.client.placement import Existing
from kitd.client.record import UnpackPlan


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
    for start in range(0, len(plan.layers), MAX_DESCRIPTORS):
        batch = plan.layers[start : start + MAX_DESCRIPTORS]
        handles = client.open_layers(plan.digest, [layer.digest for layer in batch])
        try:
            for layer in batch:
                yield OpenLayer(layer, handles[0])
                os.close(handles.pop(0))
        finally:
            close_all(handles)
