"""Reaping a child leaves nothing to the event loop, however it ends."""

import asyncio
import sys

import pytest

from kitd.child import reap

TALKATIVE = "import sys; sys.stdout.write('x' * 10_000_000)"
SILENT = "import sys; sys.stdin.read()"
FAILING = "raise SystemExit(3)"


@pytest.mark.parametrize(("code", "status"), [(TALKATIVE, 0), (SILENT, 0), (FAILING, 3)])
async def test_a_child_that_ends_is_gone_with_its_pipes(code, status):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-c",
        code,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    transport = process._transport
    assert await reap(process) == status
    assert transport.is_closing()


def test_a_loop_that_ends_right_after_leaves_nothing_open():
    """What is still open when its loop is closed is warned of, which fails a test here."""

    async def run():
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-c",
            SILENT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        process.kill()
        await reap(process)

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(run())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
