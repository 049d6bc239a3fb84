"""What a format's check reads from, and what a format is."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Content:
    """A file: its size in bytes, and how to read at an offset, fewer bytes only at its end."""

    size: int
    read_at: Callable[[int, int], bytes]

    def shortfall(self, what: str, promised_bytes: int) -> str | None:
        """Return that a part of the file promises more than there is, or None."""
        if promised_bytes <= self.size:
            return None
        return self.mismatch(what, promised_bytes)

    def mismatch(self, what: str, promised_bytes: int) -> str:
        """Return that a part of the file promises another size."""
        return f"{what} promises {promised_bytes} bytes, the file has {self.size}"


@dataclass(frozen=True, slots=True)
class Format:
    """A format of files, known by suffix and by what stands at `magic_offset`."""

    name: str
    suffixes: frozenset[bytes]
    """Lower case. A file so named that ends within its magic number is incomplete."""
    shared_suffixes: frozenset[bytes]
    """Those that other kinds of files have too: of them the magic number alone decides."""
    magics: tuple[bytes, ...]
    finding: Callable[[Content], str | None]
    """Says why a file with the magic number is not complete, or None. Raises what reading does."""
    magic_offset: int = 0
    is_lasting: bool = True
    """Whether no reader takes what is found here; else it holds only while the file is young."""
