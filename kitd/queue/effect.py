"""What a finished job changes, as values: applied by the ledger in the transaction that ends it.

A job kind decides and returns effects; only the ledger knows how they are written. So a result and
its consequences are durable together, or not at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.manifest import Manifest
from kitd.oci.reference import Reference, Repository


@dataclass(frozen=True, slots=True)
class KitSummary:
    """What `list` shows about a ModelKit besides its names, and what it needs besides itself."""

    model_name: str = ""
    author: str = ""
    content_key: str | None = None
    """Equal for equal content, whatever its created time: see `kitd.modelkit.manifest`."""
    parent: Reference | None = None
    """The kit that it builds on, with a tag or a digest."""


@dataclass(frozen=True, slots=True)
class RecordManifest:
    """The cache holds this manifest and everything below it, known in `repository`.

    Everything but what a `RecordElsewhere` beside it names.
    """

    repository: Repository
    target: Descriptor
    manifest: Manifest
    kit: KitSummary | None = None


@dataclass(frozen=True, slots=True)
class NoteParent:
    """A recorded manifest was looked at for the kit that it builds on; None for none."""

    manifest: Digest
    parent: Reference | None


@dataclass(frozen=True, slots=True)
class MoveTags:
    """Let tags of a repository name a recorded manifest."""

    repository: Repository
    tags: tuple[str, ...]
    digest: Digest


@dataclass(frozen=True, slots=True)
class FollowTags:
    """Let tags name a recorded manifest, but for those that do not name `former` any more.

    None is that there was no such tag. Nobody asked for these by name: who moved one meanwhile did.
    """

    repository: Repository
    tags: tuple[str, ...]
    digest: Digest
    former: Digest | None


@dataclass(frozen=True, slots=True)
class RecordLocation:
    """A repository of a registry holds this recorded manifest and everything below it."""

    digest: Digest
    repository: Repository


@dataclass(frozen=True, slots=True)
class RecordElsewhere:
    """Blobs that a recorded manifest needs were not put into the cache: a repository has them."""

    manifest: Digest
    blobs: tuple[Digest, ...]
    repository: Repository


@dataclass(frozen=True, slots=True)
class RecordPack:
    """A project's inputs with this fingerprint are what the kit holds."""

    project: str
    fingerprint: str
    digest: Digest
    version: str
    """Names the content and where it was to go: equal ones are no new version."""


@dataclass(frozen=True, slots=True)
class Emit:
    """An event that people and programs may follow."""

    type: str
    subject: str
    data: Mapping[str, object] = field(default_factory=dict)


Effect = (
    RecordManifest
    | NoteParent
    | RecordLocation
    | RecordElsewhere
    | MoveTags
    | FollowTags
    | RecordPack
    | Emit
)
