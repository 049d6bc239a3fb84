"""Child processes: begun and ended so that nothing of them is left, whenever that is cancelled."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from functools import partial

from kitd.blocking import uninterrupted

READ_BYTES = 1 << 16

_living: set[asyncio.subprocess.Process] = set()
"""All children that were started and not ended: the process that ends at once takes them along."""
_sharing: set[asyncio.subprocess.Process] = set()
"""Those of them that share the session of this process, and its group."""


async def spawn(
    *command: str,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    stderr: int | None = None,
    limit: int = READ_BYTES,
    pass_fds: Sequence[int] = (),
    shares_session: bool = False,
) -> asyncio.subprocess.Process:
    """Start a child with pipes for stdin and stdout, in a session of its own. Raises `OSError`.

    One that `shares_session` has the terminal, if there is one, and is ended without its children.
    `limit` is the longest line that can be read from it, `pass_fds` are the descriptors that it
    inherits under their numbers. `end` it in any case; when this is cancelled, the child is ended
    with all that it started.
    """
    # In a task: where it is cancelled itself, asyncio ends the child and not the child's children.
    starting = asyncio.create_task(
        asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            env=env,
            limit=limit,
            cwd=cwd,
            start_new_session=not shares_session,
            pass_fds=pass_fds,
        )
    )
    starting.add_done_callback(partial(_note, shares_session=shares_session))
    try:
        return await uninterrupted(starting)
    except asyncio.CancelledError:
        if starting.exception() is None:
            await end(starting.result())
        raise


async def end(process: asyncio.subprocess.Process) -> None:
    """Kill a child of `spawn`, with all that it started, also if it ended; leave nothing of it.

    What it printed and nobody read is thrown away.
    """
    _kill(process)
    # Must not be cut short: a process that is not waited for stays as a zombie.
    await asyncio.shield(_reap(process))


def kill_children() -> None:
    """Kill every child with all that it started, and wait for none: for a process that ends now.

    May be called from any thread.
    """
    for process in tuple(_living):
        _kill(process)


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        if process in _sharing:
            if process.returncode is None:
                process.kill()
        elif process.returncode is None or _is_nobodys(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


def _is_nobodys(pid: int) -> bool:
    """Whether no process has a number, so that a group of that number is an ended child's.

    The kernel gives a number to nobody else while a group has it (setpgid(2)).
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _note(starting: asyncio.Task[asyncio.subprocess.Process], *, shares_session: bool) -> None:
    if not starting.cancelled() and starting.exception() is None:
        _living.add(starting.result())
        if shares_session:
            _sharing.add(starting.result())


async def _reap(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    # By hand: the loop closes pipes once everybody who has them is gone, which may be never where
    # an ended child left children. Not the transport as a whole: that would ask the kernel how the
    # child ended, and take the answer from the thread of the loop that waits for it.
    transport = process._transport  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
    for number in (0, 1, 2):
        if (pipe := transport.get_pipe_transport(number)) is not None:
            pipe.close()
    while await process.stdout.read(READ_BYTES):
        pass
    with contextlib.suppress(ConnectionError):
        await process.stdin.wait_closed()
    await process.wait()
    _living.discard(process)
    _sharing.discard(process)
