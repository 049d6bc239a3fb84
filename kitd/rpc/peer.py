"""Who is at the other end of a Unix socket, and what they may do (unix(7), SO_PEERCRED).

The kernel vouches for the identifiers as they were when the peer connected. In a user namespace of
its own kitd would see every outside uid as 65534: do not run it with `PrivateUsers=`.
"""

import enum
import grp
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from kitd.errors import KitdError

_SO_PEERGROUPS = 59
"""`asm-generic/socket.h`; the socket module has no constant for it."""
_MAX_GROUP_BYTES = 1024
"""The largest option the socket module reads: 256 groups."""
_CREDENTIALS = struct.Struct("iII")


class UnknownGroupError(KitdError):
    """An access rule names a group that this machine does not have."""

    code = "unknown_group"


class Role(enum.IntEnum):
    """What a caller may do; each role includes the lower ones."""

    READ = 1
    SUBMIT = 2
    ADMIN = 3

    @property
    def label(self) -> str:
        """The role as configuration and the wire spell it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Peer:
    """A process that connected. `gids` holds the primary group and the others."""

    pid: int
    uid: int
    gids: frozenset[int]


@dataclass(frozen=True, slots=True)
class AccessRule:
    """Gives a role to a user or to the members of a group, whichever is set."""

    role: Role
    uid: int | None = None
    gid: int | None = None

    @classmethod
    def for_group(cls, name: str, role: Role) -> Self:
        """Look a group up by name. May ask a directory service: not for the event loop.

        Raises `UnknownGroupError`.
        """
        try:
            return cls(role, gid=grp.getgrnam(name).gr_gid)
        except KeyError:
            raise UnknownGroupError(
                f"there is no group {name!r} on this machine",
                hint=f"create it (groupadd {name}), or mend rpc.access",
            ) from None


def peer_of(connection: socket.socket) -> Peer:
    """Return who connected. Raises `OSError`."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(credentials)
    return Peer(pid, uid, frozenset({gid, *_groups(connection)}))


def _groups(connection: socket.socket) -> Iterable[int]:
    try:
        packed = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_GROUP_BYTES)
    except OSError:
        # More groups than fit, or a kernel before 4.13: fewer rights, never more.
        return ()
    return (gid for (gid,) in struct.iter_unpack("I", packed))


def role_of(peer: Peer, rules: Iterable[AccessRule], *, daemon_uid: int) -> Role | None:
    """Return the highest role that applies, or None where the peer may do nothing at all."""
    if peer.uid in (0, daemon_uid):
        return Role.ADMIN
    roles = [rule.role for rule in rules if rule.uid == peer.uid or rule.gid in peer.gids]
    return max(roles, default=None)
