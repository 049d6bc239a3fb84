"""Who else is in a group, as far as /etc/passwd tells."""

import pytest

from kitd.packing.private_group import only_user

PASSWD = (
    b"root:x:0:0:root:/root:/bin/sh\n"
    b"# a remark\n\n"
    b"ada:x:1000:1000:Ada,,,:/home/ada:/bin/sh\n"
    b"bo:x:1001:100::/home/bo:/bin/sh\n"
    b"cy:x:1002:100::/home/cy:/bin/sh\n"
)


@pytest.mark.parametrize(
    ("uid", "gid", "name"),
    [
        pytest.param(1000, 1000, "ada", id="his own"),
        pytest.param(0, 0, "root", id="root's"),
        pytest.param(1001, 1000, None, id="somebody else's"),
        pytest.param(1001, 100, None, id="the own group of two"),
        pytest.param(1000, 100, None, id="not his own"),
        pytest.param(4000, 4000, None, id="unknown here"),
    ],
)
def test_a_group_is_of_one_user(uid, gid, name):
    assert only_user(PASSWD, uid, gid) == name


@pytest.mark.parametrize(
    "line",
    [
        b"+::::::",
        b"+@team::::::",
        b"dee:x:1003",
        b"dee:x:1003:-1::/:/bin/sh",
        b"dee:x:1003:\xd9\xa1::/:/bin/sh",
        b"twin:x:1000:1000::/:/bin/sh",
    ],
)
def test_what_cannot_be_read_for_certain_is_no_answer(line):
    """Such as users whom a directory adds, and a second name of the same user."""
    assert only_user(PASSWD + line + b"\n", 1000, 1000) is None
