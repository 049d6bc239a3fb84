"""`kits.list`, `kits.inspect` and `kits.info`: what kits there are and what is in them."""

import msgspec

from kitd.blocking import run_blocking
from kitd.content.store import Fetcher
from kitd.content.verify import read
from kitd.modelkit.config_blob import MAX_CONFIG_BYTES, to_document
from kitd.modelkit.errors import UnsupportedKitError
from kitd.modelkit.kit import Kit, read_kit
from kitd.modelkit.manifest import CLI_VERSION
from kitd.modelkit.media_type import kit_format
from kitd.modelkit.yaml_writer import kitfile_to_yaml
from kitd.oci.descriptor import Descriptor
from kitd.oci.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from kitd.oci.reference import (
    Reference,
    parse_reference,
    parse_repository,
)
from kitd.rpc.fairness import Cost
from kitd.rpc.method import Context, Method, Params, method
from kitd.rpc.methods.access import require_reachable
from kitd.rpc.methods.services import Services
from kitd.rpc.methods.wire import Facts
from kitd.rpc.peer import Role


class Repository(Params, frozen=True):
    """One repository, or all."""

    repository: str | None = None


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


class Inspection(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A kit's manifest and Kitfile; `notes` are what a person should know who trusts in them."""

    digest: str
    cli_version: str
    kitfile: Facts
    manifest: msgspec.Raw
    notes: tuple[str, ...]


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """A kit's Kitfile, as data and as YAML; `notes` as in `Inspection`."""

    digest: str
    kitfile: Facts
    yaml: str
    notes: tuple[str, ...]


async def list_kits(context: Context[Services], params: Repository) -> KitList:
    """List the kits in the cache."""
    repository = None if params.repository is None else parse_repository(params.repository)
    kits = await context.services.catalog.kits(repository)
    return KitList(
        tuple(
            WireKit(
                repo=str(Reference(kit.repository)),
                digest=kit.digest,
                tags=kit.tags,
                model_name=kit.model_name,
                size=kit.layer_bytes,
                author=kit.author,
            )
            for kit in kits
        )
    )


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
    content = await read(source, target, max_bytes=MAX_MANIFEST_BYTES)
    manifest = await run_blocking(parse_manifest, content, target.media_type)
    if manifest.config is None or kit_format(manifest) is None:
        raise UnsupportedKitError(
            f"{target.digest} is not a ModelKit but {manifest.artifact_type or target.media_type}"
        )
    config = await read(source, manifest.config, max_bytes=MAX_CONFIG_BYTES)
    return content, manifest, await run_blocking(read_kit, manifest, config)


async def inspect(context: Context[Services], params: Which) -> Inspection:
    """Show a kit's manifest and config."""
    source, target = await find(context, params.reference, remote=params.remote)
    content, manifest, kit = await open_kit(source, target)
    return Inspection(
        digest=target.digest,
        cli_version=manifest.annotations.get(CLI_VERSION, "unknown"),
        kitfile=to_document(kit.kitfile),
        manifest=msgspec.Raw(content),
        notes=kit.notes,
    )


async def info(context: Context[Services], params: Which) -> Info:
    """Show a kit's Kitfile."""
    source, target = await find(context, params.reference, remote=params.remote)
    _, _, kit = await open_kit(source, target)
    yaml = await run_blocking(kitfile_to_yaml, kit.kitfile)
    document = to_document(kit.kitfile)
    return Info(digest=target.digest, kitfile=document, yaml=yaml, notes=kit.notes)


METHODS: tuple[Method[Services], ...] = (
    method("kits.list", Role.READ, Repository, KitList, list_kits, cost=Cost.LEDGER),
    method("kits.inspect", Role.READ, Which, Inspection, inspect),
    method("kits.info", Role.READ, Which, Info, info),
)
