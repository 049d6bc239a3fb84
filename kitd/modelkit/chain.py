"""Kits that build on others: `model.path`, or a dataset's `remotePath`, names another ModelKit.

A parent is named as its author wrote it, and nothing of it is in the child: whoever packs, pulls or
unpacks the child follows the chain. It is followed in small steps here, each of which says whether
the next may be taken, and somebody else does the looking up.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from kitd.errors import KitdError
from kitd.modelkit.filter import Filter, FilterType
from kitd.modelkit.kitfile import Kitfile, Model, Package, layer_entries
from kitd.modelkit.path import clean_path
from kitd.oci.digest import Digest
from kitd.oci.reference import Reference, parse_reference

MAX_PARENTS = 10
"""Kits in a chain above the one that it begins with; `kit` has the same limit."""


class ReferenceCycleError(KitdError):
    """A kit builds on itself, by way of others or at once."""

    code = "reference_cycle"


class TooManyParentsError(KitdError):
    """A kit builds on more kits, one above the other, than are followed."""

    code = "too_many_parents"


@dataclass(frozen=True, slots=True)
class Trail:
    """The way from a kit up to one of those it builds on. `names` are in their one spelling."""

    names: tuple[str, ...] = ()
    digests: tuple[Digest, ...] = ()
    parents: int = 0

    @classmethod
    def begin(cls, names: Iterable[Reference] = (), digest: Digest | None = None) -> "Trail":
        """Return the trail that begins with a kit of these names, or with one that has none yet."""
        digests = () if digest is None else (digest,)
        return cls(tuple(str(name.with_default_tag()) for name in names), digests)

    def to(self, reference: Reference) -> "Trail":
        """Return the trail with one kit more, of which nothing but its name is known.

        Raises `ReferenceCycleError`, `TooManyParentsError`.
        """
        name = str(reference.with_default_tag())
        if name in self.names:
            raise _cycle((*self.names[self.names.index(name) :], name))
        if self.parents == MAX_PARENTS:
            raise TooManyParentsError(
                f"more than {MAX_PARENTS} kits build on each other from {self.names[0]} on;"
                f" the next is {name}",
                hint="pack a kit that has the model itself",
            )
        return replace(self, names=(*self.names, name), parents=self.parents + 1)

    def at(self, digest: Digest) -> "Trail":
        """Return the trail, now that the last kit was found. Raises `ReferenceCycleError`.

        A kit has as many names as somebody gave it: what it is tells whether it was met before.
        """
        if digest in self.digests:
            raise _cycle((*self.names, digest))
        return replace(self, digests=(*self.digests, digest))


def require_no_cycle(names: Iterable[Reference], parents: Sequence[str]) -> None:
    """Check that a kit may get these names: none is one of those it builds on.

    Raises `ReferenceCycleError`.
    """
    for name in names:
        trail = Trail.begin([name])
        for parent in parents:
            trail = trail.to(parse_reference(parent))


def _cycle(names: Sequence[str]) -> ReferenceCycleError:
    return ReferenceCycleError(
        f"the references of these kits lead back to where they began: {' => '.join(names)}",
        hint="let one of them have the model itself, or refer to another kit",
    )


def of_parent(filters: Sequence[Filter]) -> tuple[Filter, ...] | None:
    """Return what filters of a kit take of its parent: the model only. None is nothing at all."""
    if not filters:
        return (Filter(frozenset({FilterType.MODEL})),)
    kept = tuple(
        replace(chosen, types=frozenset({FilterType.MODEL}))
        for chosen in filters
        if FilterType.MODEL in chosen.types
    )
    return kept or None


DATASETS_ONLY = (Filter(frozenset({FilterType.DATASETS})),)
"""What is taken of a kit that a remote dataset names."""


def filter_text(chosen: Filter) -> str:
    """Return a filter as `parse_filter` reads it."""
    types = ",".join(sorted(chosen.types))
    return f"{types}:{','.join(sorted(chosen.names))}" if chosen.names else types


def merge(kitfile: Kitfile, parents: Sequence[Kitfile]) -> Kitfile:
    """Return a Kitfile together with its parents, the nearest first.

    Of what is one value the nearest that has it wins; lists follow each other; the model's path is
    that of the last. Its licence, format and parameters are not taken from parents.
    """
    merged = kitfile
    for parent in parents:
        merged = _merge(merged, parent)
    return merged


def _merge(near: Kitfile, far: Kitfile) -> Kitfile:
    return Kitfile(
        manifest_version=near.manifest_version or far.manifest_version,
        package=_merge_package(near.package, far.package),
        model=_merge_model(near.model or Model(), far.model or Model()),
        code=near.code + far.code,
        datasets=near.datasets + far.datasets,
        docs=near.docs + far.docs,
        prompts=near.prompts + far.prompts,
        mcp_servers=near.mcp_servers + far.mcp_servers,
    )


def _merge_package(near: Package, far: Package) -> Package:
    return Package(
        name=near.name or far.name,
        version=near.version or far.version,
        description=near.description or far.description,
        license=near.license or far.license,
        authors=near.authors + far.authors,
    )


def _merge_model(near: Model, far: Model) -> Model:
    return replace(
        near,
        name=near.name or far.name,
        path=far.path,
        framework=near.framework or far.framework,
        version=near.version or far.version,
        description=near.description or far.description,
        parts=near.parts + far.parts,
        digest=far.digest,
        diff_id=far.diff_id,
    )


def layer_paths(parents: Iterable[Kitfile]) -> tuple[str, ...]:
    """Return the cleaned paths of all layers of some kits, sorted, each once."""
    paths = {clean_path(place.entry.path) for kit in parents for place in layer_entries(kit)}
    return tuple(sorted(paths))
