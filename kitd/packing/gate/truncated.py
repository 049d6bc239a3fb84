"""The gate for files that are shorter than they say themselves.

Which format a file has is told by suffix and first bytes together, so that a file that is no such
thing is none of this gate's business. Only headers and footers are read.
"""

import os
import posixpath
from collections.abc import Mapping

from kitd.packing.gate.format import arrow, gguf, hdf5, npy, onnx, parquet, safetensors, tar, zipped
from kitd.packing.gate.format.content import Content, Format
from kitd.packing.gate.subject import Gate, Moment, Subject
from kitd.packing.scan import Entry

FORMATS: tuple[Format, ...] = (
    safetensors.FORMAT,
    gguf.FORMAT,
    zipped.CHECKPOINT,
    zipped.ARCHIVE,
    parquet.FORMAT,
    arrow.FORMAT,
    npy.FORMAT,
    hdf5.FORMAT,
    onnx.FORMAT,
    tar.FORMAT,
)
_BY_SUFFIX: Mapping[bytes, Format] = {
    suffix: form for form in FORMATS for suffix in form.suffixes | form.shared_suffixes
}
_LASTING = tuple(suffix for suffix, form in _BY_SUFFIX.items() if form.is_lasting)
_PASSING = tuple(suffix for suffix, form in _BY_SUFFIX.items() if not form.is_lasting)


def truncation(path: bytes, content: Content) -> str | None:
    """Return why a file of this name is not complete, or None. Raises what reading does."""
    suffix = posixpath.splitext(path)[1].lower()
    form = _BY_SUFFIX.get(suffix)
    if form is None:
        return None
    opening = content.read_at(form.magic_offset, max(map(len, form.magics)))
    if opening.startswith(form.magics):
        return form.finding(content)
    if suffix in form.shared_suffixes:
        return None
    if any(magic.startswith(opening) for magic in form.magics):
        return f"the file ends within the first bytes of its {form.name} header"
    if not any(opening):
        return f"its first bytes are zeros, where a {form.name} header has to be"
    return None


def _concerns(entry: Entry, moment: Moment) -> bool:
    path = entry.path.lower()
    return path.endswith(_LASTING) or (path.endswith(_PASSING) and moment.is_young(entry))


def _finding(subject: Subject) -> str | None:
    def read_at(offset: int, count: int) -> bytes:
        return os.pread(subject.file, count, offset)

    return truncation(subject.entry.path, Content(subject.entry.size, read_at))


GATE = Gate("truncated", _concerns, _finding)
