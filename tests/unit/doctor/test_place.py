"""Who may write to the directories of kitd."""

import pytest

from kitd.doctor.place import strangers

OURS, OTHERS = 65532, 100


@pytest.mark.parametrize(
    ("mode", "group", "who"),
    [
        pytest.param(0o40700, OURS, None, id="kitd's own"),
        pytest.param(0o40755, OTHERS, None, id="others may read"),
        pytest.param(0o42775, OURS, None, id="a volume with fsGroup"),
        pytest.param(0o40770, 0, None, id="the image's volume, for group 0"),
        pytest.param(0o40770, OTHERS, "g", id="another group"),
        pytest.param(0o40777, OURS, "o", id="emptyDir"),
        pytest.param(0o42777, OURS, "o", id="emptyDir with fsGroup"),
        # Also where the files of others are safe: the ledger's helpers come and go.
        pytest.param(0o41777, OURS, "o", id="with the sticky bit"),
    ],
)
def test_who_may_write_beside_the_owner_and_kitd(mode, group, who):
    assert strangers(mode, group, {0, OURS}) == who
