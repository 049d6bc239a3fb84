"""Looking up the kits that a kit builds on, one after the other: `kitd.modelkit.chain` judges."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from kitd.blocking import run_blocking
from kitd.content.store import Fetcher
from kitd.content.verify import read, read_manifest
from kitd.modelkit.chain import Trail
from kitd.modelkit.config_blob import MAX_CONFIG_BYTES
from kitd.modelkit.errors import InvalidConfigError, UnsupportedKitError
from kitd.modelkit.kit import Kit, config_of, read_kit
from kitd.modelkit.kitfile import Kitfile, model_reference
from kitd.oci.descriptor import Descriptor
from kitd.oci.manifest import Manifest
from kitd.oci.reference import Reference

Find = Callable[[Reference], Awaitable[tuple[Fetcher, Descriptor]]]
"""Finds the manifest of a kit, and where to read it. Raises `KitdError`."""


@dataclass(frozen=True, slots=True)
class Parent:
    """A kit that another builds on: what it is called there, and what that is now."""

    reference: Reference
    target: Descriptor
    kitfile: Kitfile


async def fetch_kit(source: Fetcher, target: Descriptor) -> tuple[Manifest, Kit]:
    """Return a kit's manifest and what it says. Raises `UnsupportedKitError`, what reading does."""
    manifest = await read_manifest(source, target)
    described = config_of(manifest, target.digest)
    config = await read(source, described, max_bytes=MAX_CONFIG_BYTES)
    return manifest, await run_blocking(read_kit, manifest, config)


async def parent_of(source: Fetcher, target: Descriptor) -> Reference | None:
    """Return what a manifest's kit refers to; None where it refers to nothing, or is no ModelKit.

    Raises what reading does.
    """
    try:
        _, kit = await fetch_kit(source, target)
    except (UnsupportedKitError, InvalidConfigError):
        # It is moved byte for byte and may be a newer tool's: what it says is just not known.
        return None
    reference = model_reference(kit.kitfile)
    return None if reference is None else reference.with_default_tag()


async def follow(reference: Reference | None, find: Find, trail: Trail) -> tuple[Parent, ...]:
    """Return the kits that are referred to, the nearest first; None refers to none.

    Raises `ReferenceCycleError`, `TooManyParentsError`, and what `find` and `fetch_kit` do.
    """
    parents: list[Parent] = []
    while reference is not None:
        reference = reference.with_default_tag()
        trail = trail.to(reference)
        source, target = await find(reference)
        trail = trail.at(target.digest)
        _, kit = await fetch_kit(source, target)
        parents.append(Parent(reference, target, kit.kitfile))
        reference = model_reference(kit.kitfile)
    return tuple(parents)
