"""`kits.list`, `kits.inspect` and `kits.info`: what kits there are and what is in them."""

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from kitd.blocking import run_blocking
from kitd.content.store import ContentError, Fetcher
from kitd.content.verify import read, read_whole_manifest
from kitd.errors import NotFoundError
from kitd.modelkit.config_blob import MAX_CONFIG_BYTES, to_document
from kitd.modelkit.errors import InvalidConfigError, UnsupportedKitError
from kitd.modelkit.filter import Filter, parse_filter, selection, selects_kitfile
from kitd.modelkit.kit import Kit, config_of, read_kit
from kitd.modelkit.kitfile import Kitfile, layer_entries
from kitd.modelkit.kitfile_path import find_in_kitfile
from kitd.modelkit.manifest import CLI_VERSION
from kitd.modelkit.yaml_writer import kitfile_to_yaml, value_to_yaml, without_digests
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.manifest import (
    InvalidManifestError,
    Manifest,
)
from kitd.oci.reference import (
    Reference,
    parse_reference,
    parse_repository,
)
from kitd.rpc.error import InvalidParamsError
from kitd.rpc.fairness import Cost
from kitd.rpc.method import Context, Method, Params, method
from kitd.rpc.methods.access import require_reachable
from kitd.rpc.methods.services import Services
from kitd.rpc.peer import Role

MAX_FILTERS = 64
NOT_A_KIT = (
    UnsupportedKitError,
    InvalidConfigError,
    InvalidManifestError,
    NotFoundError,
)
"""What a manifest is of that is listed and is no kit, or is none any more."""


class Repository(Params, frozen=True):
    """One repository, or all; with `filters` the kits that have what one of them selects."""

    repository: str | None = None
    filters: tuple[str, ...] = ()


class WireKit(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One kit of one repository; `size` is that of its layers."""

    repo: str
    digest: str
    tags: tuple[str, ...]
    model_name: str
    size: int
    author: str


class KitList(msgspec.Struct, frozen=True):
    """Kits by repository, newest first."""

    kits: tuple[WireKit, ...]


class Which(Params, frozen=True):
    """One kit, in the cache or in its registry."""

    reference: str
    remote: bool = False


class InfoParams(Which, frozen=True):
    """One kit, and what of its Kitfile is wanted, by a path: `.model.parts[0].path`."""

    filter: str | None = None


class Inspection(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A kit's manifest and Kitfile; `notes` are what a person should know who trusts in them."""

    digest: str
    cli_version: str
    kitfile: msgspec.Raw
    manifest: msgspec.Raw
    notes: tuple[str, ...]


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """A kit's Kitfile, as data and as YAML; `notes` as in `Inspection`.

    With a filter `value` is what its path leads to, `yaml` is that as text, and there is no
    `kitfile`: of one that is too large for an answer parts can be had.
    """

    digest: str
    yaml: str
    notes: tuple[str, ...]
    kitfile: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


async def list_kits(context: Context[Services], params: Repository) -> KitList:
    """List the kits in the cache."""
    filters = parse_filters(params.filters)
    repository = None if params.repository is None else parse_repository(params.repository)
    kits = await context.services.catalog.kits(repository)
    return KitList(
        tuple(
            [
                WireKit(
                    repo=str(Reference(kit.repository)),
                    digest=kit.digest,
                    tags=kit.tags,
                    model_name=kit.model_name,
                    size=kit.layer_bytes,
                    author=kit.author,
                )
                for kit in kits
                if not filters or await _is_selected(context.services, kit.digest, filters)
            ]
        )
    )


def parse_filters(texts: Sequence[str]) -> tuple[Filter, ...]:
    """Read filters. Raises `InvalidFilterError`, `InvalidParamsError`."""
    if len(texts) > MAX_FILTERS:
        raise InvalidParamsError(f"at most {MAX_FILTERS} filters at once")
    return tuple(parse_filter(text) for text in texts)


def has_any(kitfile: Kitfile, filters: Sequence[Filter]) -> bool:
    """Whether a kit has anything that one of the filters selects; without filters all have.

    Takes its time for a large one: not for the event loop.
    """
    return selects_kitfile(filters) or any(map(selection(filters), layer_entries(kitfile)))


async def _is_selected(services: Services, digest: Digest, filters: Sequence[Filter]) -> bool:
    try:
        target = await services.catalog.manifest(digest)
        _, _, kit = await open_kit(services.cache, target)
    except (*NOT_A_KIT, ContentError):
        # One that cannot be read is no reason to show none.
        return False
    return await run_blocking(has_any, kit.kitfile, filters)


async def find(
    context: Context[Services], text: str, *, remote: bool
) -> tuple[Fetcher, Descriptor]:
    """Return where a kit is, the cache or its registry, and its manifest's descriptor."""
    services = context.services
    reference = parse_reference(text).with_default_tag()
    if not remote:
        target = await services.catalog.resolve(reference.repository, reference.identifier)
        return services.cache, target
    require_reachable(context, reference.repository)
    repository = await services.remote(reference.repository)
    return repository, await repository.resolve(reference.identifier)


async def open_kit(source: Fetcher, target: Descriptor) -> tuple[bytes, Manifest, Kit]:
    """Return a ModelKit's or ModelPack's manifest, raw and parsed, and what it says.

    Raises `UnsupportedKitError` for anything else, `InvalidConfigError`, and what `read` does.
    """
    content, manifest = await read_whole_manifest(source, target)
    described = config_of(manifest, target.digest)
    config = await read(source, described, max_bytes=MAX_CONFIG_BYTES)
    return content, manifest, await run_blocking(read_kit, manifest, config)


async def inspect(context: Context[Services], params: Which) -> Inspection:
    """Show a kit's manifest and config."""
    source, target = await find(context, params.reference, remote=params.remote)
    content, manifest, kit = await open_kit(source, target)
    return await run_blocking(_inspection, target, content, manifest, kit)


def _inspection(target: Descriptor, content: bytes, manifest: Manifest, kit: Kit) -> Inspection:
    return Inspection(
        digest=target.digest,
        cli_version=manifest.annotations.get(CLI_VERSION, "unknown"),
        kitfile=_encoded(to_document(kit.kitfile)),
        # As its author wrote it, but for the white space: a message is one line.
        manifest=msgspec.Raw(msgspec.json.format(content, indent=-1)),
        notes=kit.notes,
    )


async def info(context: Context[Services], params: InfoParams) -> Info:
    """Show a kit's Kitfile, or a part of it."""
    source, target = await find(context, params.reference, remote=params.remote)
    _, _, kit = await open_kit(source, target)
    return await run_blocking(_info, target, kit, params.filter)


def _info(target: Descriptor, kit: Kit, path: str | None) -> Info:
    document = to_document(kit.kitfile)
    if path is None:
        yaml = kitfile_to_yaml(kit.kitfile)
        kitfile = _encoded(document)
        return Info(digest=target.digest, kitfile=kitfile, yaml=yaml, notes=kit.notes)
    value = shown = find_in_kitfile(document, path)
    # As text, without the digests; unless one is asked for.
    with suppress(NotFoundError):
        shown = find_in_kitfile(without_digests(document), path)
    return Info(
        digest=target.digest, yaml=value_to_yaml(shown), notes=kit.notes, value=_encoded(value)
    )


def _encoded(value: object) -> msgspec.Raw:
    """Return JSON that costs the event loop nothing more than to be copied."""
    return msgspec.Raw(msgspec.json.encode(value))


METHODS: tuple[Method[Services], ...] = (
    method("kits.list", Role.READ, Repository, KitList, list_kits, cost=Cost.LEDGER),
    method("kits.inspect", Role.READ, Which, Inspection, inspect),
    method("kits.info", Role.READ, InfoParams, Info, info),
)
