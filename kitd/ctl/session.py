"""What every command is given: the daemon, the terminal and the time."""

from typing import NamedTuple

from kitd.client import Client
from kitd.ctl.terminal import Terminal


class Session(NamedTuple):
    """One run of `kitctl`. `socket` is None for this user's daemon; `now_s` is wall-clock time."""

    terminal: Terminal
    socket: str | None
    now_s: float

    def connect(self) -> Client:
        """Connect to the daemon. Raises `DaemonUnreachableError`, `AccessDeniedError`."""
        return Client.connect(self.socket)
