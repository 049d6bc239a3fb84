"""Packing with a memory: workers do what was not done before, the ledger says what was.

Layers are remembered one by one as they are built, so that a pack that does not come to its end has
not worked for nothing; a project's last pack is remembered whole, with the glance that tells
whether anything changed since. What is remembered counts only as long as the cache holds it, or the
registry that it was sent to without a copy here.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import msgspec

from kitd import __version__
from kitd.blocking import run_blocking
from kitd.content.store import CollectedError
from kitd.daemon.author_reach import AuthorReach
from kitd.daemon.layer_relay import LayerRelay, LayerRelays
from kitd.daemon.parent_finder import KEPT_S, ParentFinder, UnaskedError
from kitd.errors import KitdError
from kitd.jobs.port import Keep
from kitd.ledger.pack_memory import PackMemory
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.reference import Repository, parse_repository
from kitd.packing.order import (
    ANYBODY,
    Advanced,
    Built,
    Failed,
    Known,
    Notice,
    Opened,
    Packed,
    PackedLayer,
    Parents,
    Planned,
    Project,
    Referred,
    Reply,
    Scanned,
    ScanOrder,
    Streaming,
    Streams,
    Unchanged,
    Watched,
    WatchedPart,
    WorkerError,
    failed,
)
from kitd.packing.pool import WorkerPool
from kitd.store.blob_store import BlobStore

MAX_ASIDES = 3
"""How often a scan ends for what its Kitfile refers to: after that somebody keeps changing it."""
ASK_AT_ONCE = 4
"""Layers that registries are asked for at once."""

_Place = tuple[str, str]
"""Repository and digest of a layer that is not here."""


def _pack_key(project: Project) -> str:
    return hashlib.sha256(msgspec.json.encode(project)).hexdigest()


def _of_this_version(key: str) -> str:
    """Return the key in the memory: another version may build another layer from the same files."""
    return f"{__version__}:{key}"


class Packer:
    """Scans and packs projects. Implements `kitd.jobs.port.Packer`."""

    def __init__(
        self,
        pool: WorkerPool,
        memory: PackMemory,
        store: BlobStore,
        relays: LayerRelays,
        parents: ParentFinder,
        author_reach: AuthorReach,
    ) -> None:
        self._pool = pool
        self._parents = parents
        self._author_reach = author_reach
        self._memory = memory
        self._store = store
        self._relays = relays
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
        answers: dict[Referred, Parents | Failed] = {}
        aside: Referred | None = None

        async def hear(notice: Notice) -> Reply | None:
            nonlocal aside
            match notice:
                case Referred():
                    if notice in answers:
                        return answers[notice]
                    try:
                        return await self.parents(notice, project, asks=False)
                    except UnaskedError as error:
                        # A registry may take its time, and others wait for the turn to scan.
                        aside = notice
                        return failed(error)
                case Opened():
                    opened(notice)
                case WatchedPart() | Watched() if watched is not None and aside is None:
                    watched(notice)
                    # Several may have come at once, and others have a turn in between.
                    await asyncio.sleep(0)
                case Planned(keys):
                    return Known(await self.known_layers(keys))
            return None

        order = ScanOrder(
            project=project,
            patience_s=patience_s,
            watch=watched is not None,
            known=None if known is None else known.glance,
        )
        answer: Scanned | Unchanged | None = None
        while answer is None:
            try:
                answer = await self._pool.scan(order, hear, scanning)
            except WorkerError:
                if aside is None or len(answers) == MAX_ASIDES:
                    raise
                answers[aside] = await self.parents(aside, project)
                aside = None
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
        destination: Repository | None,
        advanced: Callable[[Advanced], None],
        built: Callable[[PackedLayer], None],
        keep: Keep,
    ) -> Packed:
        """Build a project's layers and config in the cache, or find that they are there.

        Layers that are too large for the cache go to the `destination` instead, if there is one.
        `built` is told each layer as soon as it is in the cache, where all of them are kept.
        Raises `KitdError`, among them `input_changed` where the project is not in the `expected`
        state, and `CollectedError` where a worker met a blob in the moment in which it went.
        """
        key = _pack_key(project)
        away = _Away(self._relays, destination)
        last = await self._last_pack(key, keep, away)
        known = None
        # Where another state is expected, a look at whether this one is still there says nothing.
        if last is not None and expected in (None, last.fingerprint):
            known = last.glance
        attempt = _Attempt(self, project, keep, away, advanced, built)
        remote = None if destination is None else await self._relays.open(destination)
        sent_bytes = 0
        if remote is None:
            answer = await self._pool.pack(project, attempt.hear, known=known, expected=expected)
        else:
            streams = Streams(
                repository=str(remote.repository),
                over_bytes=self._relays.over_bytes,
                digest_first=not await remote.takes_streams(),
            )
            async with self._relays.relaying(remote, attempt.arrived) as relay:
                attempt.relay = relay
                answer = await self._pool.pack(
                    project,
                    attempt.hear,
                    known=known,
                    expected=expected,
                    streams=streams,
                    is_kept_waiting=relay.keeps_waiting,
                )
            sent_bytes = relay.sent_bytes
        if isinstance(answer, Unchanged):
            assert last is not None
            return msgspec.structs.replace(last, git_commit=answer.git_commit)
        await _require_kept(keep, _blobs(answer))
        if answer.glance is not None:
            reused = tuple(msgspec.structs.replace(each, reused=True) for each in answer.layers)
            remembered = msgspec.structs.replace(answer, layers=reused)
            await self.remember(key, remembered)
        return msgspec.structs.replace(answer, sent_bytes=sent_bytes)

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

    async def _last_pack(self, key: str, keep: Keep, away: "_Away") -> Packed | None:
        """Return a project's last pack if all of it is still there, and what is here will be."""
        packed = await self._recall_pack(key)
        if packed is None or not await keep(_blobs(packed)):
            return None
        gone = [layer for layer in packed.layers if layer.repository is not None]
        found = await away.found(gone)
        return packed if all(_place(layer) in found for layer in gone) else None

    async def _recall_pack(self, key: str) -> Packed | None:
        remembered = (await self._recall([key])).get(key)
        return None if remembered is None else msgspec.json.decode(remembered, type=Packed)

    async def _recall(self, keys: Iterable[str]) -> Mapping[str, bytes]:
        names = {_of_this_version(key): key for key in keys}
        return {names[n]: value for n, value in (await self._memory.recall(names)).items()}

    async def remember(self, key: str, thing: Packed | PackedLayer) -> None:
        """Remember what was made of all that the key stands for."""
        await self._memory.remember(_of_this_version(key), msgspec.json.encode(thing))

    async def parents(
        self,
        asked: Referred,
        project: Project,
        *,
        max_age_s: float = KEPT_S,
        asks: bool = True,
    ) -> Parents | Failed:
        """Return the kit that a project refers to, and all that it builds on, or why not.

        `max_age_s` and `asks` as in `ParentFinder.find`; it is his who wrote the Kitfile, and his
        for whom it is read. Raises `UnaskedError`.
        """
        authors = (ANYBODY,) if project.is_guest else asked.authors
        try:
            may_ask = await self._author_reach.of(authors, project.reader)
            kits = await self._parents.find(
                asked.reference, may_ask=may_ask, max_age_s=max_age_s, asks=asks
            )
            return Parents(kits)
        except UnaskedError:
            raise
        except KitdError as error:
            return failed(error)

    async def known_layers(
        self, keys: tuple[str, ...], keep: Keep | None = None, away: "_Away | None" = None
    ) -> Mapping[str, PackedLayer]:
        """Return the layers of these keys that need not be built.

        The cache holds them, and keeps them if asked to; or a registry does, which is asked if
        there is somebody to ask it.
        """
        remembered = {
            key: msgspec.json.decode(value, type=PackedLayer)
            for key, value in (await self._recall(keys)).items()
        }
        if keep is not None:
            await keep([_blob(layer) for layer in remembered.values()])
        here = await run_blocking(
            lambda: {
                key
                for key, layer in remembered.items()
                if self._store.size_of(Digest(layer.digest)) == layer.size
            }
        )
        known = {
            key: msgspec.structs.replace(layer, reused=True, repository=None, arrived=True)
            for key, layer in remembered.items()
            if key in here
        }
        gone = {
            key: layer
            for key, layer in remembered.items()
            if key not in here and layer.repository is not None
        }
        if away is None:
            found = {_place(layer) for layer in gone.values() if layer.arrived}
        else:
            found = await away.found(gone.values())
        for key, layer in gone.items():
            if _place(layer) in found:
                known[key] = msgspec.structs.replace(layer, reused=True, arrived=True)
        return known


class _Away:
    """The layers that are in a registry and not here: each is asked for once in an attempt."""

    def __init__(self, relays: LayerRelays, destination: Repository | None) -> None:
        self._relays = relays
        self._destination = destination
        self._answers: dict[_Place, bool] = {}
        self._turns = asyncio.Semaphore(ASK_AT_ONCE)

    async def found(self, layers: Iterable[PackedLayer]) -> set[_Place]:
        """Return the places of those that need not be here, because they are where they were sent.

        What is to stay on this machine has to be here. One that cannot be asked for is believed in
        only where the kit goes, whose push will see, and only if it did arrive.
        """
        if self._destination is None:
            return set()
        places = {_place(layer): layer for layer in layers}
        async with asyncio.TaskGroup() as group:
            for place in places.keys() - self._answers.keys():
                group.create_task(self._ask(place, places[place]))
        return {place for place in places if self._answers[place]}

    async def _ask(self, place: _Place, layer: PackedLayer) -> None:
        repository = parse_repository(place[0])
        target = Descriptor(layer.media_type, Digest(layer.digest), layer.size)
        believed = layer.arrived and repository == self._destination
        async with self._turns:
            self._answers[place] = await self._relays.holds(repository, target, believed=believed)


def _place(layer: PackedLayer) -> _Place:
    return layer.repository or "", layer.digest


class _Attempt:
    """What is heard of one pack."""

    def __init__(
        self,
        packer: Packer,
        project: Project,
        keep: Keep,
        away: _Away,
        advanced: Callable[[Advanced], None],
        built: Callable[[PackedLayer], None],
    ) -> None:
        self._packer = packer
        self._project = project
        self._keep = keep
        self._away = away
        self._began_s = time.monotonic()
        self._advanced = advanced
        self._built = built
        self.relay: LayerRelay | None = None

    async def hear(self, notice: Notice) -> Reply | None:
        """Take note of what a worker says, and answer it."""
        match notice:
            case Referred():
                # A tag means what it names now, and for the whole of this pack.
                age_s = time.monotonic() - self._began_s
                return await self._packer.parents(notice, self._project, max_age_s=age_s)
            case Advanced():
                self._advanced(notice)
            case Streaming() if self.relay is not None:
                self.relay.begin(notice)
            case Built(key, layer, pipe) if pipe is not None and self.relay is not None:
                # It may arrive without anybody hearing of it: then a later attempt asks.
                if key is not None:
                    sent = msgspec.structs.replace(layer, arrived=False)
                    await self._packer.remember(key, sent)
                self.relay.finish(pipe, notice)
            case Built(_, layer):
                await _require_kept(self._keep, [_blob(layer)])
                await self.arrived(notice)
                self._built(layer)
            case Planned(keys):
                return Known(await self._packer.known_layers(keys, self._keep, self._away))
        return None

    async def arrived(self, notice: Built) -> None:
        """Remember a layer that is where it was to go."""
        if notice.key is not None:
            await self._packer.remember(notice.key, notice.layer)


def _blob(layer: PackedLayer) -> tuple[Digest, int]:
    return Digest(layer.digest), layer.size


def _blobs(packed: Packed) -> Sequence[tuple[Digest, int]]:
    """Return what of a kit the cache holds."""
    config = Digest(packed.config_digest), packed.config_size
    return (*(_blob(layer) for layer in packed.layers if layer.repository is None), config)


async def _require_kept(keep: Keep, blobs: Sequence[tuple[Digest, int]]) -> None:
    """Keep what a worker says is in the cache. Raises `CollectedError`."""
    if not await keep(blobs):
        raise CollectedError("a collection took a blob just before it was needed again")
