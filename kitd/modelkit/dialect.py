"""The two ways a ModelKit is written."""

import enum


class Dialect(enum.StrEnum):
    """Which release's bytes the writer aims at; readers take every dialect."""

    CURRENT = "current"
    """kit 1.16: artifact type, layer annotations, prompts, MCP servers."""
    KIT_1_7 = "kit-1.7"
    """kit 1.7: digest-identical to what that release packs."""
