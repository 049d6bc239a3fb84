"""kitd with a share of its hints lost on the way, and scans often enough to make up for it.

`lossy_kitd.py SHARE --config FILE --socket PATH` keeps each hint with the probability SHARE. That
some are lost is told to nobody.
"""

import argparse
import asyncio
import os
import random
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from kitd.config.load import load_config
from kitd.config.model import Config
from kitd.config.places import find_places
from kitd.daemon.log import open_logs
from kitd.daemon.serve import serve
from kitd.watch.hints import HintError, Subscription
from kitd.watch.inotify_hints import InotifyHints
from kitd.watch.project_watcher import Intervals

OFTEN = Intervals(rescan_s=1.0, poll_s=1.0, broken_s=1.0, max_broken_s=1.0)


class LossyHints(InotifyHints):
    """Hints of which only a share arrives."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self._share = share

    def subscribe(
        self,
        name: str,
        root: Path,
        *,
        on_hint: Callable[[], None],
        on_gap: Callable[[], None],
        on_health: Callable[[HintError | None], None],
    ) -> AbstractAsyncContextManager[Subscription]:
        def sometimes() -> None:
            if random.random() < self._share:
                on_hint()

        return super().subscribe(name, root, on_hint=sometimes, on_gap=on_gap, on_health=on_health)


async def run(config: Config, share: float) -> None:
    loop = asyncio.get_running_loop()
    await serve(
        config,
        os.environ,
        started=lambda daemon: loop.add_signal_handler(signal.SIGTERM, daemon.stop),
        hints=lambda: LossyHints(share),
        intervals=OFTEN,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("share", type=float)
    parser.add_argument("--config", required=True)
    parser.add_argument("--socket", required=True)
    options = parser.parse_args()
    places = find_places(os.environ, os.geteuid(), config=options.config, socket=options.socket)
    config = load_config(places).config
    with open_logs() as logs:
        logs.configure(config.log)
        asyncio.run(run(config, options.share))


if __name__ == "__main__":
    main()
