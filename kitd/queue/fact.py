"""What has become the case and may ask for work: the input of `kitd.triggers`.

The watcher, people, and finished jobs state facts; one pure function says which jobs follow.
"""

from dataclasses import dataclass

from kitd.caller import Caller
from kitd.hub.git_source import Source
from kitd.mirror.order import AS_USUAL, MirrorOrder, MirrorWish
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.reference import Reference, Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class PackSource:
    """What is packed and where to: a project, or a directory that a person named."""

    project: str | None
    path: str
    kitfile: str | None
    repository: Repository
    tags: tuple[str, ...]
    """Tag templates."""
    push: bool
    compression: str | None = None
    """None is what the configuration says."""
    layer_format: str | None = None
    """As `compression`."""
    model_pack: bool | None = None
    """Whether it is a ModelPack and no ModelKit; None as `compression`."""
    source_date_epoch: int | None = None
    """Seconds, instead of the time."""
    reader: Caller | None = None
    """Who asked, where nothing is to be read that he could not read."""


@dataclass(frozen=True, slots=True)
class ProjectSettled:
    """A project's inputs differ from its last kit's and are at rest in this state."""

    source: PackSource
    fingerprint: str


@dataclass(frozen=True, slots=True)
class PackAsked:
    """A person wants a directory packed."""

    source: PackSource


@dataclass(frozen=True, slots=True, kw_only=True)
class KitPacked:
    """A pack ended in a kit that is in the cache under these tags."""

    project: str | None
    repository: Repository
    target: Descriptor
    tags: tuple[str, ...]
    push: bool
    priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PushAsked:
    """A person wants a kit of the cache in a registry."""

    source: Repository
    digest: Digest
    target: Repository
    tags: tuple[str, ...]
    parents: tuple[str, ...] = ()
    """Globs of where the kits it builds on may be looked for, and pushed to."""
    with_parents: bool = False


@dataclass(frozen=True, slots=True)
class PullAsked:
    """A person wants a kit in the cache, or what `filters` select of it.

    `parents` are globs of where the kits it builds on may come from.
    """

    reference: Reference
    filters: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportAsked:
    """A person wants a repository as a kit; `kitfile` is the text of its Kitfile."""

    source: Source
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    kitfile: str | None
    repository: Repository
    tags: tuple[str, ...]
    push: bool
    asker: int


@dataclass(frozen=True, slots=True)
class CacheCrowded:
    """The cache takes so many bytes more than its limits allow, or a disk is full."""

    excess_bytes: int


@dataclass(frozen=True, slots=True)
class CollectAsked:
    """A person wants room in the cache."""


@dataclass(frozen=True, slots=True)
class VerifyAsked:
    """A person wants to know whether the cache is what it should be."""

    repair: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryChanged:
    """Something may have changed in a repository of a registry; where it is `whole`, anything."""

    repository: Repository
    whole: bool = False
    tags: tuple[str, ...] = ()
    manifests: tuple[Digest, ...] = ()
    """Of those that came without a tag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorDue:
    """A mirror of the configuration is to look at all that it mirrors."""

    rule: str
    wish: MirrorWish = AS_USUAL
    by_person: bool = False


@dataclass(frozen=True, slots=True)
class MirrorAsked:
    """A person wants one repository mirrored, and names both ends."""

    order: MirrorOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoriesFound:
    """A registry told which of its repositories a mirror concerns."""

    rule: str
    repositories: tuple[Repository, ...]
    wish: MirrorWish
    priority: int


KitFact = (
    ProjectSettled
    | PackAsked
    | KitPacked
    | PushAsked
    | PullAsked
    | ImportAsked
    | CacheCrowded
    | CollectAsked
    | VerifyAsked
)
MirrorFact = RepositoryChanged | MirrorDue | MirrorAsked | RepositoriesFound
Fact = KitFact | MirrorFact
