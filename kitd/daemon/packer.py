"""Packing with a memory: workers do what was not done before, the ledger says what was.

Layers are remembered one by one as they are built, so that a pack that does not come to its end has
not worked for nothing; a project's last pack is remembered whole, with the glance that tells
whether anything changed since. What is remembered counts only as long as the cache holds it.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import msgspec

from kitd import __version__
from kitd.blocking import run_blocking
from kitd.content.store import CollectedError
from kitd.jobs.port import Keep
from kitd.ledger.pack_memory import PackMemory
from kitd.oci.digest import Digest
from kitd.packing.order import (
    Advanced,
    Built,
    Known,
    Notice,
    Opened,
    Packed,
    PackedLayer,
    Planned,
    Project,
    Scanned,
    ScanOrder,
    Unchanged,
    Watched,
    WatchedPart,
)
from kitd.packing.pool import WorkerPool
from kitd.store.blob_store import BlobStore


def _pack_key(project: Project) -> str:
    return hashlib.sha256(msgspec.json.encode(project)).hexdigest()


def _of_this_version(key: str) -> str:
    """Return the key in the memory: another version may build another layer from the same files."""
    return f"{__version__}:{key}"


class Packer:
    """Scans and packs projects. Implements `kitd.jobs.port.Packer`."""

    def __init__(self, pool: WorkerPool, memory: PackMemory, store: BlobStore) -> None:
        self._pool = pool
        self._memory = memory
        self._store = store
        # The last scan of each project that nothing held back. Gone with the process: the first
        # scan of a life looks at every file, or finds the tree as it was packed.
        self._scans: dict[Project, Scanned] = {}

    async def scan(
        self,
        project: Project,
        *,
        patience_s: float,
        opened: Callable[[Opened], None],
        scanning: Callable[[], AbstractContextManager[None]] = nullcontext,
        watched: Callable[[Watched | WatchedPart], None] | None = None,
    ) -> Scanned:
        """Return the state of a project's inputs. Raises `KitdError`.

        It runs within `scanning`, once its turn has come, and tells the directory that it `opened`
        first of all. With `watched` it places watches, and tells them even where it fails.
        """
        known = self._scans.pop(project, None) or await self._last_state(project)

        async def hear(notice: Notice) -> Known | None:
            match notice:
                case Opened():
                    opened(notice)
                case WatchedPart() | Watched() if watched is not None:
                    watched(notice)
                    # Several may have come at once, and others have a turn in between.
                    await asyncio.sleep(0)
                case Planned(keys):
                    return Known(await self._known_layers(keys))
            return None

        order = ScanOrder(
            project=project,
            patience_s=patience_s,
            watch=watched is not None,
            known=None if known is None else known.glance,
        )
        answer = await self._pool.scan(order, hear, scanning)
        if isinstance(answer, Unchanged):
            assert known is not None
            answer = msgspec.structs.replace(known, holds=answer.holds, warnings=answer.warnings)
        if not answer.holds:
            self._scans[project] = answer
        return answer

    def forget(self, project: Project) -> None:
        """Forget the last scan of a project that is not watched any more."""
        self._scans.pop(project, None)

    async def pack(
        self,
        project: Project,
        *,
        expected: str | None,
        advanced: Callable[[Advanced], None],
        built: Callable[[PackedLayer], None],
        keep: Keep,
    ) -> Packed:
        """Build a project's layers and config in the cache, or find that they are there.

        `built` is told each layer as soon as it is in the cache, where all of them are kept.
        Raises `KitdError`, among them `input_changed` where the project is not in the `expected`
        state, and `CollectedError` where a worker met a blob in the moment in which it went.
        """
        key = _pack_key(project)
        last = await self._last_pack(key, keep)

        async def hear(notice: Notice) -> Known | None:
            match notice:
                case Advanced():
                    advanced(notice)
                case Built(layer_key, layer):
                    await _require_kept(keep, [_blob(layer)])
                    if layer_key is not None:
                        await self._remember(layer_key, layer)
                    built(layer)
                case Planned(keys):
                    return Known(await self._known_layers(keys, keep))
            return None

        known = None
        # Where another state is expected, a look at whether this one is still there says nothing.
        if last is not None and expected in (None, last.fingerprint):
            known = last.glance
        answer = await self._pool.pack(project, hear, known=known, expected=expected)
        if isinstance(answer, Unchanged):
            assert last is not None
            return msgspec.structs.replace(last, git_commit=answer.git_commit)
        await _require_kept(keep, _blobs(answer))
        if answer.glance is not None:
            reused = tuple(msgspec.structs.replace(each, reused=True) for each in answer.layers)
            remembered = msgspec.structs.replace(answer, layers=reused)
            await self._remember(key, remembered)
        return answer

    async def _last_state(self, project: Project) -> Scanned | None:
        """Return what a scan would find if nothing changed since the last pack."""
        packed = await self._recall_pack(_pack_key(project))
        if packed is None:
            return None
        return Scanned(
            fingerprint=packed.fingerprint,
            glance=packed.glance,
            is_racy=False,
            holds=(),
            warnings=(),
        )

    async def _last_pack(self, key: str, keep: Keep) -> Packed | None:
        """Return a project's last pack if the cache still holds all of it, and will."""
        packed = await self._recall_pack(key)
        return packed if packed is not None and await keep(_blobs(packed)) else None

    async def _recall_pack(self, key: str) -> Packed | None:
        remembered = (await self._recall([key])).get(key)
        return None if remembered is None else msgspec.json.decode(remembered, type=Packed)

    async def _recall(self, keys: Iterable[str]) -> Mapping[str, bytes]:
        names = {_of_this_version(key): key for key in keys}
        return {names[n]: value for n, value in (await self._memory.recall(names)).items()}

    async def _remember(self, key: str, thing: Packed | PackedLayer) -> None:
        await self._memory.remember(_of_this_version(key), msgspec.json.encode(thing))

    async def _known_layers(
        self, keys: tuple[str, ...], keep: Keep | None = None
    ) -> Mapping[str, PackedLayer]:
        """Return the layers of these keys that the cache holds, and keeps if asked to."""
        remembered = {
            key: msgspec.json.decode(value, type=PackedLayer)
            for key, value in (await self._recall(keys)).items()
        }
        if keep is not None:
            await keep([_blob(layer) for layer in remembered.values()])
        return await run_blocking(
            lambda: {
                key: msgspec.structs.replace(layer, reused=True)
                for key, layer in remembered.items()
                if self._store.size_of(Digest(layer.digest)) == layer.size
            }
        )


def _blob(layer: PackedLayer) -> tuple[Digest, int]:
    return Digest(layer.digest), layer.size


def _blobs(packed: Packed) -> Sequence[tuple[Digest, int]]:
    config = Digest(packed.config_digest), packed.config_size
    return (*map(_blob, packed.layers), config)


async def _require_kept(keep: Keep, blobs: Sequence[tuple[Digest, int]]) -> None:
    """Keep what a worker says is in the cache. Raises `CollectedError`."""
    if not await keep(blobs):
        raise CollectedError("a collection took a blob just before it was needed again")
