"""Who may have written a Kitfile, as its file tells."""

import grp
import os
import pwd
import struct
from collections import Counter

import pytest

from kitd.packing.order import ANYBODY
from kitd.packing.scan import read_authored

NOBODYS = 54321
"""No user and no group of any machine."""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="giving files to others needs root")


@pytest.fixture
def authors(tmp_path):
    """Return who may have written a file of this owner, group and mode."""

    def authors(mode, uid=-1, gid=-1, acl=None):
        path = tmp_path / "Kitfile"
        path.write_text("manifestVersion: 1.0.0\n")
        path.chmod(mode)
        os.chown(path, uid, gid)
        if acl is not None:
            try:
                os.setxattr(path, "system.posix_acl_access", acl)
            except OSError as error:
                pytest.skip(f"no access control lists here: {error.strerror}")
        root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return read_authored(root, "Kitfile", 100, None).authors
        finally:
            os.close(root)

    return authors


def acl(owner, named, group, mask):
    """Return an access control list with a further user, as the kernel keeps it (acl(5))."""
    entries = (
        (1, owner, -1),
        (2, named, NOBODYS),
        (4, group, -1),
        (16, mask, -1),
        (32, 0, -1),
    )
    packed = b"".join(struct.pack("<HHi", *entry) for entry in entries)
    return struct.pack("<I", 2) + packed


@pytest.fixture
def private():
    """A user of this machine with a group of his own."""
    users = pwd.getpwall()
    own = Counter(user.pw_gid for user in users)
    for user in users:
        try:
            group = grp.getgrgid(user.pw_gid)
        except KeyError:
            continue
        is_his = group.gr_name == user.pw_name and not group.gr_mem
        if user.pw_uid != os.geteuid() and is_his and own[user.pw_gid] == 1:
            return user
    pytest.skip("nobody here has a group of his own")


def test_a_file_that_only_its_owner_may_write_is_his(authors):
    assert authors(0o644) == {os.geteuid()}
    assert ANYBODY in authors(0o666)


@as_root
def test_a_group_of_his_own_adds_nobody(authors, private):
    assert authors(0o664, private.pw_uid, private.pw_gid) == {os.geteuid(), private.pw_uid}


@as_root
def test_the_group_of_another_user_is_others(authors, private):
    assert ANYBODY in authors(0o664, os.geteuid(), private.pw_gid)


@as_root
def test_kitds_own_group_is_that_of_its_callers(authors):
    before = os.getegid()
    os.setegid(NOBODYS)
    try:
        assert ANYBODY in authors(0o664, gid=NOBODYS)
        assert ANYBODY not in authors(0o644, gid=NOBODYS)
    finally:
        os.setegid(before)


@as_root
def test_roots_group_is_of_others_where_the_owner_is_not_root(authors):
    """Programs in containers often have it, and any number for a user."""
    assert ANYBODY in authors(0o664, NOBODYS, 0)


@as_root
def test_an_access_control_list_may_let_others_write(authors, private):
    own = (private.pw_uid, private.pw_gid)
    assert ANYBODY in authors(0o644, *own, acl(6, 6, 4, 6))
    # What the mask takes away nobody has.
    assert ANYBODY not in authors(0o644, *own, acl(6, 6, 4, 4))
