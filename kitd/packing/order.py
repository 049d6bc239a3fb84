"""What the daemon asks of a worker and what it answers: one JSON object a line, each way."""

from collections.abc import Mapping

import msgspec

from kitd.caller import Caller
from kitd.errors import Disposition, KitdError
from kitd.hold import Hold

ANYBODY = -1
"""Stands for users whom nobody can name: no user has this number."""
MAX_LINE_BYTES = 32 * 1024 * 1024
"""A kit of twenty thousand layers, the most a manifest may name, with room to spare."""


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """Where a project is and how it is packed: what changes here changes the fingerprint.

    Of `kitfile` it is the content that does, whatever its name; `reader` does not.
    """

    root: str
    """Absolute. The names below it are bytes, its own are text."""
    kitfile: str | None = None
    """Relative to the root; None looks for the usual names."""
    dialect: str = "current"
    layer_format: str = "tar"
    compression: str = "none"
    reader: Caller | None = None
    """Nothing is read that he could not read; None reads whatever kitd can."""
    is_guest: bool = False
    """Whether its files are kitd's, and what they say is somebody else's."""


class Glance(msgspec.Struct, frozen=True, kw_only=True):
    """What a cheap walk of a project found when its state was last known (`kitd.packing.glance`).

    An equal glance means an equal state; another one means nothing.
    """

    digest: str
    entries: int
    """How large the tree was: large ones are looked at by two processes."""


class ScanOrder(msgspec.Struct, frozen=True, kw_only=True, tag="scan"):
    """Look at every file that a pack would take, and read none but what judges it finished."""

    project: Project
    patience_s: float
    """For how long an unchanged file may hold the project back that only looks unfinished."""
    watch: bool = False
    """Whether every directory that is entered is to be watched."""
    known: Glance | None = None


class Streams(msgspec.Struct, frozen=True, kw_only=True):
    """Lets layers leave while they are read: through pipes, and not into the blob store."""

    repository: str
    """Where they go, as `registry/name`."""
    over_bytes: int | None
    """Larger layers do so; None: only those that the disk has no room for."""
    digest_first: bool
    """Whether digest and size have to be known before the first byte."""


class PackOrder(msgspec.Struct, frozen=True, kw_only=True, tag="pack"):
    """Build the layers that nobody knows into the blob store."""

    project: Project
    cache: str
    label: str
    """Begins the names of temporary files, so that a killed worker's can be found."""
    known: Glance | None = None
    expected: str | None = None
    """The fingerprint that the project has to have; None packs it as it is."""
    streams: Streams | None = None


class PackedLayer(msgspec.Struct, frozen=True, kw_only=True):
    """One layer, durable in the blob store or elsewhere."""

    media_type: str
    digest: str
    size: int
    diff_id: str
    annotations: Mapping[str, str]
    reused: bool
    repository: str | None = None
    """Where it is if it never was in the store, as `registry/name`."""
    arrived: bool = True
    """False where it was sent there, and nobody knows yet whether it came."""


class Known(msgspec.Struct, frozen=True, tag="known"):
    """Answers `Planned`: the layers of these keys that need not be built."""

    layers: Mapping[str, PackedLayer]


class ParentKit(msgspec.Struct, frozen=True):
    """A kit that a project's kit builds on: its reference, and its config as JSON."""

    reference: str
    config: str


class Parents(msgspec.Struct, frozen=True, tag="parents"):
    """Answers `Referred`: the kit that is referred to and those it builds on, nearest first."""

    kits: tuple[ParentKit, ...]


Order = ScanOrder | PackOrder


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """The directory a scan begins in; before anything else."""

    device: int
    inode: int


class WatchedPart(msgspec.Struct, frozen=True, tag="watched_part"):
    """Some of the directories a scan entered; more follow.

    The daemon takes a moment for each, and must not stop for hundreds of thousands at once.
    """

    descriptors: tuple[int, ...]


class Watched(msgspec.Struct, frozen=True, kw_only=True, tag="watched"):
    """The last of the directories a scan entered, by the descriptors of their watches.

    Comes before the scan's answer, also where it fails.
    """

    descriptors: tuple[int, ...]
    complete: bool
    """Whether these and the parts before are all: a scan that failed may not have come to all."""
    refused: int | None
    """The errno of the first directory that could not be watched."""
    remote: str | None
    """A file system that keeps quiet about what other machines change, as `type on path`."""


class Planned(msgspec.Struct, frozen=True, tag="planned"):
    """Asks which layers exist: a key is a layer's whole input in one word. `Known` answers."""

    keys: tuple[str, ...]


class Referred(msgspec.Struct, frozen=True, tag="referred"):
    """Asks for the kit that a Kitfile refers to. `Parents` answers, or `Failed`."""

    reference: str
    authors: tuple[int, ...]
    """Users who may have written that Kitfile, by number; with `ANYBODY` not these alone."""


class Advanced(msgspec.Struct, frozen=True, tag="advanced"):
    """How far a pack is."""

    done_bytes: int
    total_bytes: int


class Streaming(msgspec.Struct, frozen=True, kw_only=True, tag="streaming"):
    """The bytes of a layer are about to come through a named pipe, once it is open for reading.

    They are the layer only if a `Built` says so after their end.
    """

    key: str
    pipe: str
    digest: str | None
    size: int | None
    least_size: int = 0
    """What it will have at least."""


class Built(msgspec.Struct, frozen=True, tag="built"):
    """A layer is done; its key, unless its files may yet change without showing it."""

    key: str | None
    layer: PackedLayer
    pipe: str | None = None
    """What it came through, if it is not in the store."""


class Scanned(msgspec.Struct, frozen=True, kw_only=True, tag="scanned"):
    """The state of a project's inputs in one word; equal words mean equal inputs."""

    fingerprint: str
    glance: Glance | None
    """None where a file is so new that it may change without showing it."""
    is_racy: bool
    """Whether it is a file that a layer takes: look again."""
    holds: tuple[Hold, ...]
    warnings: tuple[str, ...]


class Packed(msgspec.Struct, frozen=True, kw_only=True, tag="packed"):
    """Everything of a kit but its manifest."""

    config_digest: str
    config_size: int
    layers: tuple[PackedLayer, ...]
    fingerprint: str
    glance: Glance | None
    model_name: str
    author: str
    package_version: str | None
    git_commit: str | None
    warnings: tuple[str, ...]
    sent_bytes: int = 0
    """What of the layers went elsewhere just now."""
    parents: tuple[str, ...] = ()
    """References to the kits that it builds on, the nearest first."""


class Unchanged(msgspec.Struct, frozen=True, kw_only=True, tag="unchanged"):
    """The known glance still holds, and so does all that is known with it but this."""

    git_commit: str | None = None
    holds: tuple[Hold, ...] = ()
    warnings: tuple[str, ...] = ()


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """An error of the worker's side, as the daemon raises it again."""

    code: str
    message: str
    hint: str | None
    disposition: str


Answer = Scanned | Packed | Unchanged | Failed
"""What ends an order."""
Notice = Opened | WatchedPart | Watched | Planned | Referred | Advanced | Streaming | Built
"""What comes before that."""
Reply = Known | Parents | Failed
"""What the daemon says to a notice that asks."""


class WorkerError(KitdError):
    """A failure that a worker reported; code and disposition are its own."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message, hint=failed.hint)
        self.code = failed.code  # type: ignore[misc]  # the worker's class is not this one's
        self.disposition = Disposition(failed.disposition)  # type: ignore[misc]  # as above


def failed(error: KitdError) -> Failed:
    """Return an error in the form that crosses the pipe."""
    return Failed(error.code, error.message, error.hint, error.disposition)
