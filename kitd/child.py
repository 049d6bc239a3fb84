"""Ending child processes so that nothing of them is left to the event loop."""

import asyncio
import contextlib

READ_BYTES = 1 << 16


async def reap(process: asyncio.subprocess.Process) -> int:
    """Wait for a child that ends, and for its pipes; return its exit status.

    Its stdin and stdout have to be pipes. What it still prints is thrown away.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    # A process counts as ended when its output was read to the end, so this comes first.
    while await process.stdout.read(READ_BYTES):
        pass
    status = await process.wait()
    with contextlib.suppress(ConnectionError):
        await process.stdin.wait_closed()
    # The loop does so by itself, a round later: one that ends now would leave it undone.
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
    return status
