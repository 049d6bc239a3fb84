"""What says that a project must not be packed yet."""

import msgspec


class Hold(msgspec.Struct, frozen=True):
    """A gate's name, the file in question and the gate's finding, which completes "FILE: …"."""

    gate: str
    path: str
    detail: str
