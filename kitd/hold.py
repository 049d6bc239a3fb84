"""What says that a project must not be packed yet: gates find it, `kitctl why` tells it."""

import msgspec

HOLD_FILE = "hold_file"
"""The gate that a person closes."""
MAX_HOLDS = 20
"""As many files are told one by one. What comes after them is not looked for."""


class Hold(msgspec.Struct, frozen=True):
    """A gate's name, the file in question and the gate's finding."""

    gate: str
    path: str
    detail: str

    def describe(self) -> str:
        """Return the file and the finding."""
        return f"{self.path}: {self.detail}"
