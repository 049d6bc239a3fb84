"""What settling promises whatever happens, in whatever order. Time is a number; nothing waits."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kitd.errors import KitdError
from kitd.hold import Hold
from kitd.watch.settle import (
    NOISY_S,
    Broken,
    Scan,
    SettleConfig,
    Settled,
    Settler,
    Snapshot,
    State,
)

DELAYS = st.floats(0.01, 30) | st.sampled_from([0.1, 0.25, 2.0, 60.0])


class Settling(RuleBasedStateMachine):
    """A tree that changes with and without hints, and a driver that does what is due on time."""

    @initialize(
        quiet_s=st.sampled_from([0.0, 0.5, 2.0]),
        max_wait_s=st.sampled_from([5.0, 900.0]),
        min_interval_s=st.sampled_from([0.0, 30.0]),
    )
    def begin(self, quiet_s: float, max_wait_s: float, min_interval_s: float) -> None:
        self.config = SettleConfig(quiet_s, max_wait_s, min_interval_s)
        self.settler = Settler(self.config)
        self.now_s = 100.0
        self.tree = 0
        self.broken = False
        self.held = False
        self.writing = False
        self.last_change_s = self.now_s
        self.last_hint_s = self.now_s
        self.told: str | None = None
        self.told_s: float | None = None
        self.scans = 0

    def drive(self, until_s: float, *, scan_s: float = 0.0) -> None:
        """Do everything that is due up to a time."""
        for _ in range(10_000):
            decision = self.settler.due(self.now_s)
            if isinstance(decision, Scan):
                self.scan(scan_s)
            elif isinstance(decision, Settled):
                self.hear(decision.fingerprint)
            else:
                deadline_s = self.settler.next_deadline_s()
                if deadline_s is None or deadline_s > until_s:
                    break
                assert deadline_s > self.now_s, "a deadline in the past with nothing due"
                self.now_s = deadline_s
        else:
            raise AssertionError("scans without end")
        self.now_s = max(self.now_s, until_s)

    def scan(self, scan_s: float) -> None:
        self.scans += 1
        started_s = self.now_s
        holds = (Hold("writer", "file", "open for writing"),) if self.writing else ()
        seen = Broken(KitdError("broken")) if self.broken else Snapshot(str(self.tree), holds)
        self.now_s += scan_s
        self.settler = self.settler.scanned(seen, started_s, self.now_s)

    def hear(self, fingerprint: str) -> None:
        assert not self.held
        assert not self.writing, "told while a file was being written"
        assert fingerprint == str(self.tree), "settled in a state the tree is not in"
        assert fingerprint != self.told, "the same state was told twice"
        assert self.now_s >= self.last_change_s + self.config.quiet_s, "not quiet yet"
        noise_s = min(self.config.max_wait_s, max(NOISY_S, 2 * self.config.quiet_s))
        in_noise = self.now_s >= self.last_change_s + noise_s
        assert in_noise or self.now_s >= self.last_hint_s + self.config.quiet_s, "hinted just now"
        if self.told_s is not None:
            assert self.now_s >= self.told_s + self.config.min_interval_s, "too often"
        self.told, self.told_s = fingerprint, self.now_s
        self.settler = self.settler.announced(fingerprint, self.now_s)

    def hint(self) -> None:
        self.last_hint_s = self.now_s
        self.settler = self.settler.hinted(self.now_s)

    @rule()
    def change_with_a_hint(self) -> None:
        self.tree += 1
        self.last_change_s = self.now_s
        self.hint()

    @rule()
    def change_without_a_hint(self) -> None:
        # A lost hint right before a scan that is due is beyond any watcher: scans come with a gap.
        self.drive(self.now_s)
        if self.settler.state(self.now_s).state is State.IDLE:
            self.tree += 1
            self.last_change_s = self.now_s

    @rule()
    def hint_at_nothing(self) -> None:
        self.hint()

    @rule(delay_s=DELAYS)
    def time_passes(self, delay_s: float) -> None:
        self.drive(self.now_s + delay_s)

    @rule(delay_s=DELAYS, scan_s=st.floats(0.01, 5))
    def time_passes_and_scans_take_long(self, delay_s: float, scan_s: float) -> None:
        self.drive(self.now_s + delay_s, scan_s=scan_s)

    @rule()
    def rescan(self) -> None:
        self.settler = self.settler.rescan(self.now_s)

    @rule()
    def pack_ends(self) -> None:
        if self.told is not None:
            self.settler = self.settler.packed(self.told)

    @rule()
    def hold(self) -> None:
        self.held = True
        self.settler = self.settler.hold()

    @rule()
    def release(self) -> None:
        self.held = False
        self.settler = self.settler.release(self.now_s)

    @rule()
    def begin_or_end_to_write(self) -> None:
        # Nobody hints when a program ends that has a file open.
        self.drive(self.now_s)
        self.writing = not self.writing

    @rule()
    def pack_finds_that_the_tree_moved(self) -> None:
        if self.told is not None:
            before = self.settler
            self.settler = self.settler.moved(self.told, self.now_s)
            if self.settler is not before:
                self.told = self.told_s = None
                self.last_hint_s = self.now_s

    @rule()
    def break_or_mend(self) -> None:
        self.broken = not self.broken

    @rule()
    def rest_is_told_after_a_rescan(self) -> None:
        """Once nothing moves, rescans alone lead to the last state, in bounded time and scans."""
        self.broken = self.writing = False
        self.release()
        self.settler = self.settler.rescan(self.now_s)
        scans = self.scans
        self.drive(self.now_s + 600)
        assert self.told == str(self.tree)
        assert self.scans - scans <= 8
        assert self.settler.state(self.now_s).state is State.IDLE
        assert self.settler.next_deadline_s() is None

    @invariant()
    def a_held_tree_is_left_alone(self) -> None:
        if self.held:
            assert self.settler.due(self.now_s + 1e6) is None
            assert self.settler.state(self.now_s).state is State.HELD

    @invariant()
    def there_is_always_a_reason(self) -> None:
        assert self.settler.state(self.now_s).describe(self.now_s)


Settling.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestSettling = Settling.TestCase
