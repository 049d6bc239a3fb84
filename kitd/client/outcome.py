"""What finished work came to, typed, and as a notebook shows it.

Named tuples for the reason of `kitd.client.record`. `document` is the job's result as it came, with
what a newer daemon adds.
"""

from typing import Any, Literal, NamedTuple

from kitd.client.error import ProtocolError, RpcError
from kitd.client.protocol import Document
from kitd.client.record import Job, read_field

Choice = Literal["refuse", "overwrite", "keep"]
"""What becomes of files that are there where a kit is unpacked."""

_DIGEST_CHARS = 19
"""`sha256:` and twelve digits."""


class JobFailedError(RpcError):
    """A job that was waited for did not succeed; the code is the job's.

    kitd may try it again by itself: `job` says how it stands.
    """

    def __init__(self, job: Job) -> None:
        failure = job.error
        if job.is_terminal and job.state != "failed":
            code, reason, hint = job.state, f"it was {job.state}", None
        elif failure is None:
            code, reason, hint = "failed", "kitd gave no reason", None
        else:
            code, reason, hint = failure.code, failure.message, failure.hint
        super().__init__(code, f"job {job.id} ({job.kind}): {reason}", hint=hint, retryable=False)
        self.job = job


class PackedLayer(NamedTuple):
    """A layer of a kit; `reused` if the cache had it."""

    media_type: str
    digest: str
    size: int
    reused: bool


class Moved(NamedTuple):
    """A kit that was pushed or pulled, and the bytes that took."""

    job: int
    digest: str
    reference: str
    sent: int
    received: int
    mounted: int
    skipped: int
    notes: tuple[str, ...]
    document: Document

    def _repr_html_(self) -> str:
        moved = self.sent or self.received
        return _html(
            self.reference,
            self.digest,
            {"moved": _megabytes(moved), "already there": _megabytes(self.mounted + self.skipped)},
        )


class PackedKit(NamedTuple):
    """A kit that was packed; `unchanged` if its project had it already.

    `pushed` is there where it was pushed as well.
    """

    job: int
    digest: str
    reference: str
    tags: tuple[str, ...]
    layers: tuple[PackedLayer, ...]
    unchanged: bool
    warnings: tuple[str, ...]
    pushed: Moved | None
    document: Document

    @property
    def size(self) -> int:
        """The sum of the layers, in bytes."""
        return sum(layer.size for layer in self.layers)

    def _repr_html_(self) -> str:
        reused = sum(layer.reused for layer in self.layers)
        return _html(
            self.reference,
            self.digest,
            {
                "layers": f"{len(self.layers)}, {reused} of them as they were",
                "size": _megabytes(self.size),
                "pushed": "yes" if self.pushed else "no",
            },
        )


class Unpacked(NamedTuple):
    """Files of a kit that were written to a directory.

    `notes` are what a person should know about it; `left_out` are the paths of remote datasets that
    nobody asked to have fetched.
    """

    digest: str
    reference: str
    directory: str
    files: int
    bytes: int
    notes: tuple[str, ...]
    left_out: tuple[str, ...]

    def _repr_html_(self) -> str:
        facts = {"files": str(self.files), "size": _megabytes(self.bytes), "in": self.directory}
        if self.left_out:
            facts["left out, as it is remote"] = ", ".join(self.left_out)
        if self.notes:
            facts["notes"] = "; ".join(self.notes)
        return _html(self.reference, self.digest, facts)


def read_packed(job: Job, pushed: Moved | None) -> PackedKit:
    """Read what a job of kind `pack` came to. Raises `ProtocolError`."""
    document = _result(job)
    return PackedKit(
        job=job.id,
        digest=read_field(document, "digest", str),
        reference=read_field(document, "reference", str),
        tags=tuple(map(str, read_field(document, "tags", list))),
        layers=tuple(map(_read_layer, read_field(document, "layers", list))),
        unchanged=read_field(document, "unchanged", bool),
        warnings=tuple(map(str, document.get("warnings") or ())),
        pushed=pushed,
        document=document,
    )


def read_moved(job: Job) -> Moved:
    """Read what a job of kind `push` or `pull` came to. Raises `ProtocolError`."""
    document = _result(job)
    moved = read_field(document, "bytes", dict)
    return Moved(
        job=job.id,
        digest=read_field(document, "digest", str),
        reference=read_field(document, "reference", str),
        sent=moved.get("sent") or 0,
        received=moved.get("received") or 0,
        mounted=moved.get("mounted") or 0,
        skipped=moved.get("skipped") or 0,
        notes=tuple(map(str, document.get("notes") or ())),
        document=document,
    )


def _read_layer(document: Any) -> PackedLayer:
    if not isinstance(document, dict):
        raise ProtocolError("the daemon's answer has a layer that is no object")
    return PackedLayer(
        read_field(document, "mediaType", str),
        read_field(document, "digest", str),
        read_field(document, "size", int),
        read_field(document, "reused", bool),
    )


def _result(job: Job) -> Document:
    if job.result is None:
        raise ProtocolError(f"the daemon does not say what became of job {job.id}")
    return job.result


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _html(reference: str, digest: str, facts: dict[str, str]) -> str:
    """Return a small table for a notebook, whatever the texts hold."""
    from html import escape  # noqa: PLC0415 - no command draws one

    shown = {"digest": digest[:_DIGEST_CHARS], **facts}
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td>{escape(text)}</td></tr>"
        for name, text in shown.items()
    )
    return f"<table><caption>{escape(reference)}</caption>{rows}</table>"
