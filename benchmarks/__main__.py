"""Runs the benchmarks and prints the tables: all of them, or those named on the command line."""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import (
    again,
    close,
    compress,
    crowd,
    exchange,
    flat,
    hostile,
    idle,
    interop,
    layers,
    memory,
    mirror,
    queue,
    save,
    status,
    transfer,
    webhooks,
)
from benchmarks.measure import Settings, machine, peers

BENCHMARKS: Mapping[str, Callable[[Path, Settings], Iterator[str]]] = {
    "status": status.run,
    "save": save.run,
    "layers": layers.run,
    "compress": compress.run,
    "again": again.run,
    "close": close.run,
    "memory": memory.run,
    "idle": idle.run,
    "crowd": crowd.run,
    "hostile": hostile.run,
    "interop": interop.run,
    "exchange": exchange.run,
    "queue": queue.run,
    "transfer": transfer.run,
    "flat": flat.run,
    "mirror": mirror.run,
    "webhooks": webhooks.run,
}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    usual = Settings()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"any of: {', '.join(BENCHMARKS)}; default: all"
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=usual.scale,
        help="make files this many times as large, trees this many times as long; default: 1",
    )
    parser.add_argument(
        "--rounds", type=int, default=usual.rounds, help="runs of each; default: %(default)s"
    )
    parser.add_argument(
        "--quiet", type=float, default=usual.quiet_s, help="settle.quiet; default: %(default)s s"
    )
    parser.add_argument(
        "--idle", type=float, default=usual.idle_s, help="how long idle; default: %(default)s s"
    )
    parsed = parser.parse_args(arguments)
    if unknown := set(parsed.names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    return parsed


def main(arguments: Sequence[str]) -> int:
    """Run and print."""
    parsed = parse(arguments)
    settings = Settings(parsed.scale, parsed.rounds, parsed.quiet, parsed.idle)
    # Daemons and trees are left behind by what does not unwind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    print(machine())
    print(peers(), flush=True)
    for name in parsed.names or BENCHMARKS:
        with tempfile.TemporaryDirectory(prefix="kitd-bench-") as place:
            for table in BENCHMARKS[name](Path(place), settings):
                print(table, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
