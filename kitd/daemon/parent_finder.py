"""The kits that a project's kit builds on, for the workers that pack it."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import ClassVar

import structlog

from kitd.blocking import run_blocking
from kitd.content.store import CHUNK_BYTES, ByteStream, ContentNotFoundError, Fetcher
from kitd.content.verify import read
from kitd.errors import Disposition, KitdError
from kitd.jobs.parents import Parent, fetch_kit, follow
from kitd.jobs.port import Catalog, Remote
from kitd.modelkit.chain import Trail
from kitd.modelkit.config_blob import MAX_CONFIG_BYTES, encode_config
from kitd.modelkit.errors import UnsupportedKitError
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.reference import Reference, Repository, parse_reference
from kitd.packing.order import ParentKit

log = structlog.get_logger(__name__)

ASK_S = 15.0
"""How long a registry has to say what one parent is."""
ASK_AT_ONCE = 8
KEPT_S = 300.0
"""For how long a registry is not asked for a parent again: each look at a project would."""
KEPT_FAILURE_S = 60.0
"""The same where it had no good answer."""
MAX_KEPT = 1000
MAX_KEPT_BYTES = 32 << 20
"""Of manifests and configs, in memory; the largest parent has half of that."""


class UnaskedError(KitdError):
    """A registry has to be asked for a parent, and who looks for it does not wait."""

    code = "parent_unknown"
    disposition: ClassVar[Disposition] = Disposition.SNOOZE


class ParentUnavailableError(KitdError):
    """A kit that another builds on could not be had from its registry."""

    code = "parent_unavailable"

    def __init__(self, parent: Reference, refusal: "_Refusal") -> None:
        # What a registry says is not for everybody who may see a project's state.
        super().__init__(
            f"{parent}, which model.path leads to, is not in the cache and could not be had from"
            " its registry",
            hint=f"kitctl pull {parent} brings it, or says why not",
        )
        self.disposition = refusal.disposition  # type: ignore[misc]  # that of what went wrong
        self.retry_after_s = refusal.retry_after_s


class _Kept:
    """A kit's manifest and config as they came from a registry. A `Fetcher`."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._contents: dict[Digest, bytes] = {}

    @property
    def size(self) -> int:
        return sum(map(len, self._contents.values()))

    async def exists(self, target: Descriptor) -> bool:
        return target.digest in self._contents

    @asynccontextmanager
    async def fetch(self, target: Descriptor, *, offset: int = 0) -> AsyncIterator[ByteStream]:
        content = self._contents.get(target.digest)
        if content is None:
            content = await read(self._remote, target, max_bytes=target.size)
            self._contents[target.digest] = content
        yield _chunks(content[offset:])


async def _chunks(content: bytes) -> ByteStream:
    for start in range(0, len(content), CHUNK_BYTES):
        yield content[start : start + CHUNK_BYTES]


@dataclass(frozen=True, slots=True)
class _Refusal:
    """What is to be done about a registry that had no good answer."""

    disposition: Disposition = Disposition.RETRY
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a registry said of a parent, and when it was asked."""

    asked_s: float
    said: tuple[_Kept, Descriptor] | _Refusal

    @property
    def size(self) -> int:
        return 0 if isinstance(self.said, _Refusal) else self.said[0].size

    def is_younger(self, now_s: float, max_age_s: float) -> bool:
        if isinstance(self.said, _Refusal):
            max_age_s = min(max_age_s, KEPT_FAILURE_S)
        return now_s - self.asked_s <= max_age_s


class ParentFinder:
    """Finds parents in the cache first, and then in their registries with kitd's own settings.

    What registries say is remembered for `KEPT_S`.
    """

    def __init__(
        self,
        catalog: Catalog,
        cache: Fetcher,
        remote: Callable[[Repository], Awaitable[Remote]],
        *,
        ask_s: float = ASK_S,
    ) -> None:
        self._catalog = catalog
        self._cache = cache
        self._remote = remote
        self._ask_s = ask_s
        self._turns = asyncio.Semaphore(ASK_AT_ONCE)
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._kept_bytes = 0

    async def find(
        self,
        reference: str,
        *,
        may_ask: Callable[[Repository], bool],
        max_age_s: float = KEPT_S,
        asks: bool = True,
    ) -> tuple[ParentKit, ...]:
        """Return a kit and all that it builds on, the nearest first.

        A registry is asked only where the author of all that `may_ask`: he is not to send kitd
        anywhere with rights that are not his. What one said in the last `max_age_s` counts. Raises
        `KitdError`: `ParentUnavailableError`, and `UnaskedError` where nobody `asks` and somebody
        would have to.
        """

        async def find(parent: Reference) -> tuple[Fetcher, Descriptor]:
            try:
                found = await self._catalog.resolve(parent.repository, parent.identifier)
            except ContentNotFoundError as error:
                if parent.repository.is_local:
                    raise ContentNotFoundError(
                        f"{parent}, which model.path leads to, is not in the cache",
                        hint="pack it first; a file with such a name has to be renamed",
                    ) from error
                if not may_ask(parent.repository):
                    raise ContentNotFoundError(
                        f"{parent}, which model.path leads to, is not in the cache",
                        hint=f"kitctl pull {parent}",
                    ) from error
                return await self._away(parent, max_age_s, asks=asks)
            return self._cache, found

        parents = await follow(parse_reference(reference), find, Trail.begin())
        return await run_blocking(_for_worker, parents)

    async def _away(
        self, parent: Reference, max_age_s: float, *, asks: bool
    ) -> tuple[Fetcher, Descriptor]:
        began_s = time.monotonic()
        answer = self._recall(parent, began_s, max_age_s)
        if answer is None and not asks:
            raise UnaskedError(
                f"{parent}, which model.path leads to, changes while its registry is asked for it"
            )
        if answer is None:
            async with self._turns:
                # Another may have asked for the same one meanwhile.
                answer = self._recall(parent, began_s, max_age_s)
                if answer is None:
                    answer = await self._ask(parent)
                    self._keep(parent, answer)
        if isinstance(answer.said, _Refusal):
            raise ParentUnavailableError(parent, answer.said)
        return answer.said

    async def _ask(self, parent: Reference) -> _Answer:
        asked_s = time.monotonic()
        try:
            async with asyncio.timeout(self._ask_s):
                remote = await self._remote(parent.repository)
                kept = _Kept(remote)
                target = await remote.resolve(parent.identifier)
                await fetch_kit(kept, target)
        except KitdError as error:
            log.warning("parent.unavailable", parent=str(parent), code=error.code, error=str(error))
            return _Answer(asked_s, _Refusal(error.disposition, error.retry_after_s))
        except TimeoutError:
            log.warning("parent.unavailable", parent=str(parent), after_s=self._ask_s)
            return _Answer(asked_s, _Refusal())
        return _Answer(asked_s, (kept, target))

    def _recall(self, parent: Reference, now_s: float, max_age_s: float) -> _Answer | None:
        answer = self._answers.get(str(parent))
        return answer if answer and answer.is_younger(now_s, max_age_s) else None

    def _keep(self, parent: Reference, answer: _Answer) -> None:
        name = str(parent)
        if former := self._answers.pop(name, None):
            self._kept_bytes -= former.size
        self._answers[name] = answer
        self._kept_bytes += answer.size
        while len(self._answers) > MAX_KEPT or self._kept_bytes > MAX_KEPT_BYTES:
            _, oldest = self._answers.popitem(last=False)
            self._kept_bytes -= oldest.size


def _for_worker(parents: Sequence[Parent]) -> tuple[ParentKit, ...]:
    kits = tuple(
        ParentKit(str(parent.reference), encode_config(parent.kitfile).decode())
        for parent in parents
    )
    if sum(len(kit.config) for kit in kits) > MAX_CONFIG_BYTES:
        raise UnsupportedKitError(
            f"the Kitfiles of {kits[0].reference} and what it builds on are larger than"
            f" {MAX_CONFIG_BYTES} bytes"
        )
    return kits
