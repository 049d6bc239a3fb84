"""`kitctl init`: a Kitfile for a directory that has none."""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from kitd.client import request
from kitd.client.error import ProtocolError
from kitd.client.listing import list_directory
from kitd.client.protocol import Document
from kitd.ctl.error import FileExistsAlreadyError, UnwritableFileError
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.format import printable
from kitd.ctl.session import Session

_NAMES = ("Kitfile", "kitfile", ".kitfile")
_STDOUT = "-"


def init_kitfile(
    session: Session,
    *,
    directory: str,
    name: str | None,
    desc: str | None,
    author: Sequence[str],
    force: bool,
    output: str | None,
) -> int:
    """Write a Kitfile for what is in a directory."""
    root = Path(os.path.abspath(directory))
    target = None if output == _STDOUT else Path(os.path.abspath(output or root / _NAMES[0]))
    if target is not None and not force:
        _require_none(root, target, is_default=output is None)
    seen = list_directory(root)
    given = {"name": name or "", "description": desc or "", "authors": list(author)}
    with session.connect() as client:
        answer = client.call(request.generate_kitfile({**seen.document, **given}))
    yaml = answer.get("yaml")
    if not isinstance(yaml, str):
        raise ProtocolError("the daemon sent no Kitfile")
    if target is not None:
        _write(target, yaml, force=force)
    for note in _notes(answer, unnamed=seen.unnamed, unreadable=seen.unreadable):
        session.terminal.note(f"note: {printable(note)}")
    if target is not None:
        session.terminal.note(f"saved to {printable(str(target))}")
    document = {"path": None if target is None else str(target), **answer}
    session.terminal.show_file(document, yaml)
    return ExitCode.DONE


def _require_none(root: Path, target: Path, *, is_default: bool) -> None:
    """Check that nothing is in the way. Raises `FileExistsAlreadyError`."""
    for path in [root / name for name in _NAMES] if is_default else [target]:
        if os.path.lexists(path):
            raise FileExistsAlreadyError(
                f"{path} exists", hint="replace it with --force, or look first with: -o -"
            )


def _write(target: Path, text: str, *, force: bool) -> None:
    """Write a whole file or none. Raises `FileExistsAlreadyError`, `UnwritableFileError`."""
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}") if force else target
    try:
        with open(draft, "x", encoding="utf-8") as file:
            try:
                file.write(text)
                file.flush()
                os.replace(draft, target)
            except OSError:
                draft.unlink(missing_ok=True)
                raise
    except FileExistsError as error:
        raise FileExistsAlreadyError(f"{target} exists", hint="replace it with --force") from error
    except OSError as error:
        raise UnwritableFileError(f"cannot write {target}: {error.strerror}") from error


def _notes(answer: Document, *, unnamed: int, unreadable: Sequence[str]) -> list[str]:
    """Return what a person should know about the Kitfile."""
    notes = []
    if left_out := _words(answer, "left_out"):
        notes.append(f"left out, as tools keep it for themselves: {', '.join(left_out)}")
    if lines := _words(answer, "ignore_lines"):
        notes.append(
            f"an entry of a whole directory packs such things all the same, unless .kitignore has: "
            f"{'  '.join(lines)}"
        )
    if unusable := _words(answer, "unusable"):
        notes.append(f"left out, as a Kitfile cannot name it: {', '.join(unusable)}")
    if unreadable:
        notes.append(f"left out, as you may not list it: {', '.join(unreadable)}")
    if unnamed:
        notes.append(f"left out: {unnamed} with names that are not UTF-8")
    return [*notes, *_words(answer, "warnings")]


def _words(answer: Document, key: str) -> list[str]:
    found = answer.get(key)
    return [str(each) for each in found] if isinstance(found, list) else []
