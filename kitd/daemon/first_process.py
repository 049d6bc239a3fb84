"""What the first process of a container owes the others: it passes signals on and buries the dead.

The kernel gives every orphan to process 1 (pid_namespaces(7)), and one that nobody waits for stays
in the process table for ever. A worker that is killed leaves such orphans, and so do the credential
helpers of others. The kernel also keeps from process 1 every signal that it has no handler for,
even the timer with which kitd ends itself where all else hangs.
"""

import os
import signal
from collections.abc import Callable

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def run_behind_first(life: Callable[[], int]) -> int:
    """Return the exit code of `life`, which is run in a child where this is process 1.

    Call it before there are threads. In the child it returns as well.
    """
    return life() if os.getpid() != 1 else _as_first(life)


def _as_first(life: Callable[[], int]) -> int:
    awaited = {*_PASSED_ON, signal.SIGCHLD}
    # Blocked before there is a child: what comes in between waits for `sigwait`.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    child = os.fork()
    if child == 0:
        # What a terminal sends, it sends to a whole group: once to each, and then passed on too.
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return life()
    while True:
        number = signal.sigwait(awaited)
        if number != signal.SIGCHLD:
            # It is there, or a zombie, until `_bury` has waited for it.
            os.kill(child, number)
        elif (status := _bury(child)) is not None:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _bury(child: int) -> int | None:
    """Wait for all who have ended; return the status of the child if it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == child:
            found = status
