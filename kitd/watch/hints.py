"""Hints from the kernel that something under a root may have changed.

A hint carries no detail on purpose: inotify queues overflow, directories appear faster than they
are watched, and the notifier below tells of neither. What changed is for a scan to say.

The notifier is watchfiles' `RustNotify`, run in a thread of our own. `awatch` walks the tree on the
event loop, parks a thread of a shared limiter for each root and ends for good on the first name
that is not UTF-8. Known limits, all covered by scans: every directory below the root costs a kernel
watch, pruned ones too; a watch that cannot be added to a directory that appears later is not
reported; links to directories are followed.
"""

import asyncio
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from watchfiles import Change
from watchfiles._rust_notify import RustNotify

from kitd.blocking import run_blocking
from kitd.errors import Disposition, KitdError

MIN_STEP_MS = 40
MAX_STEP_MS = 200
"""How often the notifier looks is between these two, see `step_ms`.

A hint takes one to two steps. Every look wakes a thread that needs the interpreter's lock, also
when nothing happens: for 100 roots 2,500 wake-ups a second at 40 ms, 500 at 200 ms.
"""
MIN_RETRY_S = 1.0
MAX_RETRY_S = 60.0
"""The pause before a failed notifier is opened again doubles between these two."""
PRUNED = frozenset({".git"})
"""First path components whose changes are no hints."""

Identity = tuple[int, int]
"""Device and inode of a directory."""


class HintError(KitdError):
    """There are no notifications for a root right now; scans find its changes more slowly."""

    code = "watch_hints"
    disposition: ClassVar[Disposition] = Disposition.RETRY


def identify(root: Path) -> Identity | None:
    """Return which directory the path names now, or None if it names none that can be seen."""
    try:
        status = root.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None


def is_hint(root: str, paths: Iterable[str], pruned: AbstractSet[str]) -> bool:
    """Whether one of the changed paths is outside the pruned first components."""
    start = len(root.rstrip(os.sep)) + 1
    return any(path[start:].split(os.sep, 1)[0] not in pruned for path in paths)


def hint_error(root: Path, reason: str) -> HintError:
    """Name the kernel limit that a failure of the notifier comes from, where it is one."""
    message = f"no change notifications for {root}: {reason}"
    if "(os error 24)" in reason:
        hint = "raise the limit: sysctl fs.inotify.max_user_instances=1024"
    elif "watch limit" in reason or "(os error 28)" in reason:
        hint = "raise the limit: sysctl fs.inotify.max_user_watches=1048576"
    elif "to string" in reason:
        hint = "rename the file: its name is not UTF-8"
    else:
        hint = "the project is scanned from time to time instead"
    return HintError(message, hint=hint)


def step_ms(quiet_s: float) -> int:
    """Return how often to look at a root that has to be quiet for so long before it is scanned.

    A tenth of it: hints are then late by at most a fifth of what is waited for anyway.
    """
    return min(max(round(quiet_s * 100), MIN_STEP_MS), MAX_STEP_MS)


class HintSource:
    """Watches one root while the context is open, and opens a notifier that fails again.

    The callbacks run in the event loop that entered the context. `on_hint()` says that something
    may have changed, `on_health(None)` that from now on changes are hinted, `on_health(error)` that
    they no longer are. Both of the latter call for a scan: a notifier that was opened knows nothing
    of what was before, and one that failed may have failed over the only notice of a change.
    """

    def __init__(
        self,
        root: Path,
        *,
        on_hint: Callable[[], None],
        on_health: Callable[[HintError | None], None],
        pruned: AbstractSet[str] = PRUNED,
        step_ms: int = MIN_STEP_MS,
    ) -> None:
        self._root = root
        self._on_hint = on_hint
        self._on_health = on_health
        self._pruned = pruned
        self._step_ms = step_ms
        # Set to end the current watch or pause; the thread then looks whether it has to stop.
        self._interrupt = threading.Event()
        self._stopping = threading.Event()
        self._opened: Identity | None = None
        self._thread: threading.Thread | None = None

    async def __aenter__(self) -> Self:
        # A daemon thread, so that an interpreter that dies without closing this does not hang.
        self._thread = threading.Thread(
            target=self._run,
            args=(asyncio.get_running_loop().call_soon_threadsafe,),
            name=f"hints:{self._root.name}",
            daemon=True,
        )
        self._thread.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._interrupt.set()
        if self._thread is not None:
            await run_blocking(self._thread.join)

    def expect(self, identity: Identity) -> None:
        """Open the notifier again if the root is not the directory that it was opened on."""
        if identity != self._opened:
            self._interrupt.set()

    def _run(self, post: Callable[..., object]) -> None:
        retry_s = MIN_RETRY_S
        while True:
            self._interrupt.clear()
            # Only now: a stop that came before is not undone by the line above.
            if self._stopping.is_set():
                return
            opened_s = time.monotonic()
            try:
                self._watch(post)
            except HintError as error:
                if time.monotonic() - opened_s > MAX_RETRY_S:
                    retry_s = MIN_RETRY_S
                post(self._on_health, error)
                self._interrupt.wait(retry_s)
                retry_s = min(2 * retry_s, MAX_RETRY_S)

    def _watch(self, post: Callable[..., object]) -> None:
        """Post hints until interrupted or until the root is gone. Raises `HintError`."""
        root = str(self._root)
        self._opened = identify(self._root)
        if self._opened is None:
            raise hint_error(self._root, "there is no such directory")
        try:
            # Not ignoring permission errors, because that would ignore every other error too.
            with RustNotify([root], False, False, 0, True, False) as notifier:  # noqa: FBT003 - positional only
                post(self._on_health, None)
                while True:
                    # Without a timeout: reaching one drops the changes that came with it.
                    changes = notifier.watch(0, self._step_ms, 0, self._interrupt)
                    if isinstance(changes, str):
                        return
                    if is_hint(root, (path for _, path in changes), self._pruned):
                        post(self._on_hint)
                    if (Change.deleted, root) in changes:
                        # The notifier stays deaf even if a directory comes back under the name.
                        return
        except (OSError, RuntimeError, UnicodeError) as error:
            raise hint_error(self._root, str(error)) from error
