"""What a Kitfile may not say, and what it had better not say, in each dialect.

The rules are `kit`'s, with three of our own: a path may not hold NUL, nor be longer or deeper than
can be unpacked, and nothing the kit-1.7 dialect cannot carry is dropped in silence.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kitd.modelkit.dialect import Dialect
from kitd.modelkit.errors import KitfileError
from kitd.modelkit.kitfile import (
    MANIFEST_VERSION,
    Dataset,
    Entry,
    Kitfile,
    ModelPart,
    reference_of,
)
from kitd.modelkit.path import clean_path, escapes, is_within

MAX_PART_TYPE = 64
"""Characters."""
MAX_PATH_BYTES = 4096
"""What the kernel takes at once, and what is unpacked."""
MAX_DEPTH = 256
"""Elements of a path; what lies deeper is not unpacked."""
MAX_QUOTED = 10
"""Problems that an error's message quotes; its `problems` has them all."""
MAX_FINDING = 400
"""Characters of one finding."""

_PART_TYPE = re.compile(r"\w[\w.-]*", re.ASCII)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_S3 = "s3://"
_HTTPS = "https://"
_HTTPS_FILE = re.compile(r"https://[^/?#@\s]+/[^#\s]*[^/#\s]", re.ASCII)
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_S3_OBJECT = re.compile(r"s3://[^/?]+/[^?]+(\?versionId=.+)?")


@dataclass(frozen=True, slots=True)
class Findings:
    """One line each; only errors keep a Kitfile from being packed."""

    errors: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """A path of the Kitfile as written, and what a person calls the entry it stands in."""

    kind: str
    label: str
    path: str

    @property
    def cleaned(self) -> str:
        # A path with NUL is refused; cleaning would cut it there and hide that.
        return self.path if "\0" in self.path else clean_path(self.path)


def require_valid(kitfile: Kitfile, dialect: Dialect, *, name: str = "Kitfile") -> tuple[str, ...]:
    """Return the warnings. Raises `KitfileError` with every problem at once."""
    findings = validate(kitfile, dialect)
    if findings.errors:
        raise KitfileError(
            f"{name}: "
            + "; ".join(findings.errors[:MAX_QUOTED])
            + (f"; and {more} more" if (more := len(findings.errors) - MAX_QUOTED) > 0 else ""),
            problems=findings.errors,
            hint="mend the Kitfile; the problems are independent of each other",
        )
    return findings.warnings


def validate(kitfile: Kitfile, dialect: Dialect) -> Findings:
    """Return everything that is wrong with a Kitfile, errors sorted."""
    places = tuple(_places(kitfile))
    errors = [*_path_errors(places), *_duplicates(places), *_part_errors(kitfile)]
    if dialect is Dialect.KIT_1_7:
        errors += _unknown_to_kit_1_7(kitfile)
    else:
        errors += [
            *_kind_errors(places),
            *_remote_errors(kitfile, places),
            *_server_errors(kitfile),
        ]
    warnings = _warnings(kitfile, dialect)
    return Findings(tuple(sorted(map(_line, errors))), tuple(map(_line, warnings)))


def _line(text: str) -> str:
    """Return a finding as one line of bounded length, whatever a path or a name holds."""
    short = text if len(text) <= MAX_FINDING else f"{text[:MAX_FINDING]}…"
    return "".join(character if character.isprintable() else "�" for character in short)


def _places(kitfile: Kitfile) -> Iterator[_Place]:
    if kitfile.model is not None:
        model = kitfile.model
        yield _Place("model", f"model {model.name}".rstrip(), model.path)
        for index, part in enumerate(model.parts):
            yield _Place("model part", _part_label(part, index), part.path)
    lists: dict[str, Sequence[Entry]] = {
        "code": kitfile.code,
        "dataset": kitfile.datasets,
        "docs": kitfile.docs,
        "prompt": kitfile.prompts,
        "mcpServer": kitfile.mcp_servers,
    }
    for kind, entries in lists.items():
        for index, entry in enumerate(entries):
            yield _Place(kind, f"{kind} layer {index}", entry.path)


def _part_label(part: ModelPart, index: int) -> str:
    return f"modelpart {part.name or index}"


def _path_errors(places: Sequence[_Place]) -> Iterator[str]:
    for place in places:
        path = place.cleaned
        if "\0" in path:
            yield f"a path holds the character NUL (in {place.label})"
        elif path.startswith("/"):
            yield f"absolute paths are not supported (path {path} in {place.label})"
        elif escapes(path):
            yield f"paths outside the project are not supported (path {path} in {place.label})"
        elif len(path.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
            yield f"a path is longer than {MAX_PATH_BYTES} bytes (in {place.label})"
        elif path.count("/") >= MAX_DEPTH:
            yield f"a path leads deeper than {MAX_DEPTH} directories (in {place.label})"


def _duplicates(places: Sequence[_Place]) -> Iterator[str]:
    labels: dict[str, list[str]] = {}
    for place in places:
        labels.setdefault(place.cleaned, []).append(place.label)
    for path, sharing in labels.items():
        if len(sharing) > 1:
            yield f"{', '.join(sharing[:-1])} and {sharing[-1]} use the same path {path}"


def _part_errors(kitfile: Kitfile) -> Iterator[str]:
    parts = () if kitfile.model is None else kitfile.model.parts
    for index, part in enumerate(parts):
        label = _part_label(part, index)
        if part.type and _PART_TYPE.fullmatch(part.type) is None:
            yield f"{label} has an invalid type (letters, digits, dots, dashes and underscores)"
        if len(part.type) > MAX_PART_TYPE:
            yield f"the type of {label} is longer than {MAX_PART_TYPE} characters"


def _unknown_to_kit_1_7(kitfile: Kitfile) -> Iterator[str]:
    remote = any(entry.remote_path or entry.remote_hash for entry in kitfile.datasets)
    for present, what in (
        (bool(kitfile.prompts), "prompts"),
        (bool(kitfile.mcp_servers), "mcpServers"),
        (remote, "remote datasets"),
    ):
        if present:
            yield f"{what} cannot be packed in the dialect kit-1.7"


def _kind_errors(places: Sequence[_Place]) -> Iterator[str]:
    """Yield what stands where only a local path may (or, for the model, a reference)."""
    for place in places:
        if place.kind == "model" and reference_of(place.path) is not None:
            continue
        if problem := not_local(place.path):
            yield f"invalid path for {place.kind} ({place.path}): {problem}"


def not_local(path: str) -> str | None:
    """Return why a path is taken for something else than a place in the project, if it is."""
    scheme = _SCHEME.match(path)
    if scheme is not None and scheme[1].lower() in {"http", "https"}:
        return "HTTP URLs are not supported in paths"
    if reference_of(path) is not None or path.startswith(_S3):
        return "only local paths are permitted, and this reads as a reference or a URL"
    return None if scheme is None else "this reads as a URL"


def _remote_errors(kitfile: Kitfile, places: Sequence[_Place]) -> Iterator[str]:
    for index, dataset in enumerate(kitfile.datasets):
        remote = dataset.remote_path
        if not remote:
            if dataset.remote_hash:
                yield f"remoteHash without remotePath (in dataset layer {index})"
        elif remote.startswith(_S3):
            if _S3_OBJECT.fullmatch(remote) is None:
                yield f"{remote} does not name an S3 object (in dataset layer {index})"
            if clean_path(dataset.path) == ".":
                yield f"{remote} is one file and needs a path (in dataset layer {index})"
            if not dataset.remote_hash:
                yield f"remoteHash is required for {remote} (in dataset layer {index})"
        elif remote.startswith(_HTTPS):
            yield from _https_errors(dataset, index)
        elif reference_of(remote) is None:
            yield f"remotePath takes URLs of S3, https:// and ModelKit references ({remote})"
        else:
            yield from _inside_remote(dataset, f"dataset layer {index}", places)


def _https_errors(dataset: Dataset, index: int) -> Iterator[str]:
    # A password in it would be in every copy of the kit; it is not repeated.
    if _HTTPS_FILE.fullmatch(dataset.remote_path) is None:
        yield f"remotePath is not the https:// address of a file (in dataset layer {index})"
    if clean_path(dataset.path) == ".":
        yield f"what remotePath names is one file and needs a path (in dataset layer {index})"
    if dataset.remote_hash and _SHA256.fullmatch(dataset.remote_hash) is None:
        yield f"remoteHash beside https:// is sha256:<64 hex digits> (in dataset layer {index})"


def _inside_remote(dataset: Dataset, label: str, places: Sequence[_Place]) -> Iterator[str]:
    directory = clean_path(dataset.path)
    for place in places:
        if place.label != label and is_within(place.cleaned, directory):
            yield f"{place.label} uses a path ({place.path}) within that of the remote {label}"


def _server_errors(kitfile: Kitfile) -> Iterator[str]:
    for server in kitfile.mcp_servers:
        if not server.name:
            yield f"the mcpServer with path {server.path} must have a name"
        if not server.path.endswith(".mcpb"):
            yield f"the path of an mcpServer must be one .mcpb file ({server.path})"
    names = Counter(server.name for server in kitfile.mcp_servers if server.name)
    for name, uses in names.items():
        if uses > 1:
            yield f"the mcpServer name {name} is used {uses} times"


def _warnings(kitfile: Kitfile, dialect: Dialect) -> Iterator[str]:
    if dialect is Dialect.KIT_1_7:
        return
    if kitfile.manifest_version != MANIFEST_VERSION:
        found = kitfile.manifest_version or "none"
        yield f"unrecognized manifestVersion {found}: read as {MANIFEST_VERSION}"
    if kitfile.model is not None and not kitfile.model.path:
        yield "the model has no path: kit 1.16 cannot unpack such a kit"
    for index, dataset in enumerate(kitfile.datasets):
        if dataset.remote_hash and reference_of(dataset.remote_path) is not None:
            yield f"remoteHash means nothing beside a reference (in dataset layer {index})"
        if dataset.remote_path.startswith(_HTTPS) and not dataset.remote_hash:
            yield f"without remoteHash nobody notices another file (in dataset layer {index})"
