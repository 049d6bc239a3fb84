"""kitd whose event loop is blocked for half a minute by the first hint: `blocking_kitd.py FILE`.

FILE is the configuration. What blocks is a source of hints, which is a part like any other.
"""

import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from kitd.config.load import load_config
from kitd.config.places import find_places
from kitd.daemon.guardian import Guardian
from kitd.daemon.log import Logs, open_logs
from kitd.daemon.serve import Controls, serve
from kitd.watch.hints import HintError, Subscription
from kitd.watch.inotify_hints import InotifyHints


class BlockingHints(InotifyHints):
    """Hints that take the event loop with them."""

    def subscribe(
        self,
        name: str,
        root: Path,
        *,
        on_hint: Callable[[], None],
        on_gap: Callable[[], None],
        on_health: Callable[[HintError | None], None],
    ) -> AbstractAsyncContextManager[Subscription]:
        def block() -> None:
            print("blocked", flush=True)
            time.sleep(30)

        return super().subscribe(name, root, on_hint=block, on_gap=on_gap, on_health=on_health)


def main() -> int:
    with open_logs() as logs:
        return live(logs)


def live(logs: Logs) -> int:
    loaded = load_config(find_places(os.environ, os.geteuid(), config=sys.argv[1]))
    logs.configure(loaded.config.log)
    guardian = Guardian(logs.writer)

    def started(daemon: Controls) -> None:
        guardian.on_stop(daemon.stop)

    async def run() -> int:
        await serve(loaded.config, os.environ, started=started, hints=BlockingHints)
        return 0

    return guardian.run(run)


if __name__ == "__main__":
    sys.exit(main())
