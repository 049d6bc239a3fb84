"""A repository that is read from mirrors first, and from its own registry where they do not help.

Content is asked for by its digest, so it does not matter who sends it. What a name means and what
refers to a manifest is the registry's to say, unless a mirror is configured to be asked for that,
too. Nothing is ever written to a mirror, and what a mirror is told is what its own entry in the
configuration says.
"""

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Container,
    Iterable,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import structlog

from kitd.content.store import CHUNK_BYTES, ByteStream, Chunk, MismatchError
from kitd.content.verify import read
from kitd.errors import Disposition, KitdError
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.reference import Repository
from kitd.registry.credentials import CredentialsError
from kitd.registry.errors import (
    RegistryDeniedError,
    RegistryError,
    RegistryNotFoundError,
)
from kitd.registry.repository import RemoteRepository, Shared
from kitd.registry.transport import Transport

CHECKED_BYTES = 4 * 1024 * 1024
"""Up to this size content of a mirror is compared with its digest before anybody sees it."""
REST_S = 60.0
"""How long a mirror that failed is left alone."""
DOUBT_S = 3600.0
"""How long content is not asked for again where it came from before."""
MAX_DOUBTS = 4096

_TROUBLES = (RegistryError, CredentialsError, MismatchError)
"""What is the matter with a mirror, and not with what was asked."""
_T = TypeVar("_T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MirrorRepository:
    """What a mirror has of a repository; `tags` is whether it is asked what names mean."""

    remote: RemoteRepository
    tags: bool


class MirrorMemory:
    """Which mirrors are left alone for now, and what is not asked of them again.

    Shared by all repositories that are read from the same mirrors.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._resting_until_s: dict[Repository | str, float] = {}
        self._doubted_until_s: dict[tuple[Repository, Digest], float] = {}

    def is_ready(self, repository: Repository) -> bool:
        """Whether a repository of a mirror may be asked."""
        now_s = self._clock()
        return all(
            self._resting_until_s.get(key, now_s) <= now_s
            for key in (repository, repository.registry)
        )

    def rest(self, key: Repository | str, for_s: float) -> None:
        """Leave a repository of a mirror, or by its host the whole mirror, alone for a while."""
        self._resting_until_s[key] = self._clock() + for_s

    def is_doubted(self, repository: Repository, digest: Digest) -> bool:
        """Whether a mirror is not to be asked for this content."""
        return self._doubted_until_s.get((repository, digest), 0.0) > self._clock()

    def doubt(self, repository: Repository, digest: Digest) -> None:
        """Have content from elsewhere if it is wanted again."""
        self._doubted_until_s.pop((repository, digest), None)
        self._doubted_until_s[repository, digest] = self._clock() + DOUBT_S
        if len(self._doubted_until_s) > MAX_DOUBTS:
            del self._doubted_until_s[next(iter(self._doubted_until_s))]


class MirroredRepository(RemoteRepository):
    """A remote repository whose content may come from mirrors, in their order."""

    def __init__(
        self,
        repository: Repository,
        transport: Transport,
        shared: Shared,
        *,
        mount_from: Sequence[str] = (),
        mirrors: Sequence[MirrorRepository],
        mirror_memory: MirrorMemory,
    ) -> None:
        super().__init__(repository, transport, shared, mount_from=mount_from)
        self._mirrors = mirrors
        self._mirror_memory = mirror_memory

    async def resolve(self, identifier: str) -> Descriptor:
        """Return the manifest that a tag or a digest names: see `RemoteRepository.resolve`."""
        by_digest = ":" in identifier
        found = await self._ask(
            (mirror for mirror in self._mirrors if by_digest or mirror.tags),
            lambda remote: remote.resolve(identifier),
        )
        return await super().resolve(identifier) if found is None else found

    async def referrers(
        self, subject: Digest, tags: Container[str] | None = None
    ) -> Sequence[Descriptor]:
        """Return what is listed as referring to a manifest, unchecked."""

        def listed(remote: RemoteRepository) -> Awaitable[Sequence[Descriptor]]:
            return remote.referrers(subject)

        found = await self._ask((mirror for mirror in self._mirrors if mirror.tags), listed)
        if found is not None:
            return found
        try:
            return await super().referrers(subject, tags)
        except RegistryError as error:
            # A kit that mirrors have is not held up by a registry that is down.
            others = (mirror for mirror in self._mirrors if not mirror.tags)
            if error.disposition is not Disposition.RETRY:
                raise
            if (found := await self._ask(others, listed)) is None:
                raise
            return found

    @asynccontextmanager
    async def fetch(self, target: Descriptor, *, offset: int = 0) -> AsyncIterator[ByteStream]:
        """Open a blob or a manifest from `offset`: see `RemoteRepository.fetch`."""
        async with aclosing(self._stream_from_any(target, offset)) as stream:
            # Now, because whoever opens content may know another place, and whoever reads does not.
            first = await anext(stream, None)
            async with aclosing(_after(first, stream)) as whole:
                yield whole

    async def _stream_from_any(
        self, target: Descriptor, offset: int
    ) -> AsyncGenerator[Chunk, None]:
        """Yield the content; whoever breaks off is gone on from by the next."""
        position = offset
        for mirror in self._ready(self._mirrors):
            if self._mirror_memory.is_doubted(mirror.remote.repository, target.digest):
                continue
            try:
                if target.size <= CHECKED_BYTES:
                    content = await read(mirror.remote, target, max_bytes=CHECKED_BYTES)
                    for start in range(offset, target.size, CHUNK_BYTES):
                        yield memoryview(content)[start : start + CHUNK_BYTES]
                    return
                async with mirror.remote.fetch(target, offset=position) as stream:
                    async for chunk in stream:
                        position += len(chunk)
                        yield chunk
            except _TROUBLES as error:
                if isinstance(error, MismatchError):
                    self._mirror_memory.doubt(mirror.remote.repository, target.digest)
                self._pass_over(mirror, error)
            else:
                # Who asks for it once more found that it was something else.
                self._mirror_memory.doubt(mirror.remote.repository, target.digest)
                return
        async with super().fetch(target, offset=position) as stream:
            async for chunk in stream:
                yield chunk

    async def _ask(
        self,
        mirrors: Iterable[MirrorRepository],
        question: Callable[[RemoteRepository], Awaitable[_T]],
    ) -> _T | None:
        """Return the first answer, None where no mirror has one."""
        for mirror in self._ready(mirrors):
            try:
                return await question(mirror.remote)
            except _TROUBLES as error:
                self._pass_over(mirror, error)
        return None

    def _ready(self, mirrors: Iterable[MirrorRepository]) -> Iterable[MirrorRepository]:
        return (m for m in mirrors if self._mirror_memory.is_ready(m.remote.repository))

    def _pass_over(self, mirror: MirrorRepository, error: KitdError) -> None:
        repository = mirror.remote.repository
        if isinstance(error, RegistryNotFoundError):
            return
        log.info(
            "mirror.passed_over",
            mirror=str(repository),
            repository=str(self.repository),
            code=error.code,
            error=error.message,
        )
        if isinstance(error, MismatchError):
            return
        key = repository if isinstance(error, RegistryDeniedError) else repository.registry
        self._mirror_memory.rest(key, max(REST_S, error.retry_after_s or 0.0))


async def _after(first: Chunk | None, rest: ByteStream) -> AsyncGenerator[Chunk, None]:
    """Yield a chunk that was taken from a stream, and then the rest."""
    if first is not None:
        yield first
    async for chunk in rest:
        yield chunk
