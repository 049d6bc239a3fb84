"""What is pushed into kitd's own registry, and the mirrors that follow it as if it were told of."""

from collections.abc import Awaitable, Callable, Sequence

from kitd.gateway.naming import name_of
from kitd.ledger.catalog import Catalog
from kitd.ledger.job_ledger import JobLedger
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.manifest import Manifest
from kitd.oci.reference import Repository
from kitd.queue.job import JobRequest
from kitd.webhooks.delivery import Action, Change

Follow = Callable[[str, Sequence[Change]], Awaitable[Sequence[JobRequest]]]
"""Says which jobs follow from changes in the repositories of a registry."""


class OwnRegistry:
    """The catalogue as kitd's own registry writes it: with a change come the jobs that follow.

    Implements `kitd.gateway.catalog.Catalog`. `names` are those of the registry, by which mirrors
    of the configuration have it as their source.
    """

    def __init__(self, catalog: Catalog, jobs: JobLedger, follow: Follow) -> None:
        self.names: Sequence[str] = ()
        self._catalog = catalog
        self._jobs = jobs
        self._follow = follow

    async def resolve(self, repository: Repository, identifier: str) -> Descriptor:
        """Return the manifest that a tag or a digest names: see `Catalog.resolve`."""
        return await self._catalog.resolve(repository, identifier)

    async def tags(self, repository: Repository, *, after: str | None, limit: int) -> Sequence[str]:
        """Return tags: see `Catalog.tags`."""
        return await self._catalog.tags(repository, after=after, limit=limit)

    async def referrers(self, repository: Repository, subject: Digest) -> Sequence[Descriptor]:
        """Return what refers to a manifest: see `Catalog.referrers`."""
        return await self._catalog.referrers(repository, subject)

    async def commit(
        self, repository: Repository, target: Descriptor, tags: Sequence[str], manifest: Manifest
    ) -> None:
        """Record a manifest and its tags: see `Catalog.commit`."""
        name = name_of(repository)
        # Without the digest, by which it would be judged whether both ends have it already: this is
        # not there yet, and another push may come to be copied and agreed on before it is.
        changes = [Change(name, tag) for tag in tags]
        # What has neither a tag nor a subject is part of something that comes later.
        if manifest.subject is not None:
            changes.append(Change(name, digest=target.digest))
        also = self._jobs.admission(await self._requests(changes))
        await self._catalog.commit(repository, target, tags, manifest, also=also)

    async def untag(self, repository: Repository, tag: str) -> None:
        """Remove a tag: see `Catalog.untag`."""
        change = Change(name_of(repository), tag, action=Action.DELETE)
        also = self._jobs.admission(await self._requests([change]))
        await self._catalog.untag(repository, tag, also=also)

    async def remove(self, repository: Repository, digest: Digest) -> None:
        """Remove a manifest with its tags: see `Catalog.remove`."""
        change = Change(name_of(repository), action=Action.DELETE)
        also = self._jobs.admission(await self._requests([change]))
        await self._catalog.remove(repository, digest, also=also)

    async def _requests(self, changes: Sequence[Change]) -> Sequence[JobRequest]:
        """Return the jobs that changes ask for, whichever name their mirrors have for us."""
        if not changes:
            return ()
        return [request for name in self.names for request in await self._follow(name, changes)]
