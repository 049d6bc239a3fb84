"""Blobs on disk, by digest: ingest, commit, read, remove, sweep.

Write order, the same for every blob: a temporary file in `ingest/`, its content, `fdatasync`,
`rename` to `blobs/sha256/<hex>`, `fsync` of that directory. A crash between any two steps leaves
either a temporary file, which `sweep` removes, or a complete blob. A name in `blobs/` therefore
always has the content of that name, unless the disk lost it: what a verification finds damaged is
moved to `quarantine/`.

An fsync that fails is never tried again: the kernel may have dropped the pages and would report
success (`DurabilityError`).

Synchronous on purpose: pack workers use it in processes without an event loop, the daemon in
threads. Several processes may write at once; equal content is harmless to write twice.
"""

import errno
import hashlib
import math
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from kitd.content.store import (
    Chunk,
    ContentError,
    ContentNotFoundError,
    ContentTooLargeError,
    MismatchError,
)
from kitd.errors import Disposition, DurabilityError
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import (
    Digest,
    InvalidDigestError,
    algorithm_of,
    encoded_of,
    from_hash,
    parse_digest,
)

SPARED_BYTES = 64 << 20
"""What large blobs that need not be here leave of the disk: others write there, too."""
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class StoreError(ContentError):
    """The disk under the cache did not do what was asked."""

    code = "cache_io"
    disposition: ClassVar[Disposition] = Disposition.RETRY


class NoSpaceError(StoreError):
    """The disk under the cache is full, or its quota is used up."""

    code = "no_space"
    disposition = Disposition.PAUSE


class ReadOnlyError(StoreError):
    """The disk under the cache takes nothing: it was mounted so, or the kernel met an error."""

    code = "read_only"
    disposition = Disposition.PAUSE


@contextmanager
def os_errors(what: str, path: Path) -> Iterator[None]:
    """Map operating system errors to the store's, naming the path."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(
                f"cannot {what} {path}: {reason}",
                hint="free disk space, or point cache.dir at a larger disk",
            ) from error
        if error.errno == errno.EROFS:
            raise ReadOnlyError(
                f"cannot {what} {path}: {reason}",
                hint="see what the kernel's log says of the disk, and mount it writable",
            ) from error
        raise StoreError(f"cannot {what} {path}: {reason}") from error


@contextmanager
def _durably(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DurabilityError(
            f"{path} could not be made durable: {error.strerror or error}",
            hint="see what the kernel's log says of the disk; kitd ends and looks again",
        ) from error


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises `DurabilityError`, `OSError`."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _durably(path):
            os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True, slots=True)
class Committed:
    """A blob that is durable in the store; `reused` if an equal one was there before."""

    digest: Digest
    size: int
    reused: bool


class Ingest:
    """One blob on its way in. Use as a context manager; leaving without `commit` discards it.

    An upload that has to outlive its process is closed with `suspend` instead, and gone on with by
    `BlobStore.resume`.
    """

    def __init__(
        self, store: "BlobStore", path: Path, algorithm: str, *, resume: bool = False
    ) -> None:
        self._store = store
        self._path = path
        self._hasher = hashlib.new(algorithm)
        self._size = 0
        if resume:
            self.rehash(algorithm)
        with os_errors("open", self._path):
            begin = os.O_APPEND if resume else os.O_CREAT | os.O_EXCL
            self._handle = os.open(self._path, os.O_WRONLY | begin | os.O_CLOEXEC, 0o600)

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._size

    @property
    def algorithm(self) -> str:
        """The digest algorithm that `commit` publishes under."""
        return self._hasher.name

    def rehash(self, algorithm: str) -> None:
        """Hash the content again from the file, with another algorithm or after a restart."""
        with os_errors("read", self._path), self._path.open("rb") as file:
            self._hasher = hashlib.file_digest(file, algorithm)
            self._size = file.tell()

    def write(self, data: Chunk) -> None:
        """Hash and append. Raises `StoreError`, `NoSpaceError`."""
        view = memoryview(data)
        self._hasher.update(view)
        self._size += len(view)
        with os_errors("write", self._path):
            while view:
                view = view[os.write(self._handle, view) :]

    def commit(self, expected: Descriptor | None = None) -> Committed:
        """Publish what was written under its digest, durably.

        Raises `MismatchError` if it is not what was expected, and then publishes nothing.
        """
        digest = from_hash(self._hasher)
        if expected is not None and (digest, self._size) != (expected.digest, expected.size):
            raise MismatchError(
                f"asked for {expected.digest} of {expected.size} bytes, "
                f"got {digest} of {self._size} bytes"
            )
        return self._store.publish(self._handle, self._path, digest, self._size)

    def suspend(self) -> None:
        """Close the file and leave it for `BlobStore.resume`. Safe to call twice."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def discard(self) -> None:
        """Close the file and remove what was not committed. Safe to call twice."""
        self.suspend()
        # After a commit that renamed there is nothing left under this name; and what cannot be
        # removed says nothing about what was committed: the next start sweeps it.
        with suppress(OSError):
            self._path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()


@dataclass(frozen=True, slots=True)
class Usage:
    """What the cache takes, in bytes: its blobs, of which there are so many, and all else."""

    blobs: int
    size_bytes: int
    other_bytes: int
    """What is on its way in, and what is in quarantine."""

    @property
    def total_bytes(self) -> int:
        """What the cache takes of the disk."""
        return self.size_bytes + self.other_bytes


@dataclass(frozen=True, slots=True)
class BlobFile:
    """A blob as the directory has it; `written_s` is the file's time, seconds since the epoch."""

    digest: Digest
    size: int
    written_s: float


class BlobStore:
    """The blobs under one OCI image layout. Stateless: the directory is the state.

    `label` begins the names of this object's temporary files, so that those of a process that was
    killed can be told from those of others.
    """

    def __init__(self, root: Path, *, label: str = "") -> None:
        self.root = root
        self._label = label
        # Paths are put together as text, because there are thousands of small blobs, and each is
        # looked for more than once.
        self._blobs = f"{root}/blobs/"
        self.ingest_dir = root / "ingest"
        self.uploads_dir = root / "uploads"
        """Uploads to kitd's own registry: like ingests, but they outlive a restart."""
        self.downloads_dir = root / "downloads"
        """What has arrived of blobs from elsewhere, by digest: see `kitd.store.partial`."""
        self.quarantine_dir = root / "quarantine"
        """Damaged blobs, under the names that they had: no content to be relied on. And samples of
        what came instead of blobs: see `kitd.store.sample`."""

    def create(self) -> None:
        """Make the layout on an empty or existing directory. Raises `StoreError`."""
        with os_errors("create the cache at", self.root):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.root / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
            self.ingest_dir.mkdir(mode=0o700, exist_ok=True)
            self.uploads_dir.mkdir(mode=0o700, exist_ok=True)
            self.downloads_dir.mkdir(mode=0o700, exist_ok=True)
            self.quarantine_dir.mkdir(mode=0o700, exist_ok=True)
        self.replace_file("oci-layout", LAYOUT)

    def path_of(self, digest: Digest) -> Path:
        """Return where the blob is or would be."""
        return Path(self._name_of(digest))

    def size_of(self, digest: Digest) -> int | None:
        """Return the size of a blob, or None if the store does not hold it."""
        try:
            return os.stat(self._name_of(digest)).st_size
        except FileNotFoundError:
            return None

    def has(self, target: Descriptor) -> bool:
        """Whether the store holds the blob with the size that the descriptor names."""
        return self.size_of(target.digest) == target.size

    def _name_of(self, digest: Digest) -> str:
        return f"{self._blobs}{algorithm_of(digest)}/{encoded_of(digest)}"

    def open(self, target: Descriptor) -> int:
        """Return a read-only file descriptor of the blob; the caller closes it.

        Raises `ContentNotFoundError`, and `MismatchError` where the size differs.
        """
        path = self.path_of(target.digest)
        with os_errors("open", path):
            try:
                handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise ContentNotFoundError(
                    f"{target.digest} is not in the cache", hint="pull the kit again"
                ) from None
        if (size := os.fstat(handle).st_size) != target.size:
            os.close(handle)
            raise MismatchError(f"{target.digest} has {size} bytes in the cache, not {target.size}")
        return handle

    def peek(self, target: Descriptor, offset: int, size: int) -> bytes:
        """Return bytes of a blob, or of what has arrived of it, unverified.

        Raises `ContentNotFoundError`, and `MismatchError` where there are fewer.
        """
        try:
            handle = os.open(self.partial_path(target.digest), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            # It is whole by now; if there is a trouble, it is met again there.
            handle = self.open(target)
        try:
            with os_errors("read", self.path_of(target.digest)):
                content = os.pread(handle, size, offset)
        finally:
            os.close(handle)
        if len(content) < size:
            raise MismatchError(f"{target.digest} ends before {offset + size} bytes")
        return content

    def read(self, target: Descriptor, *, max_bytes: int) -> bytes:
        """Return the verified content of a small blob."""
        if target.size > max_bytes:
            raise ContentTooLargeError(
                f"{target.digest} has {target.size} bytes, more than {max_bytes}"
            )
        with os.fdopen(self.open(target), "rb") as file:
            content = file.read()
        if from_hash(hashlib.new(algorithm_of(target.digest), content)) != target.digest:
            raise MismatchError(f"{target.digest} is damaged in the cache")
        return content

    def ingest(self, algorithm: str = "sha256") -> Ingest:
        """Begin to write a blob. Raises `StoreError`."""
        return Ingest(self, self.new_temporary(), algorithm)

    def ingest_upload(self, name: str, algorithm: str = "sha256") -> Ingest:
        """Begin to write a blob that `resume` can go on with. Raises `StoreError`."""
        return Ingest(self, self.uploads_dir / name, algorithm)

    def resume(self, name: str, algorithm: str = "sha256") -> Ingest:
        """Go on with a suspended or interrupted upload. Raises `StoreError`."""
        return Ingest(self, self.uploads_dir / name, algorithm, resume=True)

    def new_temporary(self) -> Path:
        """Return a name that nobody has, where `sweep` finds what is left under it."""
        return self.ingest_dir / f"{self._label}{secrets.token_hex(16)}"

    def publish(self, handle: int, temporary: Path, digest: Digest, size: int) -> Committed:
        """Make a temporary file, open under `handle`, the blob of its digest, durably.

        The file stays where it is if the store holds the blob already. Raises `StoreError`.
        """
        final = self.path_of(digest)
        with os_errors("publish", final):
            if self.size_of(digest) == size and self.touch(digest):
                # Whoever wrote it may not have come to this yet, and durable is durable.
                sync_directory(final.parent)
                return Committed(digest, size, reused=True)
            with _durably(temporary):
                os.fdatasync(handle)
            os.fchmod(handle, 0o444)
            final.parent.mkdir(exist_ok=True)
            temporary.rename(final)
            sync_directory(final.parent)
        return Committed(digest, size, reused=False)

    def touch(self, digest: Digest) -> bool:
        """Note that somebody wants the blob from now on; False if it is not there."""
        path = self.path_of(digest)
        with os_errors("touch", path):
            try:
                os.utime(path)
            except FileNotFoundError:
                return False
        return True

    def remove(self, digest: Digest, *, unless_after_s: float = math.inf) -> int:
        """Remove a blob, unless it was touched after that time; return the bytes freed.

        Who has it open goes on reading. Not made durable: a name that comes back after a crash is
        that of a blob which nobody needs. Raises `StoreError`.
        """
        path = self.path_of(digest)
        with os_errors("remove", path):
            try:
                status = path.stat()
                if status.st_mtime > unless_after_s:
                    return 0
                path.unlink()
            except FileNotFoundError:
                return 0
        return status.st_size

    def quarantine(self, digest: Digest, *, inode: int | None = None) -> bool:
        """Take a damaged blob out of use, durably; False if it is gone. Raises `StoreError`.

        With the `inode` in which the damage was found, also False if the blob was written anew.
        """
        path = self.path_of(digest)
        with os_errors("move to quarantine", path):
            try:
                if inode not in (None, path.stat().st_ino):
                    return False
                path.rename(self._quarantined(digest))
            except FileNotFoundError:
                return False
            sync_directory(self.quarantine_dir)
            sync_directory(path.parent)
        return True

    def note_missing(self, digest: Digest) -> None:
        """Leave an empty file for a blob that is gone, where damaged ones are. Raises `StoreError`.

        So that what is known to be lost is known after a restart, too.
        """
        path = self._quarantined(digest)
        with os_errors("write", path):
            path.touch(0o600)
            sync_directory(self.quarantine_dir)

    def in_quarantine(self) -> Mapping[Digest, int]:
        """Return the blobs that were found damaged or missing, with what is left of each in bytes.

        Raises `StoreError`.
        """
        with os_errors("list", self.quarantine_dir):
            return {
                digest: status.st_size
                for entry in os.scandir(self.quarantine_dir)
                if (digest := _digest_in(entry.name)) is not None
                if (status := _status(entry)) is not None
            }

    def drop_quarantined(self, digest: Digest) -> int:
        """Remove what is left of a damaged blob; return the bytes freed. Raises `StoreError`."""
        return _remove(self._quarantined(digest))

    def _quarantined(self, digest: Digest) -> Path:
        return self.quarantine_dir / file_name(digest)

    def partial_path(self, digest: Digest) -> Path:
        """Return where that is, or would be, which has arrived of a blob."""
        return self.downloads_dir / file_name(digest)

    def partials(self) -> Sequence[BlobFile]:
        """Return what has arrived of blobs that are not complete. Raises `StoreError`."""
        with os_errors("list", self.downloads_dir):
            return [
                BlobFile(digest, status.st_size, status.st_mtime)
                for entry in os.scandir(self.downloads_dir)
                if (digest := _digest_in(entry.name)) is not None
                if (status := _status(entry)) is not None
            ]

    def drop_partial(self, digest: Digest) -> int:
        """Remove what has arrived of a blob; return the bytes freed. Raises `StoreError`."""
        return _remove(self.partial_path(digest))

    def free_bytes(self) -> int:
        """Return what is left of the disk under the cache. Raises `StoreError`."""
        with os_errors("look at", self.ingest_dir):
            disk = os.statvfs(self.ingest_dir)
        # File systems that cannot tell say that they have no blocks at all.
        return disk.f_bavail * disk.f_frsize if disk.f_blocks else sys.maxsize

    def has_room_for(self, size: int) -> bool:
        """Whether the disk has room for a blob that need not be here. Raises `StoreError`."""
        return self.free_bytes() >= _with_spared(size)

    def require_space(self, size: int, *, may_leave: bool = False) -> None:
        """Raise `NoSpaceError` if the disk has not so many bytes free now.

        Where the blob `may_leave`, because it need not be here, `has_room_for` is what counts.
        """
        if self.free_bytes() < (_with_spared(size) if may_leave else size):
            with os_errors("write to", self.ingest_dir):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def put(self, content: bytes, algorithm: str = "sha256") -> Committed:
        """Publish a small blob."""
        with self.ingest(algorithm) as ingest:
            ingest.write(content)
            return ingest.commit()

    def replace_file(self, name: str, content: bytes) -> None:
        """Replace a small file of the layout atomically and durably. Raises `StoreError`."""
        path = self.root / name
        temporary = self.new_temporary()
        with os_errors("write", path):
            try:
                with temporary.open("xb") as file:
                    file.write(content)
                    file.flush()
                    with _durably(temporary):
                        os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            sync_directory(path.parent)

    def blobs(self) -> Sequence[BlobFile]:
        """Return the blobs on disk; one `stat` for each. Raises `StoreError`."""
        root = self.root / "blobs"
        with os_errors("list", root):
            return [
                BlobFile(digest, status.st_size, status.st_mtime)
                for algorithm in os.scandir(root)
                if algorithm.is_dir(follow_symlinks=False)
                for entry in os.scandir(algorithm.path)
                if (digest := _digest_of(f"{algorithm.name}:{entry.name}")) is not None
                if (status := _status(entry)) is not None
            ]

    def usage(self) -> Usage:
        """Count what is on disk; one `stat` for each file. Raises `StoreError`."""
        sizes = [blob.size for blob in self.blobs()]
        return Usage(len(sizes), sum(sizes), self.other_bytes())

    def other_bytes(self) -> int:
        """Count what is on disk beside the blobs: on its way in, and in quarantine."""
        others = (self.ingest_dir, self.uploads_dir, self.downloads_dir, self.quarantine_dir)
        with os_errors("list", self.root):
            return sum(
                status.st_size
                for directory in others
                for entry in os.scandir(directory)
                if (status := _status(entry)) is not None
            )

    def sweep(self) -> int:
        """Remove what interrupted ingests under this label left; return the bytes freed.

        Only while nobody writes under the label; the empty label is everybody's, so that is for
        the owner of the state directory before any worker runs.
        """
        freed = 0
        for path in self.ingest_dir.glob(f"{self._label}*"):
            with os_errors("remove", path):
                freed += path.stat().st_size
                path.unlink()
        return freed


def _remove(path: Path) -> int:
    """Remove a file; return the bytes freed, which are none if it is gone."""
    with os_errors("remove", path):
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
    return size


def file_name(digest: Digest) -> str:
    """Return what a file is called that has to do with a blob and is not the blob."""
    return digest.replace(":", "-", 1)


def _digest_in(name: str) -> Digest | None:
    """Return the digest for which `file_name` gives this name, if any."""
    return _digest_of(name.replace("-", ":", 1))


def _digest_of(name: str) -> Digest | None:
    """Return the digest that a file is named by; None for what somebody else put there."""
    try:
        return parse_digest(name)
    except InvalidDigestError:
        return None


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Return a file's status, or None if it went away since its directory was read."""
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None


def _with_spared(size: int) -> int:
    """Return what has to be free for a blob that need not be here."""
    return size + min(size, SPARED_BYTES)
