import grp
import os
import socket

import pytest

from kitd.rpc.peer import AccessRule, Peer, Role, UnknownGroupError, peer_of, role_of

DAEMON = 900
RULES = (
    AccessRule(Role.READ, gid=50),
    AccessRule(Role.SUBMIT, gid=60),
    AccessRule(Role.ADMIN, uid=1001),
    AccessRule(Role.READ, uid=1001),
)


@pytest.mark.parametrize(
    ("uid", "gids", "role"),
    [
        (0, {0}, Role.ADMIN),
        (DAEMON, {900}, Role.ADMIN),
        (1000, {1000}, None),
        (1000, {1000, 50}, Role.READ),
        (1000, {50, 60}, Role.SUBMIT),
        (1001, {1001}, Role.ADMIN),
        (50, {1000}, None),
        (1000, set(), None),
    ],
)
def test_the_highest_rule_that_applies_wins_and_without_one_nothing_is_allowed(uid, gids, role):
    assert role_of(Peer(1, uid, frozenset(gids)), RULES, daemon_uid=DAEMON) is role


def test_without_rules_only_root_and_the_daemons_user_get_in():
    assert role_of(Peer(1, DAEMON, frozenset()), (), daemon_uid=DAEMON) is Role.ADMIN
    assert role_of(Peer(1, 1, frozenset()), (), daemon_uid=DAEMON) is None


def test_roles_include_the_lower_ones():
    assert Role.READ < Role.SUBMIT < Role.ADMIN
    assert [role.label for role in Role] == ["read", "submit", "admin"]


def test_a_group_is_looked_up_by_name():
    group = grp.getgrgid(os.getgid())
    assert AccessRule.for_group(group.gr_name, Role.READ) == AccessRule(Role.READ, gid=os.getgid())


def test_an_unknown_group_is_an_error_that_names_it():
    with pytest.raises(UnknownGroupError, match="no-such-group"):
        AccessRule.for_group("no-such-group", Role.READ)


def test_the_kernel_says_who_the_peer_is():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_of(ours)
    assert (peer.pid, peer.uid) == (os.getpid(), os.getuid())
    assert peer.gids == {os.getgid(), *os.getgroups()}
