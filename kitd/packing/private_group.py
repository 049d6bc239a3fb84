"""Whether a group has nobody in it but one user, as many systems give one to each.

Sources: passwd(5), group(5). No system tells all users of a directory service, so that a group
counts as private only if it looks as those do that useradd(8) makes: its user is of this machine,
has it as his own, and it bears his name. What cannot be told at once is no.
"""

import contextlib
import grp
import threading
from pathlib import Path

PASSWD = Path("/etc/passwd")
MAX_PASSWD_BYTES = 1 << 20
MEMBERS_S = 2.0
"""What the machine gets to say who is in a group: a directory service may be asked."""


def is_private_group(uid: int, gid: int) -> bool:
    """Whether only this user is in the group. Waits `MEMBERS_S` at most."""
    try:
        with PASSWD.open("rb") as file:
            passwd = file.read(MAX_PASSWD_BYTES + 1)
    except OSError:
        return False
    if len(passwd) > MAX_PASSWD_BYTES:
        return False
    name = only_user(passwd, uid, gid)
    # Most groups of many are told apart before anybody is asked.
    if name is None or (group := _group(gid)) is None:
        return False
    return group.gr_name == name and all(member == name for member in group.gr_mem)


def only_user(passwd: bytes, uid: int, gid: int) -> str | None:
    """Return the name of a user if he is the only one whose own group this is. Pure.

    None as well where a line is not as passwd(5) says, such as one that takes in a directory.
    """
    names = []
    for line in passwd.decode("utf-8", "replace").splitlines():
        if not line or line.startswith("#"):
            continue
        fields = line.split(":")
        if len(fields) != 7 or not (_is_number(fields[2]) and _is_number(fields[3])):
            return None
        if int(fields[3]) == gid:
            if int(fields[2]) != uid:
                return None
            names.append(fields[0])
    return names[0] if len(names) == 1 else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


def _group(gid: int) -> grp.struct_group | None:
    """Return what the machine says of a group, None if that takes it too long."""
    found: list[grp.struct_group] = []

    def ask() -> None:
        with contextlib.suppress(KeyError, OSError, OverflowError):
            found.append(grp.getgrgid(gid))

    # A call into the C library cannot be ended; nobody waits for it at the exit either.
    asking = threading.Thread(target=ask, name="group", daemon=True)
    asking.start()
    asking.join(MEMBERS_S)
    return found[0] if found else None
