"""Runs the benchmarks and prints the table: all of them, or those named on the command line."""

import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks import idle, interop, pack, save, status
from benchmarks.measure import Row, machine

BENCHMARKS: Mapping[str, Callable[[Path], Iterable[Row | str]]] = {
    "status": status.run,
    "save": save.run,
    "pack": pack.run,
    "idle": idle.run,
    "interop": interop.run,
}


def main(names: Sequence[str]) -> int:
    """Run and print."""
    print(machine())
    for name in names or BENCHMARKS:
        with tempfile.TemporaryDirectory(prefix="kitd-bench-") as place:
            for row in BENCHMARKS[name](Path(place)):
                print(row.cells() if isinstance(row, Row) else row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
