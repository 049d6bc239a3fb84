"""`kits.import`: kits that are made of what a hub or a git repository has."""

from typing import Literal
from urllib.parse import unquote, urlsplit

from kitd.blocking import run_blocking
from kitd.hub.git_source import Source, git_source, is_git_address
from kitd.hub.tree import hub_source
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
from kitd.rpc.methods.access import require_reachable, require_source
from kitd.rpc.methods.ask import ask
from kitd.rpc.methods.idempotency import Idempotent
from kitd.rpc.methods.services import Services
from kitd.rpc.methods.wire import Queued
from kitd.rpc.peer import Role

MAX_PATTERN_CHARS = 256


class ImportParams(Idempotent, frozen=True, kw_only=True):
    """A repository of the hub: `org/name`, `datasets/org/name`, its address there; or one of git.

    The address says which, unless `tool` does. `kitfile` is the text of a Kitfile; without it that
    of a git repository is used, or one is generated. `reference` may be `repository:tag,tag`;
    without it the kit is called like the repository, in lower case.
    """

    source: str
    tool: Literal["hf", "git"] | None = None
    revision: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    kitfile: str | None = None
    reference: str | None = None
    push: bool = False


async def import_kit(context: Context[Services], params: ImportParams) -> Queued:
    """Make a kit of a model or a dataset of the hub, or of a git repository."""
    source = _source(params, context.services.hub_endpoint())
    require_source(context, source)
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
        await run_blocking(parse_kitfile, params.kitfile.encode("utf-8", "replace"))
    reference, more = _reference(source, params.reference)
    if params.push and reference.repository.is_local:
        raise InvalidParamsError(
            f"{reference} names no registry to push to",
            hint=f"name one with -t, such as registry.example.com/{reference.repository.name}",
        )
    if params.push:
        require_reachable(context, reference.repository)
    fact = ImportAsked(
        source=source,
        include=params.include,
        exclude=params.exclude,
        kitfile=params.kitfile,
        repository=reference.repository,
        tags=tuple(dict.fromkeys((reference.tag or DEFAULT_TAG, *more))),
        push=params.push,
        asker=context.peer.uid,
    )
    return await ask(context, fact)


def _source(params: ImportParams, endpoint: str) -> Source:
    """Return what is to be imported. Raises `KitdError`, which repeats no password."""
    text, revision = params.source, params.revision
    if params.tool == "git" or (params.tool is None and is_git_address(text)):
        return git_source(text, revision)
    if "://" not in text:
        return hub_source(text, revision)
    name = _name_at_hub(text, endpoint)
    if name is not None:
        repository, _, named = name.partition("/tree/")
        return hub_source(repository, revision or named.strip("/") or None)
    if params.tool == "hf":
        raise InvalidParamsError(
            f"this is not a repository of the hub {endpoint}",
            hint="set hub.endpoint, or HF_ENDPOINT in kitd's environment, to another hub",
        )
    return git_source(text, revision)


def _name_at_hub(address: str, endpoint: str) -> str | None:
    """Return what an address names at the hub; None where it leads elsewhere."""
    try:
        url, hub = urlsplit(address), urlsplit(endpoint)
    except ValueError:
        raise InvalidParamsError("this is not the address of a repository") from None
    if url.netloc.lower() != hub.netloc.lower() or url.query:
        return None
    return unquote(url.path).removeprefix(unquote(hub.path).rstrip("/")).strip("/")


def _reference(source: Source, text: str | None) -> tuple[Reference, tuple[str, ...]]:
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
