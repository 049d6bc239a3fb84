"""The daemon's answers, typed.

Named tuples and not dataclasses: importing `dataclasses` would be a third of the start-up of a
command that prints one line. Each record keeps the JSON `document` it was read from, so that
`--json` and programs also see what a newer daemon adds.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from kitd.client.error import ProtocolError
from kitd.client.protocol import Document

T = TypeVar("T")

TERMINAL_STATES = frozenset({"succeeded", "failed", "cancelled", "superseded"})
"""The states a job does not leave by itself."""


class Progress(NamedTuple):
    """How far a job is: `total` is 0 while it is unknown."""

    phase: str
    bytes: int
    total: int


class Failure(NamedTuple):
    """Why a job failed, or why its last attempt did."""

    code: str
    message: str
    hint: str | None


class Job(NamedTuple):
    """One piece of work in the daemon's queue. Times are RFC 3339, UTC."""

    id: int
    kind: str
    state: str
    project: str | None
    reference: str | None
    attempt: int
    max_attempts: int
    created: str | None
    started: str | None
    finished: str | None
    run_at: str | None
    progress: Progress | None
    result: Document | None
    error: Failure | None
    superseded_by: int | None
    followed_by: tuple[int, ...]
    document: Document

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended, well or not."""
        return self.state in TERMINAL_STATES


class Event(NamedTuple):
    """Something that happened, numbered for all time; `subject` is like `job:12`."""

    seq: int
    at: str
    type: str
    subject: str
    data: Document
    document: Document


class Project(NamedTuple):
    """One watched directory."""

    name: str
    path: str
    reference: str
    state: str
    reason: str | None
    last_digest: str | None
    last_packed: str | None
    last_job: int | None
    document: Document


class Kit(NamedTuple):
    """One ModelKit in the cache; `size` is the sum of its layers in bytes."""

    repository: str
    digest: str
    tags: tuple[str, ...]
    model_name: str | None
    size: int
    author: str | None
    document: Document


class RemoteKits(NamedTuple):
    """Kits of a repository in its registry.

    `others` tags name something else, or nothing that can be read, `omitted` were not looked at;
    `notes` say of some why.
    """

    kits: tuple[Kit, ...]
    others: int
    omitted: int
    notes: tuple[str, ...] = ()


class Layer(NamedTuple):
    """One layer of an unpack; `diff_id` is the digest of the uncompressed bytes, where known."""

    digest: str
    size: int
    media_type: str
    diff_id: str | None
    path: str
    elsewhere: bool = False
    """Whether kitd does not have it, and sends it on from a registry."""
    mode: int | None = None
    """The permission bits of the file that a raw layer is, where known."""
    prefix: str = "."
    """The directory that a tar's names begin in."""
    kit: str = ""
    """The digest of the manifest that has it; empty is that of the plan."""
    directory: str = ""
    """Where it goes, beneath the target; empty is the target itself."""


class RemoteDataset(NamedTuple):
    """A dataset that is in no layer: the file or directory `path` is what `remote_path` names.

    `remote_hash` is the ETag that an object of S3 has to have, of a web server its SHA-256, or "".
    """

    path: str
    remote_path: str
    remote_hash: str


class MissingKit(NamedTuple):
    """A kit that an unpack needs and kitd does not know, and what it needs of it."""

    reference: str
    filters: tuple[str, ...]


class DiffLayer(NamedTuple):
    """A layer of one of two kits, or of both; `here` if the cache of the daemon has it."""

    layer: Layer
    kind: str
    name: str
    here: bool


class DiffSide(NamedTuple):
    """One of two kits: `remote` if it was looked for in its registry."""

    reference: str
    digest: str
    remote: bool


class DiffAnnotation(NamedTuple):
    """An annotation that is not the same; None where a kit has none."""

    key: str
    a: str | None
    b: str | None


class KitDiff(NamedTuple):
    """What two kits share, and what only one has."""

    identical: bool
    a: DiffSide
    b: DiffSide
    annotations: tuple[DiffAnnotation, ...]
    shared: tuple[DiffLayer, ...]
    only_a: tuple[DiffLayer, ...]
    only_b: tuple[DiffLayer, ...]
    document: Document


class UnpackPlan(NamedTuple):
    """What an unpack writes: `kitfile` is YAML text, or None where filters leave it out.

    Layers of the kits that it builds on come first; `missing` are those to be pulled before it can
    be told what all of them are.
    """

    digest: str
    reference: str
    kitfile: str | None
    layers: tuple[Layer, ...]
    notes: tuple[str, ...] = ()
    """What a person should know who unpacks it."""
    remotes: tuple[RemoteDataset, ...] = ()
    missing: tuple[MissingKit, ...] = ()


class Mirror(NamedTuple):
    """One mirror of the configuration. Times are RFC 3339, UTC.

    `edges` are tags at targets: so many are known, `failed` when last tried, are in `conflicts`,
    are `gone` from the source.
    """

    name: str
    source: str
    repositories: tuple[str, ...]
    targets: tuple[str, ...]
    schedule: str | None
    last_started: str | None
    next_start: str | None
    edges: int
    failed: int
    conflicts: int
    gone: int
    last_equal: str | None
    running: tuple[int, ...]
    document: Document


class MirrorEdge(NamedTuple):
    """What is known of a tag of a source and of the one of a target that follows it.

    `state` is `failed`, `conflict`, `gone`, `equal` or `unknown`.
    """

    source: str
    target: str
    state: str
    digest: str | None
    last_equal: str | None
    gone_since: str | None
    error: str | None
    document: Document


class MirrorEdges(NamedTuple):
    """Edges of a mirror, and how many there are."""

    edges: tuple[MirrorEdge, ...]
    total: int


class MirroredTag(NamedTuple):
    """What a run of a mirror made of one tag at one target.

    `action` is copied, unchanged, skipped, deleted or failed; `bytes` were sent for it.
    """

    source: str
    target: str
    digest: str | None
    action: str
    bytes: int
    why: str | None
    document: Document


class Mirrored(NamedTuple):
    """What a job of a mirror came to; `counts` are of all tags by action, more than are shown."""

    tags: tuple[MirroredTag, ...]
    counts: dict[str, int]
    sent_bytes: int
    mounted_bytes: int
    skipped_bytes: int
    dry_run: bool
    notes: tuple[str, ...]


class Status(NamedTuple):
    """The daemon at a glance."""

    daemon: Document
    projects: tuple[Project, ...]
    queue: Document
    cache: Document
    """Empty where kitd cannot look at it."""
    degraded: tuple[str, ...]
    document: Document


class Check(NamedTuple):
    """One thing that was looked at; `fix` is what mends it where it is not `ok`."""

    name: str
    ok: bool
    detail: str
    fix: str | None


class EventPage(NamedTuple):
    """A stretch of the event log; `head_seq` is the last event there was when it was read."""

    events: tuple[Event, ...]
    head_seq: int


def read_field(document: Document, key: str, kind: type[T]) -> T:
    """Return what an answer has under a key. Raises `ProtocolError` if it is of another kind."""
    value = document.get(key)
    # JSON's true is no number, and Python's True is an int.
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise ProtocolError(
        f"the daemon's answer has {value!r:.40} where {key!r} should be a {kind.__name__}",
        hint="kitctl and kitd should have the same version: kitctl version",
    )


def _optional(document: Document, key: str, kind: type[T]) -> T | None:
    return None if document.get(key) is None else read_field(document, key, kind)


def _texts(document: Document, key: str) -> tuple[str, ...]:
    return tuple(str(item) for item in _optional(document, key, list) or ())


def _numbers(document: Document, key: str) -> tuple[int, ...]:
    return tuple(read_field({key: item}, key, int) for item in _optional(document, key, list) or ())


def _records(document: Document, key: str, read: Callable[[Any], T]) -> tuple[T, ...]:
    return tuple(read(item) for item in read_field(document, key, list))


def read_object(answer: Any) -> Document:
    """Return the answer of a call that gives an object. Raises `ProtocolError`."""
    return read_field({"result": answer}, "result", dict)


def read_progress(answer: Any) -> Progress:
    """Read the progress of a job. Raises `ProtocolError`."""
    document = read_object(answer)
    return Progress(
        _optional(document, "phase", str) or "",
        _optional(document, "bytes", int) or 0,
        _optional(document, "total", int) or 0,
    )


def read_job(answer: Any) -> Job:
    """Read a job. Raises `ProtocolError`."""
    document = read_object(answer)
    progress, error = document.get("progress"), _optional(document, "error", dict)
    return Job(
        id=read_field(document, "id", int),
        kind=read_field(document, "kind", str),
        state=read_field(document, "state", str),
        project=_optional(document, "project", str),
        reference=_optional(document, "reference", str),
        attempt=_optional(document, "attempt", int) or 0,
        max_attempts=_optional(document, "max_attempts", int) or 0,
        created=_optional(document, "created", str),
        started=_optional(document, "started", str),
        finished=_optional(document, "finished", str),
        run_at=_optional(document, "run_at", str),
        progress=None if progress is None else read_progress(progress),
        result=_optional(document, "result", dict),
        error=None if error is None else _read_failure(error),
        superseded_by=_optional(document, "superseded_by", int),
        followed_by=_numbers(document, "followed_by"),
        document=document,
    )


def _read_failure(document: Document) -> Failure:
    return Failure(
        read_field(document, "code", str),
        read_field(document, "message", str),
        _optional(document, "hint", str),
    )


def read_started(answer: Any) -> Job:
    """Read the answer of a call that starts a job. Raises `ProtocolError`."""
    return read_job(read_object(answer).get("job"))


def read_jobs(answer: Any) -> tuple[Job, ...]:
    """Read a list of jobs. Raises `ProtocolError`."""
    return _records(read_object(answer), "jobs", read_job)


def read_event(answer: Any) -> Event:
    """Read an event. Raises `ProtocolError`."""
    document = read_object(answer)
    return Event(
        seq=read_field(document, "seq", int),
        at=read_field(document, "at", str),
        type=read_field(document, "type", str),
        subject=read_field(document, "subject", str),
        data=_optional(document, "data", dict) or {},
        document=document,
    )


def read_events(answer: Any) -> tuple[Event, ...]:
    """Read the events of one job. Raises `ProtocolError`."""
    return _records(read_object(answer), "events", read_event)


def read_event_page(answer: Any) -> EventPage:
    """Read a page of the event log. Raises `ProtocolError`."""
    return EventPage(read_events(answer), read_field(answer, "head_seq", int))


def read_subscription(answer: Any) -> int:
    """Read the number of a new subscription. Raises `ProtocolError`."""
    return read_field(read_object(answer), "subscription", int)


def read_project(answer: Any) -> Project:
    """Read a project. Raises `ProtocolError`."""
    document = read_object(answer)
    return Project(
        name=read_field(document, "name", str),
        path=read_field(document, "path", str),
        reference=read_field(document, "reference", str),
        state=read_field(document, "state", str),
        reason=_optional(document, "reason", str),
        last_digest=_optional(document, "last_digest", str),
        last_packed=_optional(document, "last_packed", str),
        last_job=_optional(document, "last_job", int),
        document=document,
    )


def read_projects(answer: Any) -> tuple[Project, ...]:
    """Read a list of projects. Raises `ProtocolError`."""
    return _records(read_object(answer), "projects", read_project)


def read_status(answer: Any) -> Status:
    """Read the daemon's status. Raises `ProtocolError`."""
    document = read_object(answer)
    return Status(
        daemon=read_field(document, "daemon", dict),
        projects=read_projects(document),
        queue=read_field(document, "queue", dict),
        cache=_optional(document, "cache", dict) or {},
        degraded=_texts(document, "degraded"),
        document=document,
    )


def _read_check(answer: Any) -> Check:
    document = read_object(answer)
    return Check(
        read_field(document, "name", str),
        read_field(document, "ok", bool),
        read_field(document, "detail", str),
        _optional(document, "fix", str),
    )


def read_checks(answer: Any) -> tuple[Check, ...]:
    """Read what was looked at. Raises `ProtocolError`."""
    return _records(read_object(answer), "checks", _read_check)


def _read_kit(answer: Any) -> Kit:
    document = read_object(answer)
    return Kit(
        repository=read_field(document, "repo", str),
        digest=read_field(document, "digest", str),
        tags=_texts(document, "tags"),
        model_name=_optional(document, "modelName", str),
        size=read_field(document, "size", int),
        author=_optional(document, "author", str),
        document=document,
    )


def read_kits(answer: Any) -> tuple[Kit, ...]:
    """Read a list of kits. Raises `ProtocolError`."""
    return _records(read_object(answer), "kits", _read_kit)


def read_remote_kits(answer: Any) -> RemoteKits:
    """Read a list of kits of a registry. Raises `ProtocolError`."""
    document = read_object(answer)
    others, omitted = (_optional(document, key, int) or 0 for key in ("others", "omitted"))
    return RemoteKits(read_kits(document), others, omitted, _texts(document, "notes"))


def _read_layer(answer: Any) -> Layer:
    document = read_object(answer)
    return Layer(
        digest=read_field(document, "digest", str),
        size=read_field(document, "size", int),
        media_type=read_field(document, "mediaType", str),
        diff_id=_optional(document, "diffId", str) or None,
        path=_optional(document, "path", str) or "",
        elsewhere=_optional(document, "elsewhere", bool) or False,
        mode=_optional(document, "mode", int),
        prefix=_optional(document, "prefix", str) or ".",
        kit=_optional(document, "kit", str) or "",
        directory=_optional(document, "directory", str) or "",
    )


def _read_remote(answer: Any) -> RemoteDataset:
    document = read_object(answer)
    return RemoteDataset(
        read_field(document, "path", str),
        read_field(document, "remotePath", str),
        _optional(document, "remoteHash", str) or "",
    )


def _read_missing(answer: Any) -> MissingKit:
    document = read_object(answer)
    return MissingKit(read_field(document, "reference", str), _texts(document, "filters"))


def _read_diff_layer(answer: Any) -> DiffLayer:
    document = read_object(answer)
    return DiffLayer(
        _read_layer(document),
        kind=_optional(document, "kind", str) or "",
        name=_optional(document, "name", str) or "",
        here=read_field(document, "here", bool),
    )


def _read_diff_side(answer: Any) -> DiffSide:
    document = read_object(answer)
    return DiffSide(
        read_field(document, "reference", str),
        read_field(document, "digest", str),
        read_field(document, "remote", bool),
    )


def _read_diff_annotation(answer: Any) -> DiffAnnotation:
    document = read_object(answer)
    return DiffAnnotation(
        read_field(document, "key", str),
        _optional(document, "a", str),
        _optional(document, "b", str),
    )


def read_kit_diff(answer: Any) -> KitDiff:
    """Read what two kits share. Raises `ProtocolError`."""
    document = read_object(answer)
    return KitDiff(
        identical=read_field(document, "identical", bool),
        a=_read_diff_side(document.get("a")),
        b=_read_diff_side(document.get("b")),
        annotations=_records(document, "annotations", _read_diff_annotation),
        shared=_records(document, "shared", _read_diff_layer),
        only_a=_records(document, "only_a", _read_diff_layer),
        only_b=_records(document, "only_b", _read_diff_layer),
        document=document,
    )


def read_unpack_plan(answer: Any) -> UnpackPlan:
    """Read the plan of an unpack. Raises `ProtocolError`."""
    document = read_object(answer)
    return UnpackPlan(
        digest=read_field(document, "digest", str),
        reference=read_field(document, "reference", str),
        kitfile=_optional(document, "yaml", str),
        layers=_records(document, "layers", _read_layer),
        notes=_texts(document, "notes"),
        # Of an older daemon neither is known: it refuses what it cannot unpack.
        remotes=_records({"remotes": [], **document}, "remotes", _read_remote),
        missing=_records({"missing": [], **document}, "missing", _read_missing),
    )


def _read_mirror(answer: Any) -> Mirror:
    document = read_object(answer)
    return Mirror(
        name=read_field(document, "name", str),
        source=read_field(document, "source", str),
        repositories=_texts(document, "repositories"),
        targets=_texts(document, "targets"),
        schedule=_optional(document, "schedule", str),
        last_started=_optional(document, "last_started", str),
        next_start=_optional(document, "next_start", str),
        edges=read_field(document, "edges", int),
        failed=read_field(document, "failed", int),
        conflicts=read_field(document, "conflicts", int),
        gone=read_field(document, "gone", int),
        last_equal=_optional(document, "last_equal", str),
        running=_numbers(document, "running"),
        document=document,
    )


def read_mirrors(answer: Any) -> tuple[Mirror, ...]:
    """Read a list of mirrors. Raises `ProtocolError`."""
    return _records(read_object(answer), "mirrors", _read_mirror)


def _read_mirror_edge(answer: Any) -> MirrorEdge:
    document = read_object(answer)
    error = _optional(document, "error", dict)
    return MirrorEdge(
        source=read_field(document, "source", str),
        target=read_field(document, "target", str),
        state=read_field(document, "state", str),
        digest=_optional(document, "digest", str),
        last_equal=_optional(document, "last_equal", str),
        gone_since=_optional(document, "gone_since", str),
        error=None if error is None else read_field(error, "message", str),
        document=document,
    )


def read_mirror_edges(answer: Any) -> MirrorEdges:
    """Read edges of a mirror. Raises `ProtocolError`."""
    document = read_object(answer)
    return MirrorEdges(
        _records(document, "edges", _read_mirror_edge), read_field(document, "total", int)
    )


def _read_mirrored_tag(answer: Any) -> MirroredTag:
    document = read_object(answer)
    return MirroredTag(
        source=read_field(document, "source", str),
        target=read_field(document, "target", str),
        digest=_optional(document, "digest", str),
        action=read_field(document, "action", str),
        bytes=_optional(document, "bytes", int) or 0,
        why=_optional(document, "why", str),
        document=document,
    )


def read_mirrored(answer: Any) -> Mirrored:
    """Read the result of a job of kind `mirror`. Raises `ProtocolError`."""
    document = read_object(answer)
    moved = read_field(document, "bytes", dict)
    counts = read_field(document, "counts", dict)
    return Mirrored(
        tags=_records(document, "edges", _read_mirrored_tag),
        counts={str(action): read_field(counts, action, int) for action in counts},
        sent_bytes=_optional(moved, "sent", int) or 0,
        mounted_bytes=_optional(moved, "mounted", int) or 0,
        skipped_bytes=_optional(moved, "skipped", int) or 0,
        dry_run=_optional(document, "dry_run", bool) or False,
        notes=_texts(document, "notes"),
    )
