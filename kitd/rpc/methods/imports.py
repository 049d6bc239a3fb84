"""`kits.import`: kits that are made of what a hub has."""

from urllib.parse import unquote, urlsplit

from kitd.hub.tree import HubSource, hub_source
from kitd.jobs.import_kit import MAX_KITFILE_CHARS, MAX_PATTERNS
from kitd.modelkit.kitfile import parse_kitfile
from kitd.oci.reference import (
    DEFAULT_TAG,
    InvalidReferenceError,
    Reference,
    check_tag,
    parse_tagged,
)
from kitd.queue.fact import ImportAsked
from kitd.rpc.error import InvalidParamsError
from kitd.rpc.method import Context, Method, method
from kitd.rpc.methods.access import require_hub
from kitd.rpc.methods.ask import ask
from kitd.rpc.methods.idempotency import Idempotent
from kitd.rpc.methods.services import Services
from kitd.rpc.methods.wire import Queued
from kitd.rpc.peer import Role

MAX_PATTERN_CHARS = 256


class ImportParams(Idempotent, frozen=True, kw_only=True):
    """A repository of the hub: `org/name`, `datasets/org/name`, or its address there.

    `kitfile` is the text of a Kitfile; without it one is generated. `reference` may be
    `repository:tag,tag`; without it the kit is called like the repository, in lower case.
    """

    source: str
    revision: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    kitfile: str | None = None
    reference: str | None = None


async def import_kit(context: Context[Services], params: ImportParams) -> Queued:
    """Make a kit of a model or a dataset of the hub."""
    source = _source(params, context.services.hub_endpoint())
    require_hub(context, source)
    patterns = (*params.include, *params.exclude)
    if len(patterns) > MAX_PATTERNS or any(
        not 0 < len(each) <= MAX_PATTERN_CHARS for each in patterns
    ):
        raise InvalidParamsError(
            f"at most {MAX_PATTERNS} patterns, each of 1 to {MAX_PATTERN_CHARS} characters"
        )
    if params.kitfile is not None:
        if len(params.kitfile) > MAX_KITFILE_CHARS:
            raise InvalidParamsError(f"the Kitfile has more than {MAX_KITFILE_CHARS} characters")
        parse_kitfile(params.kitfile.encode("utf-8", "replace"))
    reference, more = _reference(source, params.reference)
    fact = ImportAsked(
        source=source,
        include=params.include,
        exclude=params.exclude,
        kitfile=params.kitfile,
        repository=reference.repository,
        tags=tuple(dict.fromkeys((reference.tag or DEFAULT_TAG, *more))),
        asker=context.peer.uid,
    )
    return await ask(context, fact)


def _source(params: ImportParams, endpoint: str) -> HubSource:
    """Return what is to be imported. Raises `InvalidParamsError`, `InvalidHubTreeError`."""
    text, revision = params.source, params.revision
    if "://" in text:
        try:
            url, hub = urlsplit(text), urlsplit(endpoint)
        except ValueError:
            raise InvalidParamsError(f"{text[:120]!r} is not the address of a repository") from None
        if url.netloc.lower() != hub.netloc.lower() or url.query:
            raise InvalidParamsError(
                f"{text[:120]} is not a repository of the hub {endpoint}",
                hint="set hub.endpoint, or HF_ENDPOINT in kitd's environment, to another hub",
            )
        path = unquote(url.path).removeprefix(unquote(hub.path).rstrip("/")).strip("/")
        text, _, named = path.partition("/tree/")
        revision = revision or named.strip("/") or None
    return hub_source(text, revision)


def _reference(source: HubSource, text: str | None) -> tuple[Reference, tuple[str, ...]]:
    try:
        reference, more = parse_tagged(text or f"{source.repository.lower()}:{DEFAULT_TAG}")
    except InvalidReferenceError as error:
        if text is not None:
            raise
        raise InvalidParamsError(
            f"{source} is no name for a kit: {error.message}", hint="give it one with -t"
        ) from error
    if reference.digest is not None:
        raise InvalidParamsError("a kit that is yet to be made cannot be named by a digest")
    for tag in more:
        check_tag(tag)
    return reference, more


METHODS: tuple[Method[Services], ...] = (
    method("kits.import", Role.SUBMIT, ImportParams, Queued, import_kit),
)
