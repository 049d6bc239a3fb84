"""A byte mutator with a corpus, and what a parser must not do to whoever feeds it.

How long is read from the environment, here and only here: `KITD_FUZZ_S`, seconds for each target,
and `KITD_SOAK_SEED`, where all randomness begins.
"""

import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

SECONDS = float(os.environ.get("KITD_FUZZ_S", "0.7"))
SEED = int(os.environ.get("KITD_SOAK_SEED", "1"))
HANG_S = 5.0
"""Processor time of one input: far more than the largest takes."""
GROWTH_BYTES = 48 << 20
"""What a process may grow by once it has seen a third of its inputs."""
WARM = 300
"""Inputs until then: what is kept from the first ones is no growth."""
MAX_BYTES = 1 << 17
MAX_CORPUS = 500
NUMBERS = (
    b"0",
    b"-1",
    b"1e999",
    b"255",
    b"65536",
    b"2147483648",
    b"9223372036854775808",
    b"1" * 40,
)
TOKENS = (
    *(b'"', b"{", b"}", b"[", b"]", b":", b",", b"\\", b"\\u0000", b"\\ud800", b"null", b"true"),
    *(
        b"\0",
        b"\xff",
        b"\xc3\x28",
        b"\xef\xbb\xbf",
        b"\r\n",
        b"\n",
        b"\t",
        b" ",
        b"../",
        b"/",
        b"%2e",
    ),
    *(b"&a", b"*a", b"<<: ", b"- ", b"!!python/object:os.system ", b"---\n", b"? ", b"|\n", b"#"),
    *(b"sha256:", b"sha512:", b"A" * 300, b"@", b"\xe2\x80\xae", b"NaN", b"Infinity"),
)


class Mutator:
    """Inputs that are nearly valid. Those that a target took in a new way are mutated further."""

    def __init__(self, corpus: Sequence[bytes], seed: int) -> None:
        self.corpus = list(corpus)
        self._draw = random.Random(seed)
        self._known: set[str] = set()

    def __iter__(self) -> Iterator[bytes]:
        yield from tuple(self.corpus)
        yield b""
        while True:
            data = self._draw.choice(self.corpus)
            for _ in range(self._draw.choice((1, 1, 1, 2, 3, 8))):
                data = self._mutated(data)
            yield data[:MAX_BYTES]

    def learn(self, data: bytes, outcome: str) -> None:
        """Keep an input whose outcome is like none before; names and numbers make no difference."""
        kind = re.sub(r"'[^']*'|\d+", "", outcome)[:100]
        if kind not in self._known and len(self.corpus) < MAX_CORPUS:
            self._known.add(kind)
            self.corpus.append(data)

    @property
    def outcomes(self) -> int:
        """How many ways there were in which inputs were taken."""
        return len(self._known)

    def _mutated(self, data: bytes) -> bytes:
        draw = self._draw
        begin, end = sorted(draw.randrange(len(data) + 1) for _ in range(2))
        short_end = min(end, begin + 16)
        match draw.randrange(10):
            case 0:
                flipped = bytes(byte ^ 1 << draw.randrange(8) for byte in data[begin : begin + 1])
                return data[:begin] + flipped + data[begin + 1 :]
            case 1:
                return data[:begin] + draw.choice(TOKENS) + data[begin:]
            case 2:
                return data[:begin] + draw.choice(TOKENS) + data[short_end:]
            case 3:
                return data[:begin] + data[short_end:]
            case 4:
                return data[:begin]
            case 5:
                repeated = data[begin:short_end] * draw.choice((2, 3, 40, 3000))
                return data[:begin] + repeated + data[short_end:]
            case 6:
                other = draw.choice(self.corpus)
                return data[:begin] + other[draw.randrange(len(other) + 1) :]
            case 7:
                return data[:begin] + draw.randbytes(draw.randrange(1, 9)) + data[short_end:]
            case 8:
                numbers = list(re.finditer(rb"\d+", data[:MAX_BYTES]))
                if not numbers:
                    return data
                number = draw.choice(numbers)
                return data[: number.start()] + draw.choice(NUMBERS) + data[number.end() :]
            case _:
                return data[:begin] + data[begin:end] + data[begin:end] + data[end:]


def outcome_of(answer: object) -> str:
    """Return what tells one answer from another: a finding, or just the kind of a value."""
    return answer if isinstance(answer, str) else type(answer).__name__


def resident_bytes(pid: int | str = "self") -> int:
    """Return what a process holds in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class HangError(Exception):
    """An input took longer than any may."""


@pytest.fixture
def mutations() -> Callable[[Sequence[bytes]], Mutator]:
    """Return the inputs that a corpus gives."""
    return lambda corpus: Mutator(corpus, SEED)


@pytest.fixture
def fuzz_s() -> float:
    """For how long each target is fuzzed."""
    return SECONDS


@pytest.fixture
def memory_of() -> Callable[[int | str], int]:
    """Return what a process holds in memory, in bytes."""
    return resident_bytes


@pytest.fixture
def bombard() -> Iterator[Callable[..., int]]:
    """Feed a target until time is up: `bombard(target, corpus, expected)` returns the inputs.

    What the target raises must be one of `expected`; it must not hang, and memory must not grow.
    """

    def hang(_number: int, _frame: object) -> None:
        raise HangError

    def feed(
        target: Callable[[bytes], object],
        corpus: Sequence[bytes],
        expected: tuple[type[Exception], ...],
    ) -> int:
        mutator = Mutator(corpus, SEED)
        end_s = time.monotonic() + SECONDS
        third_s = time.monotonic() + SECONDS / 3
        held_bytes = 0
        count = 0
        for data in mutator:
            if time.monotonic() > end_s:
                break
            if not held_bytes and time.monotonic() > third_s and count >= WARM:
                held_bytes = resident_bytes()
            signal.setitimer(signal.ITIMER_VIRTUAL, HANG_S)
            try:
                mutator.learn(data, outcome_of(target(data)))
            except expected as error:
                mutator.learn(data, f"{type(error).__name__} {error}")
            except Exception as error:
                raise AssertionError(f"seed {SEED}, input {data!r:.5000}") from error
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            count += 1
        assert mutator.outcomes > 1, "whatever it is given, the target does the same"
        # A machine that is busy with something else comes to too few inputs to tell.
        grown_bytes = resident_bytes() - held_bytes if held_bytes else 0
        assert grown_bytes < GROWTH_BYTES, f"grew by {grown_bytes >> 20} MiB in {count} inputs"
        return count

    before = signal.signal(signal.SIGVTALRM, hang)
    yield feed
    signal.signal(signal.SIGVTALRM, before)
