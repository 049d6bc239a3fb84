"""The catalogs that are held to the contract: one asynchronous context manager for each."""

from bisect import bisect_right
from contextlib import asynccontextmanager

import pytest

from kitd.clock import SystemClock
from kitd.content.store import CollectedError, ContentNotFoundError
from kitd.ledger.catalog import Catalog
from kitd.ledger.database import Database
from kitd.oci.manifest import describe_referrer


class DictCatalog:
    """The contract in its plainest form."""

    def __init__(self):
        self._manifests = {}
        self._tags = {}

    async def resolve(self, repository, identifier):
        digest = self._tags.get(repository, {}).get(identifier, identifier)
        try:
            return self._manifests[repository][digest][0]
        except KeyError:
            raise ContentNotFoundError(f"{repository} has no {identifier}") from None

    async def commit(self, repository, target, tags, manifest):
        known = {digest for held in self._manifests.values() for digest in held}
        if not known.issuperset(child.digest for child in manifest.manifests):
            raise CollectedError(f"{target.digest} lists what is not there")
        self._manifests.setdefault(repository, {})[target.digest] = (target, manifest)
        self._tags.setdefault(repository, {}).update(dict.fromkeys(tags, target.digest))

    async def tags(self, repository, *, after, limit):
        if not self._manifests.get(repository):
            raise ContentNotFoundError(f"there is no repository {repository}")
        ordered = sorted(self._tags[repository])
        start = 0 if after is None else bisect_right(ordered, after)
        return ordered[start : start + limit]

    async def referrers(self, repository, subject):
        return [
            describe_referrer(target, manifest)
            for _, (target, manifest) in sorted(self._manifests.get(repository, {}).items())
            if manifest.subject is not None and manifest.subject.digest == subject
        ]

    async def untag(self, repository, tag):
        if self._tags.get(repository, {}).pop(tag, None) is None:
            raise ContentNotFoundError(f"{repository} has no tag {tag}")

    async def remove(self, repository, digest):
        if self._manifests.get(repository, {}).pop(digest, None) is None:
            raise ContentNotFoundError(f"{repository} has no {digest}")
        tags = self._tags[repository]
        self._tags[repository] = {tag: named for tag, named in tags.items() if named != digest}


async def no_kit(_manifest):
    """Summarise manifests as those of anything but kits."""


@asynccontextmanager
async def in_memory(_directory):
    yield DictCatalog()


@asynccontextmanager
async def in_ledger(directory):
    async with Database(directory / "ledger.db") as database:
        yield Catalog(database, SystemClock(), no_kit)


@pytest.fixture(params=[in_memory, in_ledger], ids=lambda make: make.__name__)
async def catalog(request, tmp_path):
    async with request.param(tmp_path) as catalog:
        yield catalog
