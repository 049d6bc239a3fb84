"""A process under a `Guardian` with a daemon in it that does what it is told: for test_guardian.

`watched_process.py WHAT` prints `ready` when it can be stopped.
"""

import asyncio
import os
import sys
import time
from functools import partial

from kitd.child import spawn
from kitd.config.model import LogConfig
from kitd.daemon.guardian import Guardian
from kitd.daemon.log import open_logs

WHAT = sys.argv[1]


def say(word):
    print(word, flush=True)


async def daemon(guardian):
    stopped = asyncio.Event()
    if WHAT == "start":
        say("ready")
        await asyncio.sleep(60)
    guardian.on_stop(stopped.set)
    guardian.on_reload(lambda: say("reload"))
    child = await spawn("sleep", "60")
    say(child.pid)
    say("ready")
    if WHAT == "blocks":
        time.sleep(30)
    if WHAT == "stalls":
        time.sleep(3)
        say("back")
    await stopped.wait()
    say("stopping")
    if WHAT in ("never", "lingers"):
        await asyncio.sleep(60)
    if WHAT == "thread":
        # What a dead file system does to whoever reads from it: nothing that can be cancelled.
        reader, _writer = os.pipe()
        asyncio.get_running_loop().run_in_executor(None, os.read, reader, 1)
    return 0


def main():
    with open_logs() as logs:
        logs.configure(LogConfig())
        # Short only where it is to be exceeded: elsewhere a busy machine would exceed it too.
        guardian = Guardian(
            logs.writer,
            answer_s=0.5 if WHAT in ("blocks", "stalls") else 10.0,
            stop_s=2.0 if WHAT == "never" else 30.0,
            leave_s=0.3,
        )
        return guardian.run(partial(daemon, guardian))


if __name__ == "__main__":
    sys.exit(main())
