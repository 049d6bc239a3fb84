import os
import stat
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from kitd.caller import Caller

ANN = Caller(uid=1001, gids=(1001, 50))
FILE, DIRECTORY = stat.S_IFREG, stat.S_IFDIR


def status(kind, mode, uid, gid, place=(1, 2)):
    device, inode = place
    return SimpleNamespace(st_mode=kind | mode, st_uid=uid, st_gid=gid, st_dev=device, st_ino=inode)


@pytest.mark.parametrize(
    ("kind", "mode", "uid", "gid", "may"),
    [
        (FILE, 0o400, 1001, 0, True),
        (FILE, 0o077, 1001, 50, False),
        (FILE, 0o040, 0, 50, True),
        (FILE, 0o040, 0, 51, False),
        (FILE, 0o704, 0, 50, False),
        (FILE, 0o004, 0, 51, True),
        (FILE, 0o770, 0, 51, False),
        (FILE, 0o001, 0, 51, False),
        (DIRECTORY, 0o500, 1001, 0, True),
        (DIRECTORY, 0o400, 1001, 0, False),
        (DIRECTORY, 0o100, 1001, 0, False),
        (DIRECTORY, 0o050, 0, 1001, True),
        (DIRECTORY, 0o005, 0, 0, True),
        (DIRECTORY, 0o004, 0, 0, False),
        (DIRECTORY, 0o1777, 0, 0, True),
    ],
)
def test_the_first_class_that_he_is_in_decides_as_it_does_in_the_kernel(kind, mode, uid, gid, may):
    assert ANN.may_read(status(kind, mode, uid, gid)) is may


def test_a_project_begins_in_the_directory_that_was_shown_or_in_an_own_one():
    here = status(DIRECTORY, 0o755, 0, 0, place=(7, 8))
    assert Caller(uid=1, gids=(), root=(7, 8)).may_begin_in(here)
    assert not Caller(uid=1, gids=(), root=(7, 9)).may_begin_in(here)
    assert not Caller(uid=1, gids=()).may_begin_in(here)
    assert Caller(uid=0, gids=()).may_begin_in(here)


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_it_says_what_the_kernel_says():
    """Of the owner, one of the group and others, with each of them let in or not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        os.chmod(place, 0o755)
        path = Path(place, "file")
        path.touch()
        os.chown(path, 2001, 2002)
        for mode in (0o000, 0o400, 0o040, 0o004, 0o440, 0o404, 0o044, 0o333):
            path.chmod(mode)
            for uid, gid in ((2001, 9), (9, 2002), (9, 9), (2001, 2002)):
                reader = Caller(uid=uid, gids=(gid,))
                assert reader.may_read(path.stat()) is _opens(path, uid, gid), oct(mode)


def _opens(path, uid, gid):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            os.close(os.open(path, os.O_RDONLY))
            code = 0
        except PermissionError:
            code = 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
