import grp
import os
import socket

import pytest

from kitd.oci.reference import parse_repository
from kitd.oci.repository_glob import parse_repository_glob
from kitd.rpc.peer import (
    Access,
    AccessRule,
    Peer,
    Role,
    UnknownGroupError,
    access_of,
    hides_users,
    peer_of,
)

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
    access = access_of(Peer(1, uid, frozenset(gids)), RULES, daemon_uid=DAEMON)
    assert (None if access is None else access.role) is role


def test_without_rules_only_root_and_the_daemons_user_get_in():
    assert access_of(Peer(1, DAEMON, frozenset()), (), daemon_uid=DAEMON) == Access(Role.ADMIN)
    assert access_of(Peer(1, 1, frozenset()), (), daemon_uid=DAEMON) is None


def test_a_caller_reaches_what_all_rules_that_apply_name_together():
    globs = {name: (parse_repository_glob(f"r.example.com/{name}/*"),) for name in "abc"}
    rules = (
        AccessRule(Role.SUBMIT, gid=50, repositories=globs["a"]),
        AccessRule(Role.READ, uid=1000, repositories=globs["b"]),
        AccessRule(Role.SUBMIT, gid=60, repositories=globs["c"]),
    )
    access = access_of(Peer(1, 1000, frozenset({50})), rules, daemon_uid=DAEMON)
    reached = [n for n in "abc" if access.may_reach(parse_repository(f"r.example.com/{n}/x"))]
    assert reached == ["a", "b"]


def test_without_a_glob_no_repository_is_reached_but_by_an_admin():
    somewhere = parse_repository("r.example.com/team/model")
    assert not Access(Role.SUBMIT).may_reach(somewhere)
    assert Access(Role.ADMIN).may_reach(somewhere)


@pytest.mark.parametrize("rule", [AccessRule(Role.ADMIN, uid=65534), AccessRule(1, gid=65534)])
def test_the_number_that_hides_users_gets_no_role(rule):
    hidden = Peer(1, 65534, frozenset({65534}))
    assert access_of(hidden, [rule], daemon_uid=DAEMON) is not None
    assert access_of(hidden, [rule], daemon_uid=DAEMON, nobody=65534) is None
    assert access_of(hidden, [rule], daemon_uid=65534, nobody=65534) is None


def test_the_group_that_hides_groups_gives_nobody_a_role():
    peer = Peer(1, 1000, frozenset({1000, 65534}))
    rules = [AccessRule(Role.READ, gid=65534)]
    assert access_of(peer, rules, daemon_uid=DAEMON) == Access(Role.READ)
    assert access_of(peer, rules, daemon_uid=DAEMON, nobody=65534) is None


@pytest.mark.parametrize(
    ("uid_map", "hides"),
    [
        ("         0          0 4294967295\n", False),
        ("         0          0          1\n      1000       1000          1\n", True),
        ("0 100000 65536\n", True),
        ("", True),
    ],
    ids=["the first namespace", "PrivateUsers", "a rootless container", "nobody is mapped"],
)
def test_a_user_namespace_hides_the_users_that_it_does_not_map(uid_map, hides):
    assert hides_users(uid_map) is hides


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


def test_groups_that_cannot_be_told_apart_are_none_of_his():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_of(ours, nobody=os.getgid())
    assert peer.gids == set(os.getgroups()) - {os.getgid()}
