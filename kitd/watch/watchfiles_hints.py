"""Hints where there is no inotify: watchfiles' `RustNotify`, run in a thread for each root.

`awatch` walks the tree on the event loop, parks a thread of a shared limiter for each root and ends
for good on the first name that is not UTF-8. Known limits, all covered by scans: pruned directories
are watched too; a watch that cannot be added to a directory that appears later is not reported; a
queue that overflows is not; links to directories are followed.
"""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path
from types import TracebackType
from typing import Self

from watchfiles import Change
from watchfiles._rust_notify import RustNotify

from kitd.blocking import run_blocking
from kitd.watch.hints import HintError
from kitd.watch.identity import Identity, identify

STEP_MS = 100
"""How often a notifier looks; a hint takes one to two steps.

Every look wakes a thread that needs the interpreter's lock, also when nothing happens.
"""
MIN_RETRY_S = 1.0
MAX_RETRY_S = 60.0
"""The pause before a failed notifier is opened again doubles between these two."""
PRUNED = frozenset({".git"})
"""First path components whose changes are no hints."""


class WatchfilesHints:
    """The `Hints` of all projects."""

    descriptor: None = None
    """Scans need not add watches."""

    @contextlib.asynccontextmanager
    async def subscribe(
        self,
        name: str,
        root: Path,
        *,
        on_hint: Callable[[], None],
        on_gap: Callable[[], None],
        on_health: Callable[[HintError | None], None],
    ) -> AsyncIterator["RootHints"]:
        """See `Hints`. `on_gap` comes when the notifier was opened, or could not be."""
        async with RootHints(name, root, on_hint, on_gap, on_health) as hints:
            yield hints

    def scanning(self) -> contextlib.nullcontext[None]:
        """See `Hints`. What a scan does makes no difference."""
        return contextlib.nullcontext()

    async def answer(self) -> None:
        """See `Hints`. A notifier that fails tells its project; there is nothing to ask for."""

    def watched(
        self,
        name: str,
        descriptors: Collection[int],
        *,
        complete: bool,
        refused: int | None,
        remote: str | None,
    ) -> None:
        """See `Hints`. Nothing is done, since no scan adds watches."""


class RootHints:
    """Watches one root while the context is open, and opens a notifier that fails again."""

    def __init__(
        self,
        name: str,
        root: Path,
        on_hint: Callable[[], None],
        on_gap: Callable[[], None],
        on_health: Callable[[HintError | None], None],
    ) -> None:
        self._name = name
        self._root = root
        self._on_hint = on_hint
        self._on_gap = on_gap
        self._on_health = on_health
        # Set to end the current watch or pause; the thread then looks whether it has to stop.
        self._interrupt = threading.Event()
        self._stopping = threading.Event()
        self._opened: Identity | None = None
        self._failing = False
        self._thread: threading.Thread | None = None

    async def __aenter__(self) -> Self:
        # A daemon thread, so that an interpreter that dies without closing this does not hang.
        self._thread = threading.Thread(
            target=self._run,
            args=(asyncio.get_running_loop().call_soon_threadsafe,),
            name=f"hints:{self._name}",
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

    def expect(self, identity: Identity, /) -> None:
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
                post(self._failed, error)
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
                post(self._works)
                while True:
                    # Without a timeout: reaching one drops the changes that came with it.
                    changes = notifier.watch(0, STEP_MS, 0, self._interrupt)
                    if isinstance(changes, str):
                        return
                    if is_hint(root, (path for _, path in changes), PRUNED):
                        post(self._on_hint)
                    if (Change.deleted, root) in changes:
                        # The notifier stays deaf even if a directory comes back under the name.
                        return
        except (OSError, RuntimeError, UnicodeError) as error:
            raise hint_error(self._root, str(error)) from error

    def _works(self) -> None:
        self._failing = False
        self._on_health(None)
        # Of what was before, a notifier that was just opened knows nothing.
        self._on_gap()

    def _failed(self, error: HintError) -> None:
        self._on_health(error)
        if not self._failing:
            # It may have failed over the only notice of a change. From another failure to open it
            # nothing is to be learned.
            self._on_gap()
        self._failing = True


def is_hint(root: str, paths: Iterable[str], pruned: AbstractSet[str]) -> bool:
    """Whether one of the changed paths is outside the pruned first components."""
    start = len(root.rstrip(os.sep)) + 1
    return any(path[start:].split(os.sep, 1)[0] not in pruned for path in paths)


def hint_error(root: Path, reason: str) -> HintError:
    """Say what a failure of the notifier means."""
    return HintError(
        f"no change notifications for {root}: {reason}",
        hint="rename the file: its name is not UTF-8"
        if "to string" in reason
        else "the project is scanned from time to time instead",
    )
