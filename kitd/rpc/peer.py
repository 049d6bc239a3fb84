"""Who is at the other end of a Unix socket, and what they may do (unix(7), SO_PEERCRED).

The kernel vouches for the identifiers as they were when the peer connected. In a user namespace of
its own (user_namespaces(7), systemd's `PrivateUsers=`) kitd sees every user that is not mapped into
it as one and the same, and then that one is nobody.
"""

import enum
import grp
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from kitd.errors import KitdError
from kitd.oci.reference import Repository
from kitd.oci.repository_glob import RepositoryGlob

_SO_PEERGROUPS = 59
"""`asm-generic/socket.h`; the socket module has no constant for it."""
_MAX_GROUP_BYTES = 1024
"""The largest option the socket module reads: 256 groups."""
_CREDENTIALS = struct.Struct("iII")
_OVERFLOW_UID = 65534
"""Linux' default, and that of its groups: nobody has a reason to change `kernel.overflowuid`."""
_UIDS = 2**32 - 1
"""How many there are: the last number is none."""


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
    repositories: tuple[RepositoryGlob, ...] = ()
    """Where kitd goes with its own network and credentials for these callers."""

    @classmethod
    def for_group(
        cls, name: str, role: Role, repositories: tuple[RepositoryGlob, ...] = ()
    ) -> Self:
        """Look a group up by name. May ask a directory service: not for the event loop.

        Raises `UnknownGroupError`.
        """
        try:
            return cls(role, gid=grp.getgrnam(name).gr_gid, repositories=repositories)
        except KeyError:
            raise UnknownGroupError(
                f"there is no group {name!r} on this machine",
                hint=f"create it (groupadd {name}), or mend rpc.access",
            ) from None


def peer_of(connection: socket.socket, *, nobody: int | None = None) -> Peer:
    """Return who connected. Raises `OSError`.

    Of his groups those are left out that cannot be told apart: they are number `nobody`, and so are
    those of files that are none of his.
    """
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(credentials)
    return Peer(pid, uid, frozenset({gid, *_groups(connection)} - {nobody}))


def _groups(connection: socket.socket) -> Iterable[int]:
    try:
        packed = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_GROUP_BYTES)
    except OSError:
        # More groups than fit, or a kernel before 4.13: fewer rights, never more.
        return ()
    return (gid for (gid,) in struct.iter_unpack("I", packed))


@dataclass(frozen=True, slots=True)
class Access:
    """What a caller may do."""

    role: Role
    repositories: tuple[RepositoryGlob, ...] = ()

    def may_reach(self, repository: Repository) -> bool:
        """Whether kitd may go to a repository for his sake."""
        return self.role is Role.ADMIN or any(
            glob.matches(repository) for glob in self.repositories
        )


def access_of(
    peer: Peer, rules: Iterable[AccessRule], *, daemon_uid: int, nobody: int | None = None
) -> Access | None:
    """Return all that the rules for a peer give together, or None where he may do nothing at all.

    `nobody` is the number, of users and of groups, that stands for all who cannot be told apart.
    """
    if peer.uid == nobody:
        return None
    if peer.uid in (0, daemon_uid):
        return Access(Role.ADMIN)
    gids = peer.gids - {nobody}
    given = [rule for rule in rules if rule.uid == peer.uid or rule.gid in gids]
    if not given:
        return None
    repositories = dict.fromkeys(glob for rule in given for glob in rule.repositories)
    return Access(max(rule.role for rule in given), tuple(repositories))


def hides_users(uid_map: str) -> bool:
    """Whether a user namespace with this map (proc(5)) leaves some users without a number."""
    return sum(int(line.split()[2]) for line in uid_map.splitlines()) < _UIDS


def find_nobody() -> int | None:
    """Return the number that stands for all users whom this process cannot tell apart, if any."""
    try:
        uid_map = Path("/proc/self/uid_map").read_text(encoding="ascii")
    except OSError:
        # This system has no user namespaces.
        return None
    return _OVERFLOW_UID if hides_users(uid_map) else None
