"""What changes in kitd's own registry, and the mirrors that follow it as if it were told of.

It serves the cache: so it changes by what is pushed to it, and by what is packed and named here.
"""

from collections.abc import Awaitable, Callable, Sequence

from kitd.gateway.naming import name_of
from kitd.ledger.catalog import Also, Catalog
from kitd.ledger.job_ledger import JobLedger
from kitd.ledger.shelf import Alteration
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.manifest import Manifest
from kitd.oci.reference import InvalidReferenceError, Repository
from kitd.queue.fact import Fact, KitPacked, RepositoryChanged
from kitd.queue.job import JobRequest
from kitd.webhooks.delivery import Action, Change

Follow = Callable[[str, Sequence[Change]], Awaitable[Sequence[JobRequest]]]
"""Says which jobs follow from changes in the repositories of a registry."""


class Onward:
    """Says what follows from a change of kitd's own registry.

    `names` are those of the registry, by which mirrors of the configuration have it as their
    source; it has none while nobody is listened to.
    """

    def __init__(self, jobs: JobLedger, follow: Follow) -> None:
        self.names: Sequence[str] = ()
        self._jobs = jobs
        self._follow = follow

    async def also(self, changes: Sequence[Change]) -> Also:
        """Return what admits the jobs that follow, for the transaction that writes the change."""
        if not changes:
            return self._jobs.admission(())
        # Whichever name their mirrors have for us.
        requests = [request for name in self.names for request in await self._follow(name, changes)]
        return self._jobs.admission(requests)

    async def after(self, alterations: Sequence[Alteration]) -> Also:
        """Return the same for what people do to names: see `kitd.ledger.shelf.Follow`."""
        return await self.also(
            [
                Change(
                    name,
                    alteration.tag,
                    action=Action.DELETE if alteration.is_gone else Action.PUSH,
                )
                for alteration in alterations
                if (name := _served_as(alteration.repository)) is not None
            ]
        )

    def implied(self, fact: Fact) -> Sequence[Fact]:
        """Return what a fact says of this registry: a kit that was packed is one that it has."""
        if not isinstance(fact, KitPacked) or not fact.repository.is_local or not fact.tags:
            return ()
        served = _served_as(fact.repository)
        if served is None:
            return ()
        return [
            RepositoryChanged(repository=Repository(name, served), tags=fact.tags)
            for name in self.names
        ]


def _served_as(repository: Repository) -> str | None:
    try:
        return name_of(repository)
    except InvalidReferenceError:
        return None


class OwnRegistry:
    """The catalogue as kitd's own registry writes it: with a change come the jobs that follow.

    Implements `kitd.gateway.catalog.Catalog`.
    """

    def __init__(self, catalog: Catalog, onward: Onward) -> None:
        self._catalog = catalog
        self._onward = onward

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
        also = await self._onward.also(changes)
        await self._catalog.commit(repository, target, tags, manifest, also=also)

    async def untag(self, repository: Repository, tag: str) -> None:
        """Remove a tag: see `Catalog.untag`."""
        change = Change(name_of(repository), tag, action=Action.DELETE)
        also = await self._onward.also([change])
        await self._catalog.untag(repository, tag, also=also)

    async def remove(self, repository: Repository, digest: Digest) -> None:
        """Remove a manifest with its tags: see `Catalog.remove`."""
        change = Change(name_of(repository), action=Action.DELETE)
        also = await self._onward.also([change])
        await self._catalog.remove(repository, digest, also=also)
