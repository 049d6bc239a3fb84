"""A life that writes one row after the other and says what became of each.

`writing_life.py LEDGER` prints `written KEY` or `refused CODE DISPOSITION` for each of them, and at
last `guard CODE` if the ledger can no longer be written.
"""

import asyncio
import sys
from pathlib import Path

from kitd.errors import KitdError
from kitd.ledger.database import Database, Transaction

ROWS = 40


def put(key: str) -> Transaction[str]:
    def transaction(connection) -> str:
        connection.execute("INSERT INTO meta (key, value) VALUES (?, ?)", (key, "x" * 3000))
        return key

    return transaction


async def main(path: Path) -> None:
    async with Database(path) as database:
        for number in range(ROWS):
            try:
                print("written", await database.write(put(f"{number:03}")))
            except KitdError as error:
                print("refused", error.code, error.disposition)
        try:
            async with asyncio.timeout(0.2):
                await database.guard()
        except KitdError as error:
            print("guard", error.code)
        except TimeoutError:
            pass


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
