"""Copying a graph of content: children before parents, each blob once, the root last."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass

from kitd.content.store import ContentError, Fetcher, Target
from kitd.content.verify import read
from kitd.oci.descriptor import Descriptor
from kitd.oci.manifest import MAX_MANIFEST_BYTES, parse_manifest
from kitd.oci.media_type import is_manifest

MAX_DEPTH = 8
"""Indexes inside indexes; nobody publishes more than two levels."""
MAX_NODES = 100_000
"""Blobs and manifests of one graph; a bound for hostile indexes."""


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy moved: bytes that travelled, bytes that were there already."""

    sent_bytes: int
    skipped_bytes: int


async def walk(source: Fetcher, root: Descriptor) -> tuple[Descriptor, ...]:
    """Return every node of the graph once, children before parents; the root is the last.

    Reads manifests only. Raises `ContentError` for a graph beyond the bounds.
    """
    ordered: dict[str, Descriptor] = {}

    async def visit(node: Descriptor, depth: int) -> None:
        if node.digest in ordered:
            return
        if depth > MAX_DEPTH or len(ordered) >= MAX_NODES:
            raise ContentError(f"the graph of {root.digest} is too deep or too large to follow")
        if is_manifest(node.media_type):
            content = await read(source, node, max_bytes=MAX_MANIFEST_BYTES)
            for child in parse_manifest(content, node.media_type).children:
                await visit(child, depth + 1)
        ordered[node.digest] = node

    await visit(root, 0)
    return tuple(ordered.values())


async def copy_graph(
    source: Fetcher,
    target: Target,
    root: Descriptor,
    *,
    concurrency: int,
    progress: Callable[[int, int], None],
) -> CopyReport:
    """Make `root` and everything below it present in `target`.

    `progress(done_bytes, total_bytes)` is called after every blob. Raises what the two stores
    raise; a copy that raised has published neither `root` nor any other manifest whose children
    are missing.
    """
    nodes = await walk(source, root)
    blobs = [node for node in nodes if not is_manifest(node.media_type)]
    manifests = [node for node in nodes if is_manifest(node.media_type)]
    total = sum(node.size for node in nodes)
    done = sent = 0
    slots = asyncio.Semaphore(concurrency)

    async def push(node: Descriptor) -> None:
        nonlocal done, sent
        async with slots:
            moved = await target.push(node, source)
        # Not `sent += await ...`, which would read `sent` before the others have added to it.
        sent += moved
        done += node.size
        progress(done, total)

    await _all(push, blobs)
    # Manifests one after another in the order of the walk: a child's parent may be the next.
    for node in manifests:
        await push(node)
    return CopyReport(sent_bytes=sent, skipped_bytes=total - sent)


async def _all(
    push: Callable[[Descriptor], Coroutine[None, None, None]], nodes: Iterable[Descriptor]
) -> None:
    """Push all nodes; the first error stops the others and is raised by itself."""
    try:
        async with asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(push(node))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
