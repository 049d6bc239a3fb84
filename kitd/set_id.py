"""Which files run with the rights of their owner: none goes into a kit, and none comes out of one.

Source: Linux, fs/exec.c (`bprm_fill_uid`).
"""

import stat

_ANY_EXECUTE = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


def lends_rights(mode: int) -> bool:
    """Whether whoever runs a regular file of this mode does it as its owner or as its group.

    Without the right to execute it the bits mean nothing. A whole `st_mode` will do.
    """
    as_owner = bool(mode & stat.S_ISUID and mode & _ANY_EXECUTE)
    # Where the group may not execute, the bit is from the days of mandatory locks.
    return as_owner or bool(mode & stat.S_ISGID and mode & stat.S_IXGRP)
