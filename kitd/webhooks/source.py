"""One sender, as it is configured. A value."""

from dataclasses import dataclass
from pathlib import Path

from kitd.webhooks.format import Format


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One sender, as it is configured."""

    name: str
    form: Format
    registry: str
    """The host that it speaks for, whatever it says itself."""
    secret_file: Path
