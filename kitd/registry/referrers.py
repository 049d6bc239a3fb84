"""What refers to a manifest: the list that a registry keeps, or the index that stands in for it.

Source: OCI distribution spec, "Listing Referrers", "Pushing Manifests with Subject" and "Referrers
Tag Schema". A registry that keeps no list leaves it to its clients, in an index under a tag that
follows from the subject's digest. Whoever changes that index reads it first; in this process one
after another, and with others as far as the registry heeds If-Match.
"""

import asyncio
from collections.abc import Callable, Container, Sequence
from weakref import WeakValueDictionary

from aiohttp import ClientResponse
from yarl import URL

from kitd.blocking import run_blocking
from kitd.content.referrers import MAX_REFERRERS
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest, abbreviate
from kitd.oci.manifest import MAX_MANIFEST_BYTES, InvalidManifestError
from kitd.oci.media_type import ACCEPT, OCI_INDEX
from kitd.oci.reference import Repository
from kitd.oci.referrer import add_referrer, parse_referrers, referrers_tag
from kitd.registry.auth.scope import Scope, pull, push
from kitd.registry.errors import RegistryProtocolError, RegistryStateError
from kitd.registry.location import InvalidLocationError, next_page
from kitd.registry.request import Request
from kitd.registry.transport import Transport

MAX_PAGES = 1000
MAX_TRIES = 5
"""How often an index is read again because somebody else has changed it meanwhile."""
MAX_KNOWN = 4096
"""Repositories of which it is remembered whether they keep lists."""
KNOWN_S = 3600.0
"""How long that is believed of one that keeps none: registries learn it with an upgrade."""

_CHANGED = frozenset({412})
_NO_INDEX = frozenset({404})
# What servers say to a path that they do not know, or pass on to a handler that takes it amiss.
_NO_LIST = frozenset({400, 401, 403, 404, 405, 406, 410, 500, 501})
_DENIED = frozenset({401, 403})


class ReferrersMemory:
    """Which repositories keep lists themselves, and whose turn it is to change an index.

    Shared by all that write to the same registries.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[Repository, tuple[bool, float]] = {}
        self._turns: WeakValueDictionary[tuple[Repository, Digest], asyncio.Lock] = (
            WeakValueDictionary()
        )

    def keeps_lists(self, repository: Repository) -> bool | None:
        """Whether a repository does; None where that is not known, or not any more."""
        keeps, learned_s = self._known.get(repository, (None, 0.0))
        if keeps is False and self._clock() - learned_s > KNOWN_S:
            return None
        return keeps

    def learn(self, repository: Repository, *, keeps_lists: bool) -> None:
        """Remember what a repository was seen to do."""
        self._known.pop(repository, None)
        self._known[repository] = (keeps_lists, self._clock())
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]

    def turn(self, repository: Repository, subject: Digest) -> asyncio.Lock:
        """Return what has to be held while the index of a subject is changed."""
        return self._turns.setdefault((repository, subject), asyncio.Lock())


class ReferrersList:
    """The lists of referrers of one repository (`name`, as the registry calls it)."""

    def __init__(
        self, repository: Repository, name: str, transport: Transport, memory: ReferrersMemory
    ) -> None:
        self._repository = repository
        self._name = name
        self._transport = transport
        self._memory = memory

    async def read(
        self, subject: Digest, tags: Container[str] | None = None
    ) -> Sequence[Descriptor]:
        """Return what is listed; nobody has checked it. Raises `RegistryError`.

        `tags` are all that the repository has, if they are known: an index is under one of them.
        """
        if self._memory.keeps_lists(self._repository) is not False:
            listed = await self._read_list(subject, pull(self._name))
            if listed is not None:
                return listed
        if tags is not None and referrers_tag(subject) not in tags:
            return ()
        content, _ = await self._read_index(subject, pull(self._name))
        if content is None:
            return ()
        return await self._parse(content, f"follow {self._name}:{referrers_tag(subject)}")

    async def enter(self, subject: Digest, referrer: Descriptor, *, noted: bool) -> None:
        """See to it that a manifest which was pushed is listed.

        `noted` is whether the registry said that it noted the subject. Raises `RegistryError`.
        """
        if noted:
            self._memory.learn(self._repository, keeps_lists=True)
        elif self._memory.keeps_lists(self._repository) is None:
            await self._read_list(subject, push(self._name))
        if self._memory.keeps_lists(self._repository):
            return
        async with self._memory.turn(self._repository, subject):
            for _ in range(MAX_TRIES):
                if await self._add_to_index(subject, referrer):
                    return
        raise RegistryStateError(
            "others change the list all the time",
            host=self._repository.registry,
            operation=f"add to {self._name}:{referrers_tag(subject)}",
        )

    async def _read_list(self, subject: Digest, scope: Scope) -> Sequence[Descriptor] | None:
        """Return the registry's own list, None where it keeps none that can be read.

        `scope` is that of the work this is a part of: a push has a token that allows reading, too.
        """
        operation = f"list the referrers of {abbreviate(subject)} in {self._name}"
        url = self._transport.url(f"{self._name}/referrers/{subject}")
        found: list[Descriptor] = []
        for page in range(MAX_PAGES):
            request = Request(
                operation=operation,
                method="GET",
                url=url,
                scopes=(scope,),
                headers={"Accept": OCI_INDEX},
                accept=_NO_LIST if page == 0 else frozenset(),
            )
            try:
                async with self._transport.send(request) as response:
                    if response.status != 200:
                        self._note_refusal(response.status)
                        return None
                    content = await self._document(response, operation)
                    found += await self._parse(content, operation)
                    following = self._next_page(response, operation)
            except RegistryProtocolError:
                # Some answer every path that they do not know with a page for people.
                if page == 0:
                    return None
                raise
            self._memory.learn(self._repository, keeps_lists=True)
            if following is None or len(found) > MAX_REFERRERS:
                return found
            url = following
        raise self._violation(f"it lists more than {MAX_PAGES} pages", operation)

    def _note_refusal(self, status: int) -> None:
        """Learn what can be learned from an answer that is no list."""
        # Who had one before may have a bad moment, and another login may be let in.
        has_had_one = self._memory.keeps_lists(self._repository) is True
        if status == 404 or not (has_had_one or status in _DENIED):
            self._memory.learn(self._repository, keeps_lists=False)

    async def _read_index(self, subject: Digest, scope: Scope) -> tuple[bytes | None, str | None]:
        """Return the index that stands in for a list, and the version to change it with."""
        operation = f"read {self._name}:{referrers_tag(subject)}"
        request = Request(
            operation=operation,
            method="GET",
            url=self._index_url(subject),
            scopes=(scope,),
            # What is not accepted some call missing, and it would be overwritten.
            headers={"Accept": ACCEPT},
            accept=_NO_INDEX,
        )
        async with self._transport.send(request) as response:
            if response.status in _NO_INDEX:
                return None, None
            version = response.headers.get("ETag", "")
            # If-Match compares strongly: a weak one would never do (RFC 9110, 13.1.1).
            strong = version if version.startswith('"') else None
            return await self._document(response, operation), strong

    async def _add_to_index(self, subject: Digest, referrer: Descriptor) -> bool:
        """Add an entry unless it is there; whether that was not in vain."""
        content, version = await self._read_index(subject, push(self._name))
        operation = f"add to {self._name}:{referrers_tag(subject)}"
        try:
            grown = await run_blocking(add_referrer, content, referrer)
        except InvalidManifestError as error:
            raise self._violation(str(error), operation) from error
        if grown is None:
            return True
        request = Request(
            operation=operation,
            method="PUT",
            url=self._index_url(subject),
            scopes=(push(self._name),),
            headers={"Content-Type": OCI_INDEX} | ({"If-Match": version} if version else {}),
            content=grown,
            accept=_CHANGED,
        )
        async with self._transport.send(request) as response:
            return response.status not in _CHANGED

    async def _document(self, response: ClientResponse, operation: str) -> bytes:
        return await self._transport.read(
            response, operation=operation, max_bytes=MAX_MANIFEST_BYTES
        )

    async def _parse(self, content: bytes, operation: str) -> Sequence[Descriptor]:
        try:
            return await run_blocking(parse_referrers, content)
        except InvalidManifestError as error:
            raise self._violation(str(error), operation) from error

    def _next_page(self, response: ClientResponse, operation: str) -> URL | None:
        try:
            return next_page(response.url, response.links, self._transport.origin)
        except InvalidLocationError as error:
            raise self._violation(str(error), operation) from error

    def _index_url(self, subject: Digest) -> URL:
        return self._transport.url(f"{self._name}/manifests/{referrers_tag(subject)}")

    def _violation(self, reason: str, operation: str) -> RegistryProtocolError:
        return RegistryProtocolError(reason, host=self._repository.registry, operation=operation)
