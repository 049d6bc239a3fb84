"""Whose watches are whose: one kernel instance watches directories for many projects. No I/O.

The kernel gives one watch to a directory, however often it is added, and projects may lie within
each other, so that a watch can have several owners. Watches are added by scans in other processes,
which tell of them when they end: until then an event may come of a watch that nobody knows.
"""

import itertools
from collections.abc import Collection


class WatchTable:
    """Which projects a watch is for. Watches are the kernel's numbers, which it never reuses."""

    def __init__(self) -> None:
        self._owners: dict[int, tuple[str, ...]] = {}
        self._watches: dict[str, set[int]] = {}
        self._unowned: set[int] = set()
        self._scans = 0
        # What had an event since the oldest scan under way began, and whether that was its last.
        self._heard: dict[int, bool] = {}

    def __len__(self) -> int:
        """Return how many watches have an owner."""
        return len(self._owners)

    def scan_begins(self) -> None:
        """Note that from now on there may be watches that nobody claimed yet."""
        self._scans += 1

    def scan_ends(self) -> None:
        """Note that a scan added its last watch, and claimed what it could.

        What a scan added that died before it could tell is found when there is an event.
        """
        self._scans -= 1
        if self._scans == 0:
            alive = (wd for wd, ended in self._heard.items() if not ended)
            self._unowned.update(wd for wd in alive if wd not in self._owners)
            self._heard.clear()

    def happened(self, wd: int, *, ended: bool) -> tuple[str, ...]:
        """Take an event, which may be the end of its watch, and return who is to be told."""
        owners = self._owners.get(wd, ())
        if self._scans:
            self._heard[wd] = ended
        elif not owners and not ended:
            self._unowned.add(wd)
        if ended:
            self._unowned.discard(wd)
            for name in owners:
                self._disown(name, wd)
        return owners

    def claim(self, name: str, watches: Collection[int], *, complete: bool) -> bool:
        """Make watches a project's; if complete, these and no others.

        Returns whether there was an event that the project has to be told late: it came after a
        scan added the watch and before this.
        """
        found = set(watches)
        held = self._watches.setdefault(name, set())
        new = found - held
        ended = {wd for wd in new if self._heard.get(wd, False)}
        missed = bool(ended) or any(wd in self._heard for wd in new)
        alone = (name,)
        for wd in new - ended:
            held.add(wd)
            others = self._owners.get(wd)
            self._owners[wd] = alone if others is None else (*others, name)
            self._unowned.discard(wd)
        if complete:
            for wd in held - found:
                self._disown(name, wd)
                self._abandon(wd)
        return missed

    def forget(self, name: str) -> None:
        """Take from a project all it has."""
        for wd in self._watches.pop(name, set()):
            self._disown(name, wd)
            self._abandon(wd)

    def take_unowned(self, at_most: int) -> list[int]:
        """Return watches that can be removed.

        None while a scan is under way: it may just have added the same directory.
        """
        if self._scans:
            return []
        taken = list(itertools.islice(self._unowned, at_most))
        self._unowned.difference_update(taken)
        return taken

    def _disown(self, name: str, wd: int) -> None:
        left = tuple(owner for owner in self._owners[wd] if owner != name)
        if left:
            self._owners[wd] = left
        else:
            del self._owners[wd]
        self._watches.get(name, set()).discard(wd)

    def _abandon(self, wd: int) -> None:
        if wd not in self._owners:
            self._unowned.add(wd)
