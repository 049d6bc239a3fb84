"""A repository of a registry as a content store: resolve, fetch, exists, push, tag, list tags."""

import re
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Container, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from aiohttp import ClientResponse
from yarl import URL

from kitd.blocking import run_blocking
from kitd.content.copy import SMALL_BYTES
from kitd.content.store import ByteStream, Fetcher, Need
from kitd.content.verify import read
from kitd.mirror.removal import Fate, Outcome
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest, InvalidDigestError, abbreviate, digest_of, parse_digest
from kitd.oci.manifest import (
    MAX_MANIFEST_BYTES,
    InvalidManifestError,
    describe_referrer,
    parse_manifest,
)
from kitd.oci.media_type import ACCEPT, is_manifest
from kitd.oci.reference import Repository, check_tag
from kitd.oci.tag_list import ListedTag, parse_tags
from kitd.registry.auth.scope import delete, pull, push
from kitd.registry.download import ReadAhead, open_download
from kitd.registry.errors import (
    RegistryError,
    RegistryManifestError,
    RegistryMismatchError,
    RegistryNotFoundError,
    RegistryProtocolError,
    RegistryStateError,
    RegistryTooLargeError,
    RegistryUnsupportedError,
)
from kitd.registry.listing import NAMES_A_PAGE, list_pages
from kitd.registry.manifest_removal import remove_tagged
from kitd.registry.presence import NO_HEAD, MountMemory, is_present
from kitd.registry.profile import UploadProfile, lessons_of, profile_for
from kitd.registry.referrers import ReferrersList, ReferrersMemory
from kitd.registry.request import Request
from kitd.registry.settings import UploadMode, remote_name
from kitd.registry.stream_upload import StreamUpload, open_stream
from kitd.registry.transfer_memory import TransferMemory
from kitd.registry.transport import Transport
from kitd.registry.upload import NOT_LENT, STALL_S, Upload
from kitd.registry.upload_session import MAX_STALLS, Uploads, UploadSession
from kitd.registry.upload_turns import UploadTurns

_GONE = frozenset({404})


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all repositories of a client have in common."""

    memory: TransferMemory
    turns: UploadTurns
    read_ahead: ReadAhead
    referrers: ReferrersMemory
    mounts: MountMemory


class RemoteRepository:
    """`Target`, `Resolver` and `Tagger` over a transport, which it does not own.

    `mount_from` names repositories of the same registry that are asked for a blob before it is
    sent. `mounted_bytes` is what pushes got from other repositories so far, without sending it.
    Every method raises `RegistryError` and its family.
    """

    def __init__(
        self,
        repository: Repository,
        transport: Transport,
        shared: Shared,
        *,
        mount_from: Sequence[str] = (),
    ) -> None:
        self.repository = repository
        self.mounted_bytes = 0
        self._transport = transport
        self._memory = shared.memory
        self._turns = shared.turns
        self._profile: UploadProfile | None = None
        self._read_ahead = shared.read_ahead
        self._name = remote_name(repository.registry, repository.name)
        self._mount_from = tuple(remote_name(repository.registry, name) for name in mount_from)
        self._referrers = ReferrersList(repository, self._name, transport, shared.referrers)
        self._mounts = shared.mounts
        self._sent_last: Digest | None = None
        """The small blob that was sent last; None once another one was there: where one is, others
        are likely to be, and a HEAD is the cheaper request for those."""
        # A kit is pushed once and then tagged several times.
        self._pushed: tuple[Descriptor, bytes] | None = None

    async def resolve(self, identifier: str) -> Descriptor:
        """Return the manifest that a tag or a digest names.

        Raises `RegistryNotFoundError`; `InvalidReferenceError` or `InvalidDigestError` for text
        that is neither.
        """
        asked = parse_digest(identifier) if ":" in identifier else None
        name = check_tag(identifier) if asked is None else asked
        request = Request(
            operation=self._finding(name),
            method="HEAD",
            url=self._tag_url(name),
            scopes=(pull(self._name),),
            headers={"Accept": ACCEPT},
            accept=NO_HEAD,
        )
        async with self._transport.send(request) as response:
            described = _described(response) if response.status == 200 else None
        # Some registries answer HEAD with less than a descriptor, or not at all.
        target = described
        if target is None:
            target, _ = await self._read_described(request.url, request.operation)
        if asked is not None and target.digest != asked:
            raise self._mismatch(f"it answered with {target.digest}", request.operation)
        return target

    @asynccontextmanager
    async def fetch(self, target: Descriptor, *, offset: int = 0) -> AsyncIterator[ByteStream]:
        """Open a blob or a manifest from `offset`. Raises `RegistryNotFoundError`.

        See `kitd.registry.download`: the stream survives what passes. The digest is the reader's to
        check.
        """
        operation = f"fetch {abbreviate(target.digest)} from {self._name}"
        request = Request(
            operation=operation,
            method="GET",
            url=self._url_of(target),
            scopes=(pull(self._name),),
            headers={"Accept": target.media_type if is_manifest(target.media_type) else "*/*"},
            is_download=not is_manifest(target.media_type),
        )
        async with open_download(
            self._transport, request, target, offset=offset, read_ahead=self._read_ahead
        ) as stream:
            yield stream

    async def exists(self, target: Descriptor) -> bool:
        """Whether the repository holds this content with this size."""
        return await self._exists(target, writing=False)

    async def push(self, target: Descriptor, source: Fetcher) -> int:
        """Make a blob or a manifest present and return the bytes that were sent.

        Raises what the source raises, too. A blob that is larger than the registry takes is refused
        before anything is sent.
        """
        self._check_size(abbreviate(target.digest), target.size, await self.upload_profile())
        if is_manifest(target.media_type):
            exists = await self._exists(target, writing=True)
            return await self._push_manifest(target, source, exists=exists)
        ticket = self._turns.ticket(self.repository.registry, target.digest)
        by_mount = await self._asks_by_mount(target)
        if not by_mount and await self._is_there(target):
            return 0
        async with ticket.turn() as somebody_did:
            session = None
            if by_mount and not somebody_did:
                session = await self._open_unless_there(target.digest)
            if session is None and (by_mount or somebody_did) and await self._is_there(target):
                return 0
            return await self._upload(target, source, session)

    async def upload_profile(self) -> UploadProfile:
        """Return how blobs are sent to this registry, as far as is known."""
        if self._profile is None:
            registry = self.repository.registry
            lessons = await self._memory.lessons(registry)
            self._profile = profile_for(registry, self._transport.settings, lessons)
        return self._profile

    def uploads(self, what: str) -> Uploads:
        """Return the requests for uploading something that errors call `what`."""
        return Uploads(self._transport, self._name, what)

    def _check_size(self, what: str, size: int, profile: UploadProfile) -> None:
        most = profile.max_blob_bytes
        if most is not None and size > most:
            raise RegistryTooLargeError(
                f"it has {size} bytes, and blobs there have {most} at most",
                host=self.repository.registry,
                operation=f"push {what} in {self._name}",
                hint="put what is in this layer into several",
            )

    async def _is_there(self, target: Descriptor) -> bool:
        """Whether a blob needs no upload."""
        exists = await self._exists(target, writing=True)
        if exists:
            self._sent_last = None
        return exists

    async def _asks_by_mount(self, target: Descriptor) -> bool:
        """Whether the request that opens the upload of a blob can tell that it is not needed.

        A session that is opened for nothing costs more than a HEAD, and a wrong answer costs the
        blob: it is for small ones that are likely to be new.
        """
        if target.size > SMALL_BYTES or self._sent_last is None:
            return False
        profile = await self.upload_profile()
        whole = profile.mode_for(target.size) is UploadMode.MONOLITHIC
        if not whole or await self._lenders(target.digest):
            return False
        tells = self._mounts.tells(self.repository.registry)
        return await self._try_mount(self._sent_last) if tells is None else tells

    async def _try_mount(self, held: Digest) -> bool:
        """Whether a mount from this repository is answered by what it holds; `held` is there."""
        registry = self.repository.registry
        # Nobody else tries meanwhile.
        self._mounts.learn(registry, tells=False)
        uploads = self.uploads(abbreviate(held))
        try:
            session = await uploads.mount(held, self._name)
        except RegistryError:
            # If there is trouble, others meet it.
            return False
        if session is not None:
            await uploads.cancel(session)
            return False
        self._mounts.learn(registry, tells=True)
        return True

    async def _open_unless_there(self, digest: Digest) -> UploadSession | None:
        """Return a session, or None where the registry mounts the blob, or does not like to."""
        try:
            return await self.uploads(abbreviate(digest)).mount(digest, self._name)
        except (*NOT_LENT, RegistryProtocolError):
            self._mounts.learn(self.repository.registry, tells=False)
            return None

    async def _upload(
        self, target: Descriptor, source: Fetcher, session: UploadSession | None
    ) -> int:
        registry = self.repository.registry
        profile = await self.upload_profile()
        upload = Upload(
            self.uploads(abbreviate(target.digest)),
            self.repository,
            target,
            source,
            profile=profile,
            memory=self._memory,
        )
        lenders = () if session else await self._lenders(target.digest)
        sent_bytes = await upload.run(lenders, session)
        if target.size <= SMALL_BYTES:
            self._sent_last = target.digest
        self._turns.place(registry, target.digest, self._name)
        await self._learned(upload.profile)
        if sent_bytes is None:
            self.mounted_bytes += target.size
            return 0
        return sent_bytes

    async def _learned(self, profile: UploadProfile) -> None:
        """Remember how blobs are sent to this registry, if that is news."""
        if profile != self._profile:
            self._profile = profile
            await self._memory.learn(self.repository.registry, lessons_of(profile))

    async def _lenders(self, digest: Digest) -> Sequence[str]:
        """Return the repositories that may hold a blob, the likeliest first."""
        registry = self.repository.registry
        known = await self._memory.lenders(registry, digest)
        return (
            *self._turns.places(registry, digest),
            *self._mount_from,
            *(remote_name(registry, name) for name in known),
        )

    async def takes_streams(self) -> bool:
        """Whether the digest of a blob may be said after its last byte."""
        # Whatever its size will be, it is worth going on with.
        profile = await self.upload_profile()
        return profile.mode_for(sys.maxsize) is not UploadMode.MONOLITHIC

    async def begin_stream(
        self, content: str, *, chunk_bytes: int, least_size: int = 0
    ) -> StreamUpload:
        """Begin to send a blob that is still being made, or go on where that was interrupted.

        `content` is a word for it that a later attempt would use, too; `chunk_bytes` is what the
        caller would keep at once, where the registry does not want more. It will have `least_size`
        bytes at least: what is larger than the registry takes is refused before anything is sent.
        """
        profile = await self.upload_profile()
        self._check_size(content, least_size, profile)
        return await open_stream(
            self.uploads(content),
            self.repository,
            self._memory,
            content,
            profile=profile,
            learned=self._learned,
            chunk_bytes=chunk_bytes,
        )

    async def tag(self, target: Descriptor, tag: str) -> None:
        """Let `tag` name a manifest that the repository holds.

        Registries take the manifest again for that: the one just pushed, else it is read back.
        """
        if self._pushed is not None and self._pushed[0].digest == target.digest:
            content = self._pushed[1]
        else:
            content = await read(self, target, max_bytes=MAX_MANIFEST_BYTES)
        await self._put_manifest(target, content, check_tag(tag))

    async def referrers(
        self, subject: Digest, tags: Container[str] | None = None
    ) -> Sequence[Descriptor]:
        """Return what is listed as referring to a manifest, unchecked.

        `tags` are all that the repository has, if they are known, which may save a request.
        """
        return await self._referrers.read(subject, tags)

    async def read_tag(self, tag: str) -> tuple[Descriptor, bytes]:
        """Return the manifest that a tag names, and its content. Raises `RegistryNotFoundError`."""
        return await self._read_described(self._tag_url(check_tag(tag)), self._finding(tag))

    async def tags(self) -> AsyncGenerator[ListedTag, None]:
        """Yield the tags in the registry's order. Raises `RegistryNotFoundError`."""
        operation = f"list the tags of {self._name}"
        request = Request(
            operation=operation,
            method="GET",
            url=self._transport.url(f"{self._name}/tags/list?n={NAMES_A_PAGE}"),
            scopes=(pull(self._name),),
        )
        async with aclosing(list_pages(self._transport, request, parse_tags)) as pages:
            async for page in pages:
                for tag in page:
                    yield tag

    async def remove_tag(self, tag: str, expected: Digest) -> Fate:
        """Remove a tag and nothing else, if it names what is expected."""
        name = check_tag(tag)
        try:
            # A mirror that is read from does not know what tags name there.
            named = (await RemoteRepository.resolve(self, name)).digest
        except RegistryNotFoundError:
            return Fate(Outcome.ABSENT)
        if named != expected:
            return Fate(Outcome.MOVED)
        operation = f"remove the tag {self._name}:{tag}"
        try:
            was_there = await self._delete(operation, name)
        # distribution 2 takes a tag for a digest that is wrong.
        except (RegistryUnsupportedError, RegistryMismatchError):
            return Fate(Outcome.UNSUPPORTED)
        return Fate(Outcome.REMOVED if was_there else Outcome.ABSENT)

    async def remove_with_manifests(self, going: Mapping[str, Digest]) -> Mapping[str, Fate]:
        """Remove tags by deleting what they name, where no tags are removed: `remove_tagged`.

        `going` are the tags, each with the digest that it is expected to name. Tags that go at the
        same time have to come together: a manifest goes if all its tags do.
        """
        resolve = partial(RemoteRepository.resolve, self)
        return await remove_tagged(
            self, resolve, {check_tag(tag): parse_digest(digest) for tag, digest in going.items()}
        )

    async def delete_manifest(self, digest: Digest) -> bool:
        """Delete a manifest with all its tags, whatever needs it; whether it was there.

        Raises `RegistryUnsupportedError` where the registry deletes nothing.
        """
        operation = f"delete {self._name}@{digest}"
        try:
            return await self._delete(operation, parse_digest(digest))
        except RegistryUnsupportedError as error:
            raise RegistryUnsupportedError(
                "it removes no tags, and deletes no manifests",
                host=self.repository.registry,
                operation=operation,
                hint=f"let {self.repository.registry} delete"
                " (distribution: storage.delete.enabled), or delete it where it is administered",
            ) from error

    def pulls_left(self) -> tuple[int, int, float] | None:
        """Return how many pulls are left, of how many, in how many seconds; None for no limit."""
        quota = self._transport.quota()
        return None if quota is None else (quota.remaining, quota.limit, quota.window_s)

    async def need(self, target: Descriptor) -> Need:
        """Return what a push of this content would take; nothing is sent."""
        if await self._exists(target, writing=False):
            return Need.NOTHING
        lent = not is_manifest(target.media_type) and await self._lenders(target.digest)
        return Need.MOUNT if lent else Need.BYTES

    async def _delete(self, operation: str, identifier: str) -> bool:
        request = Request(
            operation=operation,
            method="DELETE",
            url=self._transport.url(f"{self._name}/manifests/{identifier}"),
            scopes=(delete(self._name),),
            accept=_GONE,
        )
        async with self._transport.send(request) as response:
            return response.status not in _GONE

    async def publish(self, target: Descriptor, source: Fetcher, tag: str) -> int:
        """Make a manifest present and let a tag name it, by one request; return its bytes.

        What it needs has to be there. Raises what the source raises, too.
        """
        content = await read(source, target, max_bytes=MAX_MANIFEST_BYTES)
        noted = await self._put_new_manifest(target, content, check_tag(tag))
        await self._enter(target, content, noted=noted)
        return target.size

    async def _push_manifest(self, target: Descriptor, source: Fetcher, *, exists: bool) -> int:
        content = await read(source, target, max_bytes=MAX_MANIFEST_BYTES)
        noted = False
        if not exists:
            noted = await self._put_new_manifest(target, content, target.digest)
            self._pushed = (target, content)
        # One that was there may be of a push that ended before it was listed.
        await self._enter(target, content, noted=noted)
        return 0 if exists else target.size

    async def _enter(self, target: Descriptor, content: bytes, *, noted: bool) -> None:
        """See to it that a manifest with a subject is listed."""
        manifest = await run_blocking(parse_manifest, content, target.media_type)
        if manifest.subject is not None:
            await self._referrers.enter(
                manifest.subject.digest, describe_referrer(target, manifest), noted=noted
            )

    def _url_of(self, target: Descriptor) -> URL:
        kind = "manifests" if is_manifest(target.media_type) else "blobs"
        return self._transport.url(f"{self._name}/{kind}/{target.digest}")

    async def _exists(self, target: Descriptor, *, writing: bool) -> bool:
        # Before a push the token for writing is asked for at once; it allows reading, too.
        request = Request(
            operation=f"look for {abbreviate(target.digest)} in {self._name}",
            method="HEAD",
            url=self._url_of(target),
            scopes=(push(self._name) if writing else pull(self._name),),
            headers={"Accept": target.media_type} if is_manifest(target.media_type) else {},
        )
        is_blob = not is_manifest(target.media_type)
        return await is_present(self._transport, request, size=target.size, is_blob=is_blob)

    def _finding(self, identifier: str) -> str:
        return f"find {self._name}{'@' if ':' in identifier else ':'}{identifier}"

    def _tag_url(self, identifier: str) -> URL:
        return self._transport.url(f"{self._name}/manifests/{identifier}")

    async def _read_described(self, url: URL, operation: str) -> tuple[Descriptor, bytes]:
        """Return a manifest with its content, by reading it."""
        request = Request(
            operation=operation,
            method="GET",
            url=url,
            scopes=(pull(self._name),),
            headers={"Accept": ACCEPT},
        )
        async with self._transport.send(request) as response:
            content = await self._transport.read(
                response, operation=operation, max_bytes=MAX_MANIFEST_BYTES
            )
            sent_as = _media_type(response)
        try:
            # Generic types such as application/json say nothing: the document's own type counts.
            manifest = await run_blocking(
                parse_manifest, content, sent_as if is_manifest(sent_as) else None
            )
        except InvalidManifestError as error:
            raise RegistryManifestError(
                error.message, host=self.repository.registry, operation=operation
            ) from error
        return Descriptor(manifest.media_type, digest_of(content), len(content)), content

    async def _put_new_manifest(self, target: Descriptor, content: bytes, identifier: str) -> bool:
        """Send a manifest whose blobs are there; return whether the registry noted its subject.

        One that knows a blob not yet, although it has acknowledged it, gets some time.
        """
        for stalls in range(MAX_STALLS):
            try:
                return await self._put_manifest(target, content, identifier)
            except RegistryStateError:
                await self._transport.pause(STALL_S * 2**stalls)
        return await self._put_manifest(target, content, identifier)

    async def _put_manifest(self, target: Descriptor, content: bytes, identifier: str) -> bool:
        """Send a manifest; return whether the registry noted its subject."""
        operation = f"push the manifest {abbreviate(target.digest)} to {self._name}:{identifier}"
        request = Request(
            operation=operation,
            method="PUT",
            url=self._transport.url(f"{self._name}/manifests/{identifier}"),
            scopes=(push(self._name),),
            headers={"Content-Type": target.media_type},
            content=content,
        )
        async with self._transport.send(request) as response:
            stored = response.headers.get("Docker-Content-Digest", target.digest)
            noted = "OCI-Subject" in response.headers
        if stored != target.digest:
            raise self._mismatch(f"it stored {stored[:160]!r} instead", operation)
        return noted

    def _mismatch(self, reason: str, operation: str) -> RegistryMismatchError:
        return RegistryMismatchError(reason, host=self.repository.registry, operation=operation)


def _media_type(response: ClientResponse) -> str:
    """Return the Content-Type without its parameters, lower case."""
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _described(response: ClientResponse) -> Descriptor | None:
    """Return the descriptor in the headers of a manifest's answer, None if it is not whole."""
    media_type = _media_type(response)
    length = response.headers.get("Content-Length", "")
    digest = response.headers.get("Docker-Content-Digest", "")
    if not is_manifest(media_type) or re.fullmatch("[0-9]{1,18}", length) is None:
        return None
    try:
        return Descriptor(media_type, parse_digest(digest), int(length))
    except InvalidDigestError:
        return None
