"""What the daemon asks of a worker and what it answers: one JSON object a line, each way."""

from collections.abc import Mapping

import msgspec

from kitd.errors import Disposition, KitdError

MAX_LINE_BYTES = 32 * 1024 * 1024
"""A kit of twenty thousand layers, the most a manifest may name, with room to spare."""


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """Where a project is and how it is packed: what changes here changes the fingerprint.

    Of `kitfile` it is the content that does, whatever its name.
    """

    root: str
    """Absolute. The names below it are bytes, its own are text."""
    kitfile: str | None = None
    """Relative to the root; None looks for the usual names."""
    dialect: str = "current"
    layer_format: str = "tar"
    compression: str = "none"


class ScanOrder(msgspec.Struct, frozen=True, kw_only=True, tag="scan"):
    """Look at every file that a pack would take, and read none but the Kitfile and .kitignore."""

    project: Project


class PackOrder(msgspec.Struct, frozen=True, kw_only=True, tag="pack"):
    """Build every layer into the blob store."""

    project: Project
    cache: str
    label: str
    """Begins the names of temporary files, so that a killed worker's can be found."""


Order = ScanOrder | PackOrder


class Advanced(msgspec.Struct, frozen=True, tag="advanced"):
    """How far a pack is."""

    done_bytes: int
    total_bytes: int


class Scanned(msgspec.Struct, frozen=True, tag="scanned"):
    """The state of a project's inputs in one word; equal words mean equal inputs."""

    fingerprint: str
    files: int
    size_bytes: int


class PackedLayer(msgspec.Struct, frozen=True, kw_only=True):
    """One layer, durable in the blob store."""

    media_type: str
    digest: str
    size: int
    diff_id: str
    annotations: Mapping[str, str]
    reused: bool


class Packed(msgspec.Struct, frozen=True, kw_only=True, tag="packed"):
    """Everything of a kit but its manifest."""

    config_digest: str
    config_size: int
    layers: tuple[PackedLayer, ...]
    fingerprint: str
    model_name: str
    author: str
    package_version: str | None
    git_commit: str | None
    warnings: tuple[str, ...]


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """An error of the worker's side, as the daemon raises it again."""

    code: str
    message: str
    hint: str | None
    disposition: str


Answer = Advanced | Scanned | Packed | Failed


class WorkerError(KitdError):
    """A failure that a worker reported; code and disposition are its own."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message, hint=failed.hint)
        self.code = failed.code  # type: ignore[misc]  # the worker's class is not this one's
        self.disposition = Disposition(failed.disposition)  # type: ignore[misc]  # as above


def failed(error: KitdError) -> Failed:
    """Return an error in the form that crosses the pipe."""
    return Failed(error.code, error.message, error.hint, error.disposition)
