"""What runs of mirrors came to, in a line. Pure."""

from collections import Counter
from collections.abc import Sequence

from kitd.client.record import Mirrored
from kitd.ctl.format import size

_ACTIONS = ("copied", "unchanged", "skipped", "deleted", "failed")


def mirrored_text(results: Sequence[Mirrored]) -> str:
    """Return how many tags met which fate, and what that took: `2 copied; 10.0 KiB sent`."""
    counts: Counter[str] = Counter()
    for result in results:
        counts.update(result.counts)
    moved = {
        "sent": sum(result.sent_bytes for result in results),
        "mounted": sum(result.mounted_bytes for result in results),
        "skipped": sum(result.skipped_bytes for result in results),
    }
    done = ", ".join(f"{counts[action]} {action}" for action in _ACTIONS if counts[action])
    sizes = ", ".join(f"{size(count)} {how}" for how, count in moved.items() if count)
    return (done or "there are no tags to copy") + (f"; {sizes}" if sizes else "")
