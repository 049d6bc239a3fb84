"""`kitctl tag` and `remove`: names of kits, given and taken away."""

from kitd.client import request
from kitd.client.protocol import Document
from kitd.ctl.error import UsageError
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.format import plural, printable, short_digest, size
from kitd.ctl.session import Session

REMOTE_S = 300.0
"""How long a registry may take to remove what it is asked to."""
MAX_LINES = 50
"""Kits that are named on a screen, of each kind; `--json` has more."""


def tag_kit(session: Session, *, reference: str, target: str) -> int:
    """Give a kit of the cache another name."""
    with session.connect() as client:
        tagged = client.call(request.tag_kit(reference, target))
    names = [printable(str(name)) for name in tagged.get("references") or ()]
    lines = [f"tagged {printable(reference)} as {name}" for name in names]
    session.terminal.show(tagged, "\n".join(lines))
    return ExitCode.DONE


def remove_kits(
    session: Session,
    *,
    reference: str | None,
    force: bool,
    all: bool,  # noqa: A002 - it is the name of the option
    remote: bool,
) -> int:
    """Take a tag from a kit, or kits from the cache or a registry."""
    if (reference is None) != all:
        raise UsageError("remove what?", hint="name a kit, or say --all")
    if all and remote:
        raise UsageError("--all is about the cache, not about a registry", hint="name each kit")
    asked = (
        request.remove_all_kits(force=force)
        if reference is None
        else request.remove_kit(reference, force=force, remote=remote)
    )
    with session.connect() as client:
        removed = client.call(asked, timeout_s=REMOTE_S)
    session.terminal.show(removed, "\n".join(_lines(removed, remote=remote)))
    return ExitCode.DONE


def _lines(removed: Document, *, remote: bool) -> list[str]:
    lines = _some([f"untagged {gone['reference']}" for gone in removed.get("untagged") or ()])
    lines += _some([_gone(gone) for gone in removed.get("removed") or ()])
    lines += _some([f"kept {kept['reference']}: {kept['why']}" for kept in removed["kept"]])
    if removed.get("omitted"):
        lines.append(f"… and {plural(removed['omitted'], 'kit')} more")
    if not lines:
        return ["nothing to remove"]
    if not remote:
        count = removed.get("collectable_bytes", 0)
        free = f"{size(count)} more can be collected (kitctl cache gc)"
        lines.append(free if count else "nothing more can be collected")
    return lines


def _gone(gone: Document) -> str:
    reference, digest = str(gone["reference"]), str(gone["digest"])
    return f"removed {reference}" + ("" if digest in reference else f" ({short_digest(digest)})")


def _some(lines: list[str]) -> list[str]:
    shown = [printable(line) for line in lines[:MAX_LINES]]
    more = len(lines) - len(shown)
    return [*shown, f"… and {more} more"] if more else shown
