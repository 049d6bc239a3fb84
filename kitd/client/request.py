"""What a client can ask: one function a method of the daemon, giving a typed request.

A request is data: `Client.call` and `AsyncClient.call` send the same ones and return what
`Request.read` makes of the answer. The methods that need more than a call and an answer
(subscriptions, descriptors) are methods of the clients.
"""

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar, Unpack

from kitd.client import record
from kitd.client.protocol import Document

T = TypeVar("T")


class Request(NamedTuple, Generic[T]):
    """A method, its parameters, and how its answer is read."""

    method: str
    params: Document
    read: Callable[[Any], T]
    directory: str | None = None
    """The client opens it and sends the descriptor along: whoever can open it may have it read."""


def _given(**params: Any) -> Document:
    """Leave out what was not given: the daemon has the defaults."""
    return {name: value for name, value in params.items() if value is not None}


def hello(client: str) -> Request[Document]:
    """Ask for the protocol, version, instance, epoch, the caller's role and the last event."""
    return Request("system.hello", {"client": client}, record.read_object)


def status() -> Request[record.Status]:
    """Ask for the daemon, its projects, its queue and its cache at a glance."""
    return Request("system.status", {}, record.read_status)


def doctor(*, audit: bool = False) -> Request[tuple[record.Check, ...]]:
    """Ask what is wrong and what mends it; with `audit` replay the history of every job."""
    return Request("system.doctor", _given(audit=audit or None), record.read_checks)


def why(subject: str) -> Request[Document]:
    """Ask why a project waits, a job ran or a blob is kept."""
    return Request("system.why", {"subject": subject}, record.read_object)


def list_jobs(
    *,
    state: str | None = None,
    kind: str | None = None,
    project: str | None = None,
    limit: int | None = None,
    before: int | None = None,
) -> Request[tuple[record.Job, ...]]:
    """Ask for jobs, newest first; `before` is the id to go on from."""
    params = _given(state=state, kind=kind, project=project, limit=limit, before=before)
    return Request("jobs.list", params, record.read_jobs)


def get_job(job: int) -> Request[record.Job]:
    """Ask for one job."""
    return Request("jobs.get", {"id": job}, record.read_job)


def wait_job(job: int, *, timeout_ms: int) -> Request[record.Job]:
    """Ask for a job once it has ended, or as it is after `timeout_ms`."""
    return Request("jobs.wait", {"id": job, "timeout_ms": timeout_ms}, record.read_job)


def cancel_job(job: int) -> Request[record.Job]:
    """Stop a job, or keep it from starting."""
    return Request("jobs.cancel", {"id": job}, record.read_job)


def retry_job(job: int) -> Request[record.Job]:
    """Run a failed job again."""
    return Request("jobs.retry", {"id": job}, record.read_job)


def log_job(job: int) -> Request[tuple[record.Event, ...]]:
    """Ask for all events of a job."""
    return Request("jobs.log", {"id": job}, record.read_events)


def read_events(
    *, from_seq: int | None = None, limit: int | None = None
) -> Request[record.EventPage]:
    """Ask for recorded events after `from_seq`."""
    return Request("events.read", _given(from_seq=from_seq, limit=limit), record.read_event_page)


def list_projects() -> Request[tuple[record.Project, ...]]:
    """Ask for all projects."""
    return Request("projects.list", {}, record.read_projects)


def add_project(
    name: str,
    path: str,
    reference: str,
    *,
    tags: Sequence[str] | None = None,
    push: bool | None = None,
    kitfile: str | None = None,
) -> Request[record.Project]:
    """Watch the directory `path`, absolute, from now on."""
    params = _given(
        name=name, path=path, reference=reference, tags=tags, push=push, kitfile=kitfile
    )
    return Request("projects.add", params, record.read_project, directory=path)


def remove_project(name: str) -> Request[Document]:
    """Watch a project no longer; its kits stay."""
    return Request("projects.remove", {"name": name}, record.read_object)


def rescan_project(name: str) -> Request[Document]:
    """Look at a project's files now instead of waiting for a hint."""
    return Request("projects.rescan", {"name": name}, record.read_object)


def hold_project(name: str) -> Request[record.Project]:
    """Pack a project no more until it is released."""
    return Request("projects.hold", {"name": name}, record.read_project)


def release_project(name: str) -> Request[record.Project]:
    """Let a held project be packed again."""
    return Request("projects.release", {"name": name}, record.read_project)


class PackOptions(TypedDict, total=False):
    """How a directory is packed; None leaves it to the daemon's configuration."""

    kitfile: str | None
    """Relative to the directory, or absolute."""
    compression: str | None
    layer_format: str | None
    """`tar`, or `raw`: each entry of the Kitfile is one file."""
    model_pack: bool | None
    """Whether to make a CNCF ModelPack instead of a ModelKit."""
    source_date_epoch: int | None
    """Seconds that stand in for the time."""
    push: bool | None


def pack(
    path: str,
    reference: str,
    *,
    idempotency_key: str | None = None,
    **options: Unpack[PackOptions],
) -> Request[record.Job]:
    """Pack the directory `path`, absolute, as `reference` (`repository:tag,tag...`)."""
    params = _given(
        path=path,
        reference=reference,
        idempotency_key=idempotency_key,
        **options,
    )
    return Request("kits.pack", params, record.read_started, directory=path)


def push(
    reference: str,
    target: str | None = None,
    *,
    with_parents: bool | None = None,
    idempotency_key: str | None = None,
) -> Request[record.Job]:
    """Copy a kit from the cache to its registry, or to `target`, and what it builds on if asked."""
    params = _given(
        reference=reference,
        target=target,
        with_parents=with_parents,
        idempotency_key=idempotency_key,
    )
    return Request("kits.push", params, record.read_started)


def pull(
    reference: str,
    filters: Sequence[str] = (),
    *,
    parents: bool | None = None,
    idempotency_key: str | None = None,
) -> Request[record.Job]:
    """Copy a kit from its registry to the cache; with filters only the layers that they select.

    The kits it builds on come along unless `parents` is false.
    """
    params = _given(
        reference=reference,
        filters=list(filters) or None,
        parents=parents,
        idempotency_key=idempotency_key,
    )
    return Request("kits.pull", params, record.read_started)


def list_kits(
    repository: str | None = None, *, filters: Sequence[str] = ()
) -> Request[tuple[record.Kit, ...]]:
    """Ask for the kits in the cache; with filters for those that have what one selects."""
    params = _given(repository=repository, filters=list(filters) or None)
    return Request("kits.list", params, record.read_kits)


def list_remote_kits(reference: str, *, filters: Sequence[str] = ()) -> Request[record.RemoteKits]:
    """Ask for the kits of a repository in its registry, or for one by its tag."""
    params = _given(reference=reference, filters=list(filters) or None)
    return Request("kits.list_remote", params, record.read_remote_kits)


def inspect_kit(reference: str, *, remote: bool = False) -> Request[Document]:
    """Ask for a kit's digest, manifest and configuration."""
    params = {"reference": reference, "remote": remote}
    return Request("kits.inspect", params, record.read_object)


def kit_info(reference: str, *, remote: bool = False, path: str | None = None) -> Request[Document]:
    """Ask for a kit's Kitfile, as an object and as YAML text, or only for what a path leads to."""
    params = _given(reference=reference, remote=remote, filter=path)
    return Request("kits.info", params, record.read_object)


def plan_unpack(
    reference: str, filters: Sequence[str] = (), *, include_remote: bool | None = None
) -> Request[record.UnpackPlan]:
    """Ask which layers an unpack of a cached kit needs, with remote datasets or without."""
    params = _given(reference=reference, filters=list(filters), include_remote=include_remote)
    return Request("kits.plan", params, record.read_unpack_plan)


def diff_kits(a: str, b: str) -> Request[record.KitDiff]:
    """Ask what two kits share; `local://` and `remote://` before a reference say where it is."""
    return Request("kits.diff", {"a": a, "b": b}, record.read_kit_diff)


def tag_kit(
    reference: str, target: str, *, idempotency_key: str | None = None
) -> Request[Document]:
    """Give a kit of the cache the name `target` as well: `repository:tag,tag...`."""
    params = _given(reference=reference, target=target, idempotency_key=idempotency_key)
    return Request("kits.tag", params, record.read_object)


def remove_kit(
    reference: str,
    *,
    force: bool = False,
    remote: bool = False,
    idempotency_key: str | None = None,
) -> Request[Document]:
    """Take a tag from a kit, or a kit from its repository, in the cache or in its registry."""
    params = _given(
        reference=reference,
        force=force or None,
        remote=remote or None,
        idempotency_key=idempotency_key,
    )
    return Request("kits.remove", params, record.read_object)


def remove_all_kits(
    *, force: bool = False, idempotency_key: str | None = None
) -> Request[Document]:
    """Take all kits without a tag from the cache, or with `force` all kits."""
    params = _given(force=force or None, idempotency_key=idempotency_key)
    return Request("kits.remove_all", params, record.read_object)


def import_kit(  # noqa: PLR0913 - one for each parameter of the method
    source: str,
    *,
    reference: str | None = None,
    kitfile: str | None = None,
    revision: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    tool: str | None = None,
    push: bool | None = None,
    idempotency_key: str | None = None,
) -> Request[record.Job]:
    """Make a kit of `org/name` of the hub, or of a git repository; `kitfile` is a text.

    `tool` is `hf` or `git`, where the address does not say which.
    """
    params = _given(
        source=source,
        tool=tool,
        push=push,
        reference=reference,
        kitfile=kitfile,
        revision=revision,
        include=list(include) or None,
        exclude=list(exclude) or None,
        idempotency_key=idempotency_key,
    )
    return Request("kits.import", params, record.read_started)


def generate_kitfile(listing: Document) -> Request[Document]:
    """Ask for a Kitfile for a directory, as `kitd.client.listing.list_directory` saw it."""
    return Request("kits.generate", listing, record.read_object)


def list_mirrors() -> Request[tuple[record.Mirror, ...]]:
    """Ask for the mirrors of the configuration and how they stand."""
    return Request("mirrors.list", {}, record.read_mirrors)


def mirror_edges(name: str, *, limit: int | None = None) -> Request[record.MirrorEdges]:
    """Ask what is known of the tags of a mirror, those in trouble first; at most 1000."""
    return Request("mirrors.edges", _given(name=name, limit=limit), record.read_mirror_edges)


def run_mirror(
    name: str,
    *,
    dry_run: bool = False,
    thorough: bool = False,
    allow_deletes: bool = False,
    idempotency_key: str | None = None,
) -> Request[tuple[record.Job, ...]]:
    """Look now at all that a mirror concerns; `thorough` believes nothing that is remembered.

    Of the jobs that do it, one of kind `survey` is followed by others: its `followed_by`.
    """
    params = _given(
        name=name,
        dry_run=dry_run or None,
        thorough=thorough or None,
        allow_deletes=allow_deletes or None,
        idempotency_key=idempotency_key,
    )
    return Request("mirrors.run", params, record.read_jobs)


def copy_mirror(
    source: str,
    target: str,
    *,
    tags: Sequence[str] = (),
    dry_run: bool = False,
    idempotency_key: str | None = None,
) -> Request[record.Job]:
    """Copy tags from a registry to another: those that match a glob of `tags`, or all.

    `source` may be one tag, and `target` say what it is called there.
    """
    params = _given(
        source=source,
        target=target,
        tags=list(tags) or None,
        dry_run=dry_run or None,
        idempotency_key=idempotency_key,
    )
    return Request("mirrors.copy", params, record.read_started)


def cache_stats() -> Request[Document]:
    """Ask how much the cache holds and shares."""
    return Request("cache.stats", {}, record.read_object)


def plan_collection() -> Request[Document]:
    """Ask what a collection would remove now, and why it would keep the rest."""
    return Request("cache.plan", {}, record.read_object)


def collect_cache(*, idempotency_key: str | None = None) -> Request[record.Job]:
    """Remove what no kit needs, and the kits that the cache's limits have no room for."""
    return Request("cache.gc", _given(idempotency_key=idempotency_key), record.read_started)


def verify_cache(
    *, repair: bool = False, idempotency_key: str | None = None
) -> Request[record.Job]:
    """Hash every blob of the cache again; with `repair` fetch anew what is damaged."""
    params = _given(repair=repair or None, idempotency_key=idempotency_key)
    return Request("cache.verify", params, record.read_started)


def pin_kit(reference: str, *, idempotency_key: str | None = None) -> Request[Document]:
    """Keep a kit of the cache, whatever its limits."""
    params = _given(reference=reference, idempotency_key=idempotency_key)
    return Request("cache.pin", params, record.read_object)


def unpin_kit(reference: str, *, idempotency_key: str | None = None) -> Request[Document]:
    """Let a pinned kit be collected again."""
    params = _given(reference=reference, idempotency_key=idempotency_key)
    return Request("cache.unpin", params, record.read_object)


def list_deliveries(
    *,
    source: str | None = None,
    state: str | None = None,
    limit: int | None = None,
    before: int | None = None,
) -> Request[Document]:
    """Ask what registries told by webhook, newest first; `before` is the id to go on from."""
    params = _given(source=source, state=state, limit=limit, before=before)
    return Request("webhooks.list", params, record.read_object)


def replay_deliveries(
    ids: Sequence[int] = (),
    *,
    since: str | None = None,
    source: str | None = None,
    after: int | None = None,
    idempotency_key: str | None = None,
) -> Request[Document]:
    """Read deliveries again, at most 100: those of some ids, or those since an RFC 3339 time.

    `last` of the answer is what to go on `after`, if there is more.
    """
    params = _given(
        ids=list(ids) or None,
        since=since,
        source=source,
        after=after,
        idempotency_key=idempotency_key,
    )
    return Request("webhooks.replay", params, record.read_object)


def registry_logins(registry: str) -> Request[Document]:
    """Ask where the daemon looks for the credentials of a registry."""
    return Request("registries.logins", {"registry": registry}, record.read_object)


def reload_config() -> Request[Document]:
    """Apply the configuration file as it is: `applied`, and what `changed` or the `problems`."""
    return Request("system.reload", {}, record.read_object)


def show_config() -> Request[Document]:
    """Ask for the effective configuration, which names files of secrets and holds none."""
    return Request("config.show", {}, record.read_object)
