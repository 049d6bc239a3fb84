"""Where kitd goes because a Kitfile says so."""

import os
import pwd

from kitd.caller import Caller
from kitd.daemon.author_reach import AuthorReach
from kitd.oci.reference import parse_repository
from kitd.oci.repository_glob import parse_repository_glob
from kitd.packing.order import ANYBODY
from kitd.rpc.peer import AccessRule, Role

DAEMON, ALICE, BOB, TEAM = 900, 12345, 12346, 12400
TEAMS = parse_repository("r.example.com/team/base")
OTHERS = parse_repository("r.example.com/other/base")
RULES = (
    AccessRule(Role.READ, uid=ALICE, repositories=(parse_repository_glob("r.example.com/team/*"),)),
    AccessRule(Role.SUBMIT, gid=TEAM, repositories=(parse_repository_glob("r.example.com/**"),)),
)


async def reaches(authors, reader=None, *, rules=RULES, nobody=None):
    """Return which of the two repositories are reached."""
    reach = AuthorReach(lambda: rules, daemon_uid=DAEMON, nobody=nobody)
    may_ask = await reach.of(authors, reader)
    return [repository for repository in (TEAMS, OTHERS) if may_ask(repository)]


async def test_kitds_own_user_and_root_send_it_anywhere():
    assert await reaches({0, DAEMON}) == [TEAMS, OTHERS]


async def test_others_where_a_rule_of_theirs_says():
    """All who may have written the text count, and who is not known at all may send it nowhere."""
    assert await reaches({ALICE}) == [TEAMS]
    assert await reaches({0, ALICE}) == [TEAMS]
    assert await reaches({ALICE, BOB}) == []
    assert await reaches({0, ANYBODY}) == []
    assert await reaches({65534}, rules=(AccessRule(Role.ADMIN, uid=65534),), nobody=65534) == []
    assert await reaches({BOB}, rules=(AccessRule(Role.ADMIN, uid=BOB),)) == [TEAMS, OTHERS]


async def test_it_is_read_for_somebody_and_he_counts_too():
    """With the groups that he had when he asked."""
    assert await reaches({0}, Caller(uid=BOB, gids=(BOB,))) == []
    assert await reaches({0}, Caller(uid=ALICE, gids=(ALICE,))) == [TEAMS]
    assert await reaches({BOB}, Caller(uid=BOB, gids=(BOB, TEAM))) == [TEAMS, OTHERS]


async def test_groups_are_those_of_the_machine():
    """Of a user who has some."""
    user = next(each for each in pwd.getpwall() if each.pw_uid not in (0, DAEMON))
    gid = os.getgrouplist(user.pw_name, user.pw_gid)[-1]
    rule = AccessRule(Role.READ, gid=gid, repositories=(parse_repository_glob("r.example.com/**"),))
    assert await reaches({user.pw_uid}, rules=(rule,)) == [TEAMS, OTHERS]
