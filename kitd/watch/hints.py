"""Hints that something under a project's root may have changed: what a source of them offers.

A hint carries no detail on purpose: queues overflow, directories appear faster than they are
watched, and network file systems tell of nothing that others do. What changed is for a scan to say.

`inotify_hints` is the source on Linux, `watchfiles_hints` on systems without inotify.
"""

from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import ClassVar, Protocol

from kitd.errors import Disposition, KitdError
from kitd.watch.identity import Identity


class HintError(KitdError):
    """There are no notifications for a root right now; scans find its changes more slowly."""

    code = "watch_hints"
    disposition: ClassVar[Disposition] = Disposition.RETRY


class Subscription(Protocol):
    """The hints of one project."""

    def expect(self, identity: Identity, /) -> None:
        """Note which directory a scan begins in: hints for another one are of no use."""
        ...


class Hints(Protocol):
    """Where the hints of all projects come from. Belongs to one event loop."""

    @property
    def descriptor(self) -> int | None:
        """The inotify instance that scans add watches to; None where they need not."""
        ...

    def subscribe(
        self,
        name: str,
        root: Path,
        *,
        on_hint: Callable[[], None],
        on_gap: Callable[[], None],
        on_health: Callable[["HintError | None"], None],
    ) -> AbstractAsyncContextManager[Subscription]:
        """Give a project its hints while the context is open. One subscription for a name.

        The callbacks run in the event loop and must not raise. `on_hint()`: something may have
        changed. `on_gap()`: from a moment ago on changes are hinted, of those before some may have
        gone unnoticed; only a scan can tell. It comes first of all, as soon as a scan makes sense.
        `on_health(error)`: changes are not hinted, or not all, until `on_health(None)`. It comes
        when that is known, and again when it is different.
        """
        ...

    def scanning(self) -> AbstractContextManager[None]:
        """Keep open while a scan may add watches."""
        ...

    async def answer(self) -> None:
        """Return once something that was asked for now has come the way that hints come.

        Raises `HintError` where there are no hints.
        """
        ...

    def watched(
        self,
        name: str,
        descriptors: Collection[int],
        *,
        complete: bool,
        refused: int | None,
        remote: str | None,
    ) -> None:
        """Take what a scan tells of the watches it added, while it is still `scanning`.

        If `complete`, these are all that the project needs. `refused` is the errno of a watch that
        could not be added, `remote` a file system that keeps quiet about what other machines do.
        """
        ...
