"""What one server, one user and one connection may use."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the server. The defaults are the contract; tests use smaller ones."""

    connections: int = 256
    """At once. The last one is kept for root and the daemon's own user."""
    connections_per_uid: int = 192
    """Everybody who waits for a job has one; a build machine waits for many as one user."""
    calls: int = 32
    """In flight on one connection; a batch counts as one."""
    calls_per_uid: int = 1024
    """In flight on all connections of a user."""
    subscriptions: int = 8
    """On one connection."""
    queued_messages: int = 1000
    queued_bytes: int = 1 << 20
    """What may wait for one reader before whoever writes to it has to wait."""
    lag_s: float = 10.0
    """How long an event waits for room before its subscription ends as lagged."""
    stall_s: float = 60.0
    """How long one line may take to be sent before the connection is given up."""
    half_open_s: float = 60.0
    """How long calls go on for a peer that has stopped sending."""
    flush_s: float = 1.0
    """How long the last answers of a connection that kitd closes may take to be read."""
    heartbeat_s: float = 15.0
    progress_s: float = 0.25
    """The shortest time between two progress notifications about a job."""
