"""What uploads go by beyond one attempt, kept in the ledger: one room's words in the other's."""

from collections.abc import Sequence

from yarl import URL

from kitd.ledger.transfer_ledger import Lesson, OpenUpload, TransferLedger
from kitd.oci.digest import Digest
from kitd.oci.reference import Repository
from kitd.registry.profile import Lessons
from kitd.registry.upload_session import UploadSession


class LedgerMemory:
    """A `TransferMemory` that outlives the process."""

    def __init__(self, ledger: TransferLedger) -> None:
        self._ledger = ledger

    async def recall(self, repository: Repository, content: str) -> UploadSession | None:
        """Return the session that was remembered last and is not too old to be believed."""
        upload = await self._ledger.upload(repository, content)
        return None if upload is None else session_of(upload)

    async def remember(self, repository: Repository, content: str, session: UploadSession) -> None:
        """Remember a session in the place of the one before."""
        upload = OpenUpload(
            str(session.location), session.origin, session.received, session.least_chunk_bytes
        )
        await self._ledger.record_upload(repository, content, upload)

    async def forget(self, repository: Repository, content: str) -> None:
        """Forget the session, if there is one."""
        await self._ledger.forget_upload(repository, content)

    async def lessons(self, registry: str) -> Lessons | None:
        """Return what was learned of a registry, unless that is too long ago."""
        lesson = await self._ledger.lesson(registry)
        if lesson is None:
            return None
        return Lessons(lesson.takes_chunks, lesson.chunk_bytes, lesson.refused_bytes)

    async def learn(self, registry: str, lessons: Lessons) -> None:
        """Remember lessons in the place of those before."""
        lesson = Lesson(lessons.takes_chunks, lessons.chunk_bytes, lessons.refused_bytes)
        await self._ledger.record_lesson(registry, lesson)

    async def lenders(self, registry: str, digest: Digest) -> Sequence[str]:
        """Return the names of repositories that are thought to hold a blob, the likeliest first."""
        return await self._ledger.holders(registry, digest)


def session_of(upload: OpenUpload) -> UploadSession:
    """Return an upload of the ledger as a session of a registry."""
    return UploadSession(
        # A registry signs its Locations: they must come back as they were, letter by letter.
        URL(upload.location, encoded=True),
        upload.received,
        upload.least_chunk_bytes,
        upload.origin,
    )
