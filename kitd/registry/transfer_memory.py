"""What uploads go by beyond one attempt: open sessions, lessons about registries, who has what."""

from collections.abc import Sequence
from typing import Protocol

from kitd.oci.digest import Digest
from kitd.oci.reference import Repository
from kitd.registry.profile import Lessons
from kitd.registry.upload_session import UploadMemory, UploadSession


class TransferMemory(UploadMemory, Protocol):
    """All that is remembered."""

    async def lessons(self, registry: str) -> Lessons | None:
        """Return what was learned of a registry, unless that is too long ago."""
        ...

    async def learn(self, registry: str, lessons: Lessons) -> None:
        """Remember lessons in the place of those before."""
        ...

    async def lenders(self, registry: str, digest: Digest) -> Sequence[str]:
        """Return the names of repositories that are thought to hold a blob, the likeliest first."""
        ...


class VolatileMemory:
    """Remembers for as long as the process lives."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[Repository, str], UploadSession] = {}
        self._lessons: dict[str, Lessons] = {}

    async def recall(self, repository: Repository, content: str) -> UploadSession | None:
        """Return the session that was remembered last."""
        return self._sessions.get((repository, content))

    async def remember(self, repository: Repository, content: str, session: UploadSession) -> None:
        """Remember a session in the place of the one before."""
        self._sessions[repository, content] = session

    async def forget(self, repository: Repository, content: str) -> None:
        """Forget the session, if there is one."""
        self._sessions.pop((repository, content), None)

    async def lessons(self, registry: str) -> Lessons | None:
        """Return what was learned of a registry."""
        return self._lessons.get(registry)

    async def learn(self, registry: str, lessons: Lessons) -> None:
        """Remember lessons in the place of those before."""
        self._lessons[registry] = lessons

    async def lenders(self, registry: str, digest: Digest) -> Sequence[str]:  # noqa: ARG002 - a protocol's signature
        """Return nobody: what this process uploaded itself is known elsewhere."""
        return ()
