"""A life that receives deliveries and does nothing else: `webhook_life.py PLACE`.

It prints the port that it listens on. Each delivery asks for a job of its own, which nobody runs.
"""

import asyncio
import os
import sys
from pathlib import Path

from kitd.clock import SystemClock
from kitd.config.address import TcpAddress
from kitd.config.model import WebhooksConfig, WebhookSourceConfig
from kitd.daemon.delivery_desk import DeliveryDesk, Sources
from kitd.ledger import life
from kitd.ledger.database import Database
from kitd.ledger.delivery_ledger import DeliveryLedger
from kitd.ledger.job_ledger import JobLedger
from kitd.secret import Secrets
from kitd.webhooks.receiver import Receiver
from kitd.webhooks.refusal import Refusals
from kitd.webhooks.server import WebhookServer
from told import REGISTRY, Told, follow, is_read


async def main(place: Path) -> None:
    clock = SystemClock()
    source = WebhookSourceConfig(format="told", registry=REGISTRY, secret_file=place / "secret")
    config = WebhooksConfig(sources={"one": source})
    async with Database(place / "ledger.sqlite3") as database:
        begun = await life.begin(database, clock, pid=os.getpid(), version="test")
        ledger = DeliveryLedger(database, clock, JobLedger(database, clock, begun.epoch))
        sources = Sources(lambda: config, {"told": Told()})
        desk = DeliveryDesk(ledger, sources, follow, is_read, Refusals())
        server = WebhookServer(Receiver(desk, clock, Secrets()))
        async with server.listen(TcpAddress("127.0.0.1", 0)) as listener:
            print(listener.getsockname()[1], flush=True)
            await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
