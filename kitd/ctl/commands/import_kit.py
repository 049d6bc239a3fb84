"""`kitctl import`: a kit of a model or a dataset of a hub, or of a git repository."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kitd.client import request
from kitd.ctl.commands.transfer import make_kit
from kitd.ctl.error import UsageError
from kitd.ctl.format import plural, printable, size
from kitd.ctl.session import Session

MAX_KITFILE_BYTES = 256 << 10


def import_kit(  # noqa: PLR0913 - one for each of the command's options
    session: Session,
    *,
    repository: str,
    tool: str | None,
    tag: str | None,
    kitfile: str | None,
    ref: str | None,
    include: Sequence[str],
    exclude: Sequence[str],
    push: bool,
    detach: bool,
) -> int:
    """Fetch a repository, write a Kitfile unless there is one, and pack it; `push` as of a pack."""
    asked = request.import_kit(
        _address(repository, tool),
        reference=tag,
        kitfile=None if kitfile is None else _read(kitfile),
        revision=ref,
        include=include,
        exclude=exclude,
        tool=tool,
        push=push or None,
    )
    return make_kit(session, asked, _imported, push=push, detach=detach)


def _imported(document: dict[str, Any]) -> str:
    name = printable(f"{document.get('reference')}@{document.get('digest')}")
    received = size(document.get("received") or 0)
    source = printable(str(document.get("source")))
    files = plural(document.get("files") or 0, "file")
    return f"imported {source} as {name}: {files}, {received} received"


def _address(repository: str, tool: str | None) -> str:
    """Return what kitd is to import: a directory of git's by its address, all else as it is."""
    is_path = repository.startswith(("/", "./", "../")) or repository in (".", "..")
    if tool == "hf" or not ((is_path or tool == "git") and os.path.isdir(repository)):
        return repository
    return f"file://{Path(os.path.abspath(repository))}"


def _read(path: str) -> str:
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as f:
            content = f.read(MAX_KITFILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > MAX_KITFILE_BYTES:
        raise UsageError(f"{path} is larger than 256 KiB")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text in UTF-8") from error
