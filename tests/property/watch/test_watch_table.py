"""WatchTable against the kernel's side of it: no event is lost, no watch in use is removed."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kitd.watch.watch_table import WatchTable

NAMES = ("a", "b")
DIRECTORIES = (1, 2, 3)


class Kernel(RuleBasedStateMachine):
    """Directories with watches; scans that watch some of them, later or never telling of it."""

    def __init__(self) -> None:
        super().__init__()
        self.watch_table = WatchTable()
        self.watches: dict[int, int] = {}
        self.next_wd = 1
        self.scans: list[tuple[str, set[int]]] = []
        self.queue: list[tuple[int, bool]] = []
        self.told: set[int] = set()
        self.claimed: dict[str, set[int]] = {name: set() for name in NAMES}
        # Directories that changed since, whose projects were not told yet.
        self.owed: dict[str, set[int]] = {name: set() for name in NAMES}

    @rule(name=st.sampled_from(NAMES))
    def scan_begins(self, name: str) -> None:
        if all(name != other for other, _ in self.scans):
            self.watch_table.scan_begins()
            self.scans.append((name, set()))

    @precondition(lambda self: self.scans)
    @rule(data=st.data(), directory=st.sampled_from(DIRECTORIES))
    def scan_watches(self, data: st.DataObject, directory: int) -> None:
        _, placed = self.scans[data.draw(st.integers(0, len(self.scans) - 1))]
        if directory not in self.watches:
            self.watches[directory] = self.next_wd
            self.next_wd += 1
        placed.add(self.watches[directory])

    @rule(directory=st.sampled_from(DIRECTORIES), deletes=st.booleans())
    def directory_changes(self, directory: int, deletes: bool) -> None:
        wd = self.watches.get(directory)
        if wd is None:
            return
        self.queue.append((wd, False))
        if deletes:
            self.queue.append((wd, True))
            del self.watches[directory]
        for name in NAMES:
            placed = any(wd in found for other, found in self.scans if other == name)
            if placed or wd in self.claimed[name]:
                self.owed[name].add(wd)

    @rule()
    def queue_is_read(self) -> None:
        for wd, ended in self.queue:
            for name in self.watch_table.happened(wd, ended=ended):
                self.owed[name].clear()
            if ended:
                for claimed in self.claimed.values():
                    claimed.discard(wd)
        self.queue.clear()
        self.sweep()

    @precondition(lambda self: self.scans)
    @rule(data=st.data(), dies=st.booleans(), complete=st.booleans())
    def scan_ends(self, data: st.DataObject, dies: bool, complete: bool) -> None:
        name, placed = self.scans.pop(data.draw(st.integers(0, len(self.scans) - 1)))
        if dies:
            # Its next scan is to find out.
            self.owed[name] -= placed - self.claimed[name]
        else:
            self.told |= placed
            if self.watch_table.claim(name, placed, complete=complete):
                self.owed[name].clear()
            if complete:
                self.claimed[name] = set(placed)
                self.owed[name] &= self.claimed[name]
            else:
                self.claimed[name] |= placed
        self.watch_table.scan_ends()
        self.sweep()

    @rule(name=st.sampled_from(NAMES))
    def project_leaves(self, name: str) -> None:
        self.watch_table.forget(name)
        self.claimed[name].clear()
        placed = {wd for other, found in self.scans if other == name for wd in found}
        self.owed[name] &= placed
        self.sweep()

    def sweep(self) -> bool:
        unowned = self.watch_table.take_unowned(2)
        for wd in unowned:
            assert not self.scans
            assert all(wd not in claimed for claimed in self.claimed.values())
            for directory, watch in list(self.watches.items()):
                if watch == wd:
                    del self.watches[directory]
                    self.queue.append((wd, True))
        return bool(unowned)

    @invariant()
    def everybody_is_told_once_the_queue_is_read_and_their_scan_ended(self) -> None:
        if self.queue:
            return
        for name in NAMES:
            if all(name != other for other, _ in self.scans):
                assert self.owed[name] == set()

    def teardown(self) -> None:
        """With everybody gone, no watch that anybody told of is left."""
        for name in NAMES:
            self.watch_table.forget(name)
            self.claimed[name].clear()
        while self.scans:
            self.scans.pop()
            self.watch_table.scan_ends()
        assert len(self.watch_table) == 0
        while self.sweep():
            pass
        assert not self.told.intersection(self.watches.values())


TestWatchTable = Kernel.TestCase
TestWatchTable.settings = settings(max_examples=200, stateful_step_count=40)


def test_a_watch_of_nobody_is_removed_once_it_has_an_event():
    watch_table = WatchTable()
    assert watch_table.happened(7, ended=False) == ()
    assert watch_table.take_unowned(10) == [7]
    assert watch_table.take_unowned(10) == []


def test_nothing_is_removed_while_a_scan_is_under_way():
    watch_table = WatchTable()
    watch_table.claim("a", [1, 2], complete=True)
    watch_table.scan_begins()
    watch_table.claim("a", [2], complete=True)
    assert watch_table.take_unowned(10) == []
    watch_table.scan_ends()
    assert watch_table.take_unowned(10) == [1]


def test_a_watch_that_another_project_needs_stays():
    watch_table = WatchTable()
    watch_table.claim("a", [1], complete=True)
    watch_table.claim("b", [1], complete=True)
    watch_table.forget("a")
    assert watch_table.take_unowned(10) == []
    assert watch_table.happened(1, ended=False) == ("b",)


def test_a_watch_that_ended_before_it_was_claimed_is_told_and_not_kept():
    watch_table = WatchTable()
    watch_table.scan_begins()
    watch_table.happened(1, ended=True)
    assert watch_table.claim("a", [1], complete=True)
    watch_table.scan_ends()
    assert len(watch_table) == 0
    assert watch_table.take_unowned(10) == []


def test_an_event_before_the_claim_is_told_with_it_to_everybody_who_placed_the_watch():
    watch_table = WatchTable()
    watch_table.scan_begins()
    watch_table.scan_begins()
    assert watch_table.happened(1, ended=False) == ()
    assert watch_table.claim("a", [1], complete=True)
    watch_table.scan_ends()
    assert watch_table.claim("b", [1], complete=True)
    watch_table.scan_ends()
    assert not watch_table.claim("a", [1], complete=True)


def test_an_event_before_a_scan_is_not_told_after_it():
    watch_table = WatchTable()
    watch_table.claim("a", [1], complete=True)
    watch_table.scan_begins()
    assert watch_table.happened(1, ended=False) == ("a",)
    watch_table.scan_ends()
    watch_table.scan_begins()
    assert not watch_table.claim("b", [1], complete=True)
