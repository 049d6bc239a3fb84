"""What the gateway needs to know about names: manifests, tags and referrers of repositories.

The bytes of manifests are in the blob cache like all others. This port holds which repository has
which manifest under which tags; `tests/contract/catalog` states it as tests.
"""

from collections.abc import Sequence
from typing import Protocol

from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.manifest import Manifest
from kitd.oci.reference import Repository


class Catalog(Protocol):
    """The names of repositories. A repository exists while it holds a manifest.

    Every change is durable when its call returns, and seen by every call after it. A call that
    raises has changed nothing.
    """

    async def resolve(self, repository: Repository, identifier: str) -> Descriptor:
        """Return the manifest that a tag or a digest names in this repository.

        A digest resolves only where it was committed to this repository, whatever the cache holds.
        The descriptor has the media type, the digest and the size that were committed.
        Raises `ContentNotFoundError`.
        """
        ...

    async def commit(
        self,
        repository: Repository,
        target: Descriptor,
        tags: Sequence[str],
        manifest: Manifest,
    ) -> None:
        """Record a manifest in a repository and let `tags` name it, in one transaction.

        A tag that named another manifest moves; that manifest stays, by digest. Committing again
        what is there already is no error. `manifest` is the parsed content of `target`: its
        subject, which need not exist, its artifact type and its annotations answer `referrers`.
        The cache holds the content and all children already; the caller has checked. Raises
        `CollectedError` where a manifest that it lists was removed from all repositories since.
        """
        ...

    async def tags(self, repository: Repository, *, after: str | None, limit: int) -> Sequence[str]:
        """Return at most `limit` tags that sort after `after`, in the order of their bytes.

        `after` need not be a tag of the repository. Raises `ContentNotFoundError` for a repository
        that does not exist.
        """
        ...

    async def referrers(self, repository: Repository, subject: Digest) -> Sequence[Descriptor]:
        """Return the manifests of this repository whose subject is `subject`, by ascending digest.

        Each as `kitd.oci.manifest.describe_referrer` has it. Empty for a subject or a repository
        that nobody knows.
        """
        ...

    async def untag(self, repository: Repository, tag: str) -> None:
        """Remove a tag; its manifest stays. Raises `ContentNotFoundError`."""
        ...

    async def remove(self, repository: Repository, digest: Digest) -> None:
        """Remove a manifest and all its tags from this repository.

        Other repositories keep it, and no blob is deleted. Raises `ContentNotFoundError`.
        """
        ...
