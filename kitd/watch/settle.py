"""When is a tree at rest? A state machine over hints, scans and time, without I/O or a clock.

Who drives it reports what happened (`hinted`, `scanned`, `packed`, ...) with monotonic seconds,
asks `due` what to do now and `next_deadline_s` when to ask again. Every transition returns a new
`Settler`.

The rules, in the order in which they hold a tree back:

1. A hint, or a scan that differs from what was announced last, makes the tree dirty.
2. It has to be quiet: `quiet_s` since the last hint and since the last scan that differed.
3. Two scans at least `CONFIRM_S` apart have to agree, the second of them after the quiet time,
   because a hint can be lost and a scan can be taken across a change.
   A scan that came so soon after a change that the next one might not show says nothing.
4. Nothing may hold it: a scan names what says that a file is not finished or that a tool is at
   work (`Hold`). While something does, the tree is looked at again and again, ever less often.
5. A tree that settled has to wait `min_interval_s` for its next turn; the last state is announced.
6. A tree that moved under its pack has to be quiet twice as long each time, until a pack succeeds.
   One whose pack failed is announced again, ever less often.
7. Hints alone hold a tree back for half a minute, since they may concern files that no kit
   contains; after that two scans a minute apart that agree are enough. Scans that differ and holds
   go on holding it. A tree that is dirty for longer than `max_wait_s` is reported as blocked.
"""

import enum
import math
from dataclasses import dataclass, field, replace
from typing import Self

from kitd.errors import KitdError
from kitd.hold import HOLD_FILE, MAX_HOLDS, Hold

CONFIRM_S = 0.25
"""The least time between the two scans that have to agree."""
NOISY_S = 30.0
"""For so long hints alone hold a tree back, or for twice the quiet time."""
NOISY_SCAN_S = 60.0
"""The least time between scans of a tree whose hints never cease, after that."""
PROBE_S = 1.0
MAX_PROBE_S = 30.0
"""A held tree is scanned again after the first of these, then after twice as long each time up to
the second: a program that closes a file it wrote before tells nobody."""
FAILED_S = 60.0
MAX_FAILED_S = 3600.0
"""A state whose pack failed is announced again after the first of these, then after twice as long
each time up to the second."""
MAX_QUIET_S = 120.0
"""How long a tree that keeps moving under its packs has to be quiet at most."""


class State(enum.StrEnum):
    """What a project's watcher is doing."""

    IDLE = "idle"
    """The tree is as it was announced last."""
    DIRTY = "dirty"
    """The tree changed, or may have, and is not quiet yet."""
    SETTLING = "settling"
    """The tree is quiet; somebody is still at work on it, a second scan has to agree, or its turn
    has to come."""
    BLOCKED = "blocked"
    """The tree cannot be scanned, or does not come to rest."""
    HELD = "held"
    """A person asked kitd to keep its hands off."""
    DEGRADED = "degraded"
    """Idle, but changes are only found by scanning: the notifications do not work."""


@dataclass(frozen=True, slots=True)
class WatchState:
    """A state, why nothing happens yet, and until when (monotonic seconds; None: unknown)."""

    state: State
    reason: str
    until_s: float | None = field(default=None, compare=False)
    holds: tuple[Hold, ...] = field(default=(), compare=False)
    """Everything that holds the tree back; the reason names the first."""

    def describe(self, now_s: float) -> str:
        """Return the reason with the time that remains."""
        if self.until_s is None:
            return self.reason
        return f"{self.reason}: {max(0.0, self.until_s - now_s):.1f} s to go"


@dataclass(frozen=True, slots=True)
class SettleConfig:
    """How patient a project is."""

    quiet_s: float = 2.0
    max_wait_s: float = 900.0
    min_interval_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a scan saw: equal fingerprints mean equal inputs of a kit; what is not finished.

    `racy` if a change a moment later need not have shown.
    """

    fingerprint: str
    holds: tuple[Hold, ...] = ()
    racy: bool = False


@dataclass(frozen=True, slots=True)
class Broken:
    """Why a scan could not say what a kit would contain."""

    error: KitdError


Observation = Snapshot | Broken


@dataclass(frozen=True, slots=True)
class Scan:
    """The tree has to be scanned now."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The tree rests in a state that was not announced before."""

    fingerprint: str


Decision = Scan | Settled


@dataclass(frozen=True, slots=True)
class _Unsettled:
    """What is known of a tree that is not at rest, since it became dirty at `since_s`."""

    since_s: float
    active_s: float
    """When the last hint came, or the last scan that differed from the one before."""
    candidate: str | None = None
    candidate_s: float = -math.inf
    """When the first of the equal scans that saw the candidate ended."""
    holds: tuple[Hold, ...] = ()
    """What the last scan found to hold the candidate back."""
    probes: int = 0
    """The scans since the candidate was quiet that found it held."""
    probed_s: float = -math.inf
    """When the last of them ended."""


@dataclass(frozen=True, slots=True)
class Settler:
    """The settling of one tree. Begin with the fingerprint that was packed last, if there is one.

    A new settler is idle: ask for the first scan with `rescan`.
    """

    config: SettleConfig
    last_packed: str | None = None
    _announced: str | None = None
    _announced_s: float = -math.inf
    _resting: str | None = None
    _unsettled: _Unsettled | None = None
    _error: KitdError | None = None
    _held: bool = False
    _wanted_s: float | None = None
    looked: bool = False
    """Whether there was a scan that said anything."""
    _moves: int = 0
    """Packs in a row that the tree moved under."""
    _given_up: str | None = None
    """The state whose pack came to nothing."""
    _failures: int = 0
    """Packs in a row that failed."""

    def hinted(self, now_s: float) -> Self:
        """Something under the root may have changed."""
        unsettled = self._unsettled
        if unsettled is None:
            unsettled = _Unsettled(since_s=now_s, active_s=now_s)
        elif now_s < self._noisy_s(unsettled):
            unsettled = _Unsettled(unsettled.since_s, active_s=now_s)
        else:
            # The scan before stays: two that agree are now the only way out.
            unsettled = replace(unsettled, active_s=now_s)
        return replace(self, _resting=None, _unsettled=unsettled)

    def rescan(self, now_s: float) -> Self:
        """Ask for a scan that begins now or later; only its result can make the tree dirty."""
        return replace(self, _wanted_s=now_s)

    def scanned(self, observation: Observation, started_s: float, now_s: float) -> Self:
        """Take the result of a scan that ran from `started_s` to `now_s`."""
        wanted = self._wanted_s
        if wanted is not None and wanted <= started_s:
            wanted = None
        settler = replace(self, _wanted_s=wanted, _error=None)
        unsettled = self._unsettled
        if isinstance(observation, Broken):
            # There is nothing to compare until the scan works again, so only a hint or a rescan
            # leads to the next one.
            left = _hinted_since(unsettled, started_s)
            return replace(settler, _error=observation.error, _unsettled=left, _resting=None)
        settler = replace(settler, looked=True)
        seen, holds = observation.fingerprint, observation.holds
        if unsettled is None:
            if seen == self._known:
                return replace(settler, _given_up=None)
            unsettled = _Unsettled(now_s, now_s, seen, now_s, holds)
        elif unsettled.candidate is None:
            unsettled = replace(unsettled, candidate=seen, candidate_s=now_s, holds=holds)
        elif unsettled.candidate != seen:
            unsettled = _Unsettled(unsettled.since_s, now_s, seen, now_s, holds)
        elif started_s >= self._scan_s(unsettled):
            if (holds or observation.racy) and seen != self._known:
                probes = unsettled.probes + 1
                held = replace(unsettled, holds=holds, probes=probes, probed_s=now_s)
                return replace(settler, _unsettled=held)
            resting = None if seen == self._known else seen
            left = _hinted_since(unsettled, started_s)
            return replace(settler, _unsettled=left, _resting=resting, _given_up=None)
        return replace(settler, _unsettled=unsettled)

    def announced(self, fingerprint: str, now_s: float) -> Self:
        """Note that somebody was told that the tree rests in this state."""
        return replace(
            self, _resting=None, _announced=fingerprint, _announced_s=now_s, _given_up=None
        )

    def packed(self, fingerprint: str) -> Self:
        """Note that a kit of this state exists."""
        # The pack of an older state may finish after a newer state was announced.
        announced = None if self._announced == fingerprint else self._announced
        resting = None if self._resting == fingerprint else self._resting
        return replace(
            self,
            last_packed=fingerprint,
            _announced=announced,
            _resting=resting,
            _moves=0,
            _given_up=None,
            _failures=0,
        )

    def moved(self, fingerprint: str, now_s: float) -> Self:
        """Note that the tree was not in this state any more when it was to be packed."""
        if self._announced != fingerprint:
            # A newer state was announced since, or a kit of this one exists after all.
            return self
        settler = replace(
            self, _announced=None, _announced_s=-math.inf, _resting=None, _moves=self._moves + 1
        )
        return settler.hinted(now_s)

    def failed(self, fingerprint: str, now_s: float) -> Self:
        """Note that the pack of this state failed: it is announced again, after a while."""
        if self._announced != fingerprint:
            return self
        pause_s = min(MAX_FAILED_S, FAILED_S * 2.0 ** min(self._failures, 32))
        again_s = min(now_s + pause_s, math.inf if self._wanted_s is None else self._wanted_s)
        return replace(self.cancelled(fingerprint), _wanted_s=again_s, _failures=self._failures + 1)

    def cancelled(self, fingerprint: str) -> Self:
        """Note that the pack of this state is not wanted: it is announced again after a rescan."""
        if self._announced != fingerprint:
            return self
        return replace(self, _announced=None, _given_up=fingerprint)

    def last_turn(self, at_s: float) -> Self:
        """Note when a state was announced before this settler began."""
        return replace(self, _announced_s=max(self._announced_s, at_s))

    def hold(self) -> Self:
        """Scan and announce nothing until `release`."""
        return replace(self, _held=True)

    def release(self, now_s: float) -> Self:
        """End a hold. The tree is looked at anew, since nobody looked in the meantime."""
        if not self._held:
            return self
        return replace(self, _held=False).hinted(now_s)

    def due(self, now_s: float) -> Decision | None:
        """Return what has to happen now, or None until `next_deadline_s` or another report."""
        if self._held:
            return None
        if self._resting is not None:
            return Settled(self._resting)
        deadline = self.next_deadline_s()
        return Scan() if deadline is not None and deadline <= now_s else None

    def next_deadline_s(self) -> float | None:
        """Return when `due` will have something to do if nothing else happens; None for never."""
        if self._held:
            return None
        if self._resting is not None:
            return -math.inf
        if self._wanted_s is not None:
            return self._wanted_s
        return None if self._unsettled is None else self._scan_s(self._unsettled)

    def state(self, now_s: float) -> WatchState:
        """Return the state and why nothing happens yet."""
        if self._held:
            return WatchState(State.HELD, "nothing is packed until it is released")
        if self._error is not None:
            return WatchState(State.BLOCKED, self._error.describe())
        if self._unsettled is not None:
            return self._unsettled_state(self._unsettled, now_s)
        if self._announced is not None or self._resting is not None:
            return WatchState(State.IDLE, "at rest; a pack of this state is on its way")
        if self._given_up is not None:
            return WatchState(State.IDLE, "at rest in a state whose pack came to nothing")
        if not self.looked:
            return WatchState(State.DIRTY, "it was not looked at yet")
        return WatchState(State.IDLE, "nothing changed since the last kit")

    def _unsettled_state(self, unsettled: _Unsettled, now_s: float) -> WatchState:
        until = self._scan_s(unsettled)
        quiet_until = unsettled.active_s + self._quiet_s
        seen = unsettled.candidate is not None
        if unsettled.holds and quiet_until <= now_s:
            return self._held_back(unsettled.holds, overdue=now_s >= self._overdue_s(unsettled))
        if seen and self._turn_s > max(quiet_until, now_s):
            return WatchState(
                State.SETTLING,
                f"waiting for its turn, one version every {self.config.min_interval_s:g} s",
                until,
            )
        if now_s >= self._overdue_s(unsettled):
            return WatchState(
                State.BLOCKED,
                f"still changing after {self.config.max_wait_s:g} s; it is packed once it rests",
                until,
            )
        if seen and quiet_until <= now_s:
            return WatchState(State.SETTLING, "waiting for a second scan to agree", until)
        return WatchState(
            State.DIRTY, f"waiting for {self._quiet_s:g} s without a change", quiet_until
        )

    def _held_back(self, holds: tuple[Hold, ...], *, overdue: bool) -> WatchState:
        reason = holds[0].describe()
        if len(holds) > 1:
            count = f"at least {MAX_HOLDS - 1}" if len(holds) >= MAX_HOLDS else len(holds) - 1
            reason += f" (and {count} more)"
        if any(hold.gate == HOLD_FILE for hold in holds):
            return WatchState(State.HELD, reason, holds=holds)
        return WatchState(State.BLOCKED if overdue else State.SETTLING, reason, holds=holds)

    @property
    def _known(self) -> str | None:
        """The state that the outside was told of last."""
        return self.last_packed if self._announced is None else self._announced

    @property
    def _turn_s(self) -> float:
        """When the next state may be announced."""
        return self._announced_s + self.config.min_interval_s

    @property
    def _quiet_s(self) -> float:
        """The quiet time, longer for a tree that moved under its packs."""
        if self._moves == 0:
            return self.config.quiet_s
        longer_s = max(self.config.quiet_s, CONFIRM_S) * 2.0 ** min(self._moves, 32)
        return max(self.config.quiet_s, min(longer_s, MAX_QUIET_S))

    def _overdue_s(self, unsettled: _Unsettled) -> float:
        return unsettled.since_s + self.config.max_wait_s

    def _noisy_s(self, unsettled: _Unsettled) -> float:
        return unsettled.since_s + min(self.config.max_wait_s, max(NOISY_S, 2 * self._quiet_s))

    def _scan_s(self, unsettled: _Unsettled) -> float:
        """Return when the next scan begins; one that begins later may settle the tree."""
        rested = unsettled.active_s + self._quiet_s
        in_noise = max(
            self._noisy_s(unsettled),
            unsettled.candidate_s + max(self._quiet_s, NOISY_SCAN_S),
        )
        if unsettled.candidate is None:
            return min(rested, in_noise)
        scan_s = max(min(rested, in_noise), unsettled.candidate_s + CONFIRM_S, self._turn_s)
        if unsettled.probes == 0:
            return scan_s
        pause_s = min(MAX_PROBE_S, PROBE_S * 2.0 ** min(unsettled.probes - 1, 32))
        return max(scan_s, unsettled.probed_s + pause_s)


def _hinted_since(unsettled: _Unsettled | None, started_s: float) -> _Unsettled | None:
    """Return what is left to look at after a scan that began at `started_s` was conclusive."""
    if unsettled is None or unsettled.active_s <= started_s:
        return None
    return _Unsettled(since_s=unsettled.active_s, active_s=unsettled.active_s)
