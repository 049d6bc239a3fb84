"""Copying a graph of content: children before parents, each blob once, the root last."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import repeat

from kitd.content.store import ByteStream, ContentError, Fetcher, Target
from kitd.content.stream import Counted
from kitd.content.together import all_of
from kitd.content.verify import read_manifest
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.media_type import INDEXES, is_manifest, is_nondistributable

MAX_DEPTH = 8
"""Indexes inside indexes; nobody publishes more than two levels."""
MAX_NODES = 100_000
"""Blobs and manifests of one graph; a bound for hostile indexes."""
SMALL_BYTES = 1 << 20
"""A blob up to this size costs its round trips, and hardly anything for its bytes."""
SMALL_FOR_LARGE = 4
"""How many small blobs travel in the place of a large one, so that round trips overlap."""


class GraphTooLargeError(ContentError):
    """Indexes list each other deeper, or more content, than kitd follows."""

    code = "graph_too_large"

    def __init__(self, root: Digest) -> None:
        super().__init__(
            f"the graph of {root} is too deep or too large to follow",
            hint="a kit of it can be had by its own digest",
        )


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy moved: bytes that travelled, bytes that were there already."""

    sent_bytes: int
    skipped_bytes: int
    manifests: tuple[Descriptor, ...]
    """All that is there now, children before parents."""


class _Metered:
    """A source that tells how far each blob has been read."""

    def __init__(self, source: Fetcher, moved: Callable[[Descriptor, int], None]) -> None:
        self._source = source
        self._moved = moved
        self.exists = source.exists

    @asynccontextmanager
    async def fetch(self, target: Descriptor, *, offset: int = 0) -> AsyncIterator[ByteStream]:
        position = offset

        def passed(count: int) -> None:
            nonlocal position
            position += count
            self._moved(target, position)

        async with self._source.fetch(target, offset=offset) as stream:
            yield Counted(stream, passed)


async def walk(source: Fetcher, root: Descriptor) -> tuple[Descriptor, ...]:
    """Return every node of the graph once, children before parents; the root is the last.

    Reads manifests only. Layers whose license keeps them from registries are not part of it (OCI
    image spec, layer.md). Raises `GraphTooLargeError` for a graph beyond the bounds.
    """
    # A hostile index may name one digest both as a blob and as a manifest: two nodes, because only
    # the second has children.
    ordered: dict[tuple[str, bool], Descriptor] = {}

    async def visit(node: Descriptor, depth: int) -> None:
        key = (node.digest, is_manifest(node.media_type))
        if key in ordered or is_nondistributable(node.media_type):
            return
        if depth > MAX_DEPTH or len(ordered) >= MAX_NODES:
            raise GraphTooLargeError(root.digest)
        if is_manifest(node.media_type):
            for child in (await read_manifest(source, node)).children:
                await visit(child, depth + 1)
        ordered[key] = node

    await visit(root, 0)
    return tuple(ordered.values())


async def manifests_of(source: Fetcher, root: Descriptor) -> tuple[Descriptor, ...]:
    """Return every manifest of the graph once, children before parents; the root is the last.

    Reads indexes only. Raises `GraphTooLargeError` for a graph beyond the bounds.
    """
    ordered: dict[Digest, Descriptor] = {}

    async def visit(node: Descriptor, depth: int) -> None:
        if node.digest in ordered or is_nondistributable(node.media_type):
            return
        if depth > MAX_DEPTH or len(ordered) >= MAX_NODES:
            raise GraphTooLargeError(root.digest)
        if node.media_type in INDEXES:
            for child in (await read_manifest(source, node)).children:
                if is_manifest(child.media_type):
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
    publish: Callable[[Descriptor], Awaitable[int]] | None = None,
) -> CopyReport:
    """Make `root` and everything below it present in `target`.

    `publish` does that for `root` itself, in the place of `target.push`. At most `concurrency`
    large blobs travel at once, and small ones beside them. `progress(done_bytes, total_bytes)` is
    called with every chunk. Raises what the two stores raise; a copy that raised has published
    neither `root` nor any other manifest whose children are missing.
    """
    nodes = await walk(source, root)
    total = sum(node.size for node in nodes)
    positions: dict[str, int] = {}
    done = sent = 0

    def moved(node: Descriptor, position: int) -> None:
        nonlocal done
        before = positions.get(node.digest)
        if position == before:
            return
        done += position - (before or 0)
        positions[node.digest] = position
        progress(done, total)

    metered = _Metered(source, moved)

    async def push(node: Descriptor) -> None:
        nonlocal sent
        if publish is not None and node is nodes[-1]:
            pushed = await publish(node)
        else:
            pushed = await target.push(node, metered)
        # Not `sent += await ...`, which would read `sent` before the others have added to it.
        sent += pushed
        moved(node, node.size)

    await _push_blobs(
        push, [node for node in nodes if not is_manifest(node.media_type)], concurrency
    )
    manifests = tuple(node for node in nodes if is_manifest(node.media_type))
    # One after another in the order of the walk: a child's parent may be the next.
    for node in manifests:
        await push(node)
    return CopyReport(sent_bytes=sent, skipped_bytes=total - sent, manifests=manifests)


async def _push_blobs(
    push: Callable[[Descriptor], Coroutine[None, None, None]],
    blobs: Iterable[Descriptor],
    concurrency: int,
) -> None:
    """Push all blobs; the first error stops the others and is raised by itself."""
    small: list[Descriptor] = []
    large: list[Descriptor] = []
    for blob in blobs:
        (small if blob.size <= SMALL_BYTES else large).append(blob)
    # The largest first: one that began last would travel alone.
    large.sort(key=lambda blob: blob.size, reverse=True)

    async def push_from(waiting: Iterator[Descriptor]) -> None:
        for blob in waiting:
            await push(blob)

    queues = ((large, concurrency), (small, concurrency * SMALL_FOR_LARGE))
    await all_of(
        push_from(waiting)
        for queue, at_once in queues
        for waiting in repeat(iter(queue), min(at_once, len(queue)))
    )
