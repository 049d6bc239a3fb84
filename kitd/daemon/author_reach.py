"""Where kitd goes because a Kitfile says so: only where its author could have sent it himself."""

import os
import pwd
from collections.abc import Callable, Collection, Sequence

from kitd.blocking import run_blocking
from kitd.caller import Caller
from kitd.oci.reference import Repository
from kitd.rpc.peer import Access, AccessRule, Peer, access_of


class AuthorReach:
    """Asks the rules of `rpc.access`, which are those in force at each question."""

    def __init__(
        self, rules: Callable[[], Sequence[AccessRule]], *, daemon_uid: int, nobody: int | None
    ) -> None:
        self._rules = rules
        self._daemon_uid = daemon_uid
        self._nobody = nobody

    async def of(
        self, authors: Collection[int], reader: Caller | None
    ) -> Callable[[Repository], bool]:
        """Return where all of these may send kitd: who may have written a text, and its reader.

        Users are numbers, as in `kitd.packing.order.Referred`. kitd's own user and root may send it
        anywhere; who is no user of this machine, nowhere.
        """
        gids = {} if reader is None else {reader.uid: reader.gids}
        others = set(authors).union(gids) - {0, self._daemon_uid}
        if unknown := others - gids.keys():
            # May ask a directory service.
            gids |= await run_blocking(lambda: {uid: _groups(uid) for uid in unknown})
        rights = [self._access(uid, gids[uid]) for uid in others]
        return lambda repository: all(
            access is not None and access.may_reach(repository) for access in rights
        )

    def _access(self, uid: int, gids: Collection[int]) -> Access | None:
        peer = Peer(pid=0, uid=uid, gids=frozenset(gids))
        return access_of(peer, self._rules(), daemon_uid=self._daemon_uid, nobody=self._nobody)


def _groups(uid: int) -> tuple[int, ...]:
    """Return the groups that a user would have if he logged in now. Blocks."""
    try:
        user = pwd.getpwuid(uid)
        return tuple(os.getgrouplist(user.pw_name, user.pw_gid))
    except (KeyError, OSError, OverflowError):
        return ()
