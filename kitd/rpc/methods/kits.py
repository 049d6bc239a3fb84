"""`kits.pack`, `kits.push` and `kits.pull`: kits that are made and moved."""

from typing import Annotated

import msgspec

from kitd.config.tag_template import parse_tag_template
from kitd.modelkit.filter import parse_filter
from kitd.modelkit.media_type import MEDIA_COMPRESSION, LayerFormat
from kitd.oci.reference import (
    DEFAULT_TAG,
    parse_reference,
    parse_tagged,
)
from kitd.queue.fact import PackAsked, PackSource, PullAsked, PushAsked
from kitd.rpc.error import InvalidParamsError
from kitd.rpc.method import Context, Method, method
from kitd.rpc.methods.access import reach, require_directory, require_kitfile, require_reachable
from kitd.rpc.methods.ask import ask
from kitd.rpc.methods.idempotency import Idempotent
from kitd.rpc.methods.services import Services
from kitd.rpc.methods.wire import Queued
from kitd.rpc.peer import Role

MAX_EPOCH_S = 253_402_300_799
"""The last second of the year 9999, after which RFC 3339 has no years."""


class PackParams(Idempotent, frozen=True, kw_only=True):
    """A directory and what its kit is called: `reference` may be `repository:tag,tag`.

    `model_pack` makes a CNCF ModelPack and no ModelKit; `source_date_epoch` are the seconds that
    stand in for the time. What is not given is as the configuration says.
    """

    path: str
    reference: str
    tags: tuple[str, ...] = ()
    kitfile: str | None = None
    compression: str | None = None
    layer_format: LayerFormat | None = None
    model_pack: bool | None = None
    source_date_epoch: Annotated[int, msgspec.Meta(ge=0, le=MAX_EPOCH_S)] | None = None
    push: bool = False


class PushParams(Idempotent, frozen=True, kw_only=True):
    """A kit of the cache, and another name for it if it is not to keep its own.

    With `with_parents` the kits it builds on go along, each to its own repository, where they are
    not there yet; without, the job only notes which are not.
    """

    reference: str
    target: str | None = None
    with_parents: bool = False


class PullParams(Idempotent, frozen=True, kw_only=True):
    """A kit in a registry; with `filters` only the layers that they select are fetched.

    The kits it builds on come along, unless it is to be without `parents`.
    """

    reference: str
    filters: tuple[str, ...] = ()
    parents: bool = True


async def pack(context: Context[Services], params: PackParams) -> Queued:
    """Pack a directory."""
    reference, more = parse_tagged(params.reference)
    if params.compression is not None and params.compression not in MEDIA_COMPRESSION:
        known = ", ".join(MEDIA_COMPRESSION)
        raise InvalidParamsError(f"unknown compression {params.compression[:40]!r}: use {known}")
    for tag in params.tags:
        parse_tag_template(tag)
    source = PackSource(
        project=None,
        path=params.path,
        kitfile=require_kitfile(context, params.kitfile),
        repository=reference.repository,
        tags=tuple(dict.fromkeys((reference.tag or DEFAULT_TAG, *more, *params.tags))),
        push=params.push,
        compression=params.compression,
        layer_format=params.layer_format,
        model_pack=params.model_pack,
        source_date_epoch=params.source_date_epoch,
        reader=await require_directory(context, params.path),
    )
    if source.push and source.repository.is_local:
        raise InvalidParamsError(
            f"{params.reference} names no registry to push to",
            hint=f"name one, such as registry.example.com/{source.repository.name}",
        )
    if source.push:
        require_reachable(context, source.repository)
    return await ask(context, PackAsked(source))


async def push(context: Context[Services], params: PushParams) -> Queued:
    """Push a kit of the cache to a registry."""
    source = parse_reference(params.reference).with_default_tag()
    target = source if params.target is None else parse_reference(params.target)
    if target.repository.is_local:
        raise InvalidParamsError(
            f"{target} names no registry to push to",
            hint=f"kitctl push {source} registry.example.com/{target.repository.name}",
        )
    require_reachable(context, target.repository)
    root = await context.services.catalog.resolve(source.repository, source.identifier)
    tag = target.tag if target.tag or target.digest else source.tag
    fact = PushAsked(
        source=source.repository,
        digest=root.digest,
        target=target.repository,
        tags=() if tag is None else (tag,),
        parents=reach(context),
        with_parents=params.with_parents,
    )
    return await ask(context, fact)


async def pull(context: Context[Services], params: PullParams) -> Queued:
    """Pull a kit into the cache."""
    reference = parse_reference(params.reference)
    if reference.repository.is_local:
        raise InvalidParamsError(
            f"{reference} names no registry to pull from",
            hint=f"name one, such as registry.example.com/{reference.repository.name}",
        )
    require_reachable(context, reference.repository)
    for text in params.filters:
        parse_filter(text)
    parents = reach(context) if params.parents else ()
    return await ask(context, PullAsked(reference, params.filters, parents))


METHODS: tuple[Method[Services], ...] = (
    method("kits.pack", Role.SUBMIT, PackParams, Queued, pack, takes_descriptor=True),
    method("kits.push", Role.SUBMIT, PushParams, Queued, push),
    method("kits.pull", Role.SUBMIT, PullParams, Queued, pull),
)
