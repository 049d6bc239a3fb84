"""`kitctl cache …`."""

from kitd.client import request
from kitd.ctl.exit_code import ExitCode
from kitd.ctl.format import size
from kitd.ctl.session import Session

_MEANINGS = {
    "physical_bytes": "on disk",
    "logical_bytes": "if every kit had its own copy",
    "shared_bytes": "saved by sharing",
    "evictable_bytes": "could be removed",
}


def show_stats(session: Session) -> int:
    """Show how much the cache holds and shares."""
    with session.connect() as client:
        stats = client.call(request.cache_stats())
    lines = [f"{stats.get('blobs'):>10}   blobs"]
    lines += [
        f"{size(stats[name]):>10}   {meaning}"
        for name, meaning in _MEANINGS.items()
        if isinstance(stats.get(name), int)
    ]
    session.terminal.show(stats, "\n".join(lines))
    return ExitCode.DONE
