"""A fault registry as a process of its own.

`python -m fault_registry --root DIR [--listen HOST:PORT] [--quirks JSON]` prints its address as a
line of JSON, `{"host": "127.0.0.1:40001"}`, and answers until it is ended. `/-/quirks` takes
another script with POST; `/-/tally` says what it was asked.
"""

import argparse
import asyncio
import json
import tempfile
from pathlib import Path

from fault_registry.quirks import Quirks, parse_quirks
from fault_registry.server import FaultRegistry


async def serve(root: Path, listen: str, quirks: Quirks) -> None:
    host, _, port = listen.rpartition(":")
    registry = FaultRegistry(root, quirks)
    await registry.listen(host, int(port))
    print(json.dumps({"host": registry.host}), flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="fault_registry", description=__doc__)
    parser.add_argument("--root", type=Path, help="an empty directory; default: a temporary one")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT")
    parser.add_argument("--quirks", type=parse_quirks, default=Quirks(), metavar="JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fault-registry-") as temporary:
        root = options.root or Path(temporary) / "root"
        asyncio.run(serve(root, options.listen, options.quirks))


if __name__ == "__main__":
    main()
