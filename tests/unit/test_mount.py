"""Which mounts keep quiet about changes, and which are overlays."""

import pytest

from kitd.mount import is_overlaid, remote_mount

DISK = b"1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"


def mounted(number: int, parent: int, point: bytes, fs_type: bytes) -> bytes:
    return b"%d %d 0:%d / %s rw,noatime master:1 shared:2 - %s source:/x rw,vers=4" % (
        number,
        parent,
        number,
        point,
        fs_type,
    )


@pytest.mark.parametrize(
    ("lines", "root", "expected"),
    [
        pytest.param([DISK], b"/srv/p", None, id="a disk"),
        pytest.param([], b"/srv/p", None, id="nothing known"),
        pytest.param(
            [DISK, mounted(2, 1, b"/srv", b"nfs4")], b"/srv/p", "nfs4 on /srv", id="above the root"
        ),
        pytest.param(
            [DISK, mounted(2, 1, b"/srv", b"nfs4")], b"/srv", "nfs4 on /srv", id="the root itself"
        ),
        pytest.param(
            [mounted(1, 0, b"/", b"virtiofs")], b"/srv", "virtiofs on /", id="everything is"
        ),
        pytest.param([mounted(1, 0, b"/", b"nfs")], b"/", "nfs on /", id="the root of everything"),
        pytest.param(
            [DISK, mounted(2, 1, b"/srv/p/data", b"cifs")],
            b"/srv/p",
            "cifs on /srv/p/data",
            id="below the root",
        ),
        pytest.param(
            [DISK, mounted(2, 1, b"/srv/p/z", b"nfs"), mounted(3, 1, b"/srv/p/a", b"9p")],
            b"/srv/p",
            "9p on /srv/p/a",
            id="the first of several",
        ),
        pytest.param(
            [DISK, mounted(2, 1, b"/srv/p2", b"nfs4"), mounted(3, 1, b"/sr", b"nfs4")],
            b"/srv/p",
            None,
            id="only names begin alike",
        ),
        pytest.param(
            [DISK, mounted(2, 1, b"/srv", b"nfs4"), mounted(3, 2, b"/srv/p", b"xfs")],
            b"/srv/p",
            None,
            id="a disk within",
        ),
        pytest.param(
            [DISK, mounted(2, 1, b"/srv", b"nfs4"), mounted(3, 2, b"/srv", b"tmpfs")],
            b"/srv/p",
            None,
            id="covered by another",
        ),
        pytest.param(
            [DISK, mounted(2, 1, b"/srv", b"tmpfs"), mounted(3, 2, b"/srv", b"nfs4")],
            b"/srv/p",
            "nfs4 on /srv",
            id="covers another",
        ),
        pytest.param(
            [DISK, mounted(2, 1, b"/srv/p/data", b"nfs4"), mounted(3, 1, b"/srv", b"tmpfs")],
            b"/srv/p",
            None,
            id="covered from above",
        ),
        pytest.param(
            [mounted(3, 2, b"/srv/p", b"nfs4"), mounted(2, 1, b"/srv", b"xfs"), DISK],
            b"/srv/p",
            "nfs4 on /srv/p",
            id="in any order",
        ),
        pytest.param(
            [DISK, mounted(2, 1, rb"/my\040models\134x\011y", b"nfs4")],
            b"/my models\\x\ty/p",
            "nfs4 on /my models\\x\\ty",
            id="escaped",
        ),
        pytest.param(
            [DISK, mounted(2, 1, b"/\xff", b"nfs4")], b"/\xff", "nfs4 on /\\xff", id="undecodable"
        ),
        pytest.param([mounted(1, 1, b"/", b"nfs4")], b"/srv", "nfs4 on /", id="mounted on itself"),
        pytest.param(
            [mounted(1, 2, b"/", b"nfs4"), mounted(2, 1, b"/", b"nfs4")], b"/", None, id="a circle"
        ),
        pytest.param(
            [b"", b"nonsense", b"x y 0:1 / / rw - nfs4 a b", b"2 1 0:1 / /srv rw -", DISK],
            b"/srv",
            None,
            id="not understood",
        ),
    ],
)
def test_the_mount_that_keeps_quiet(lines: list[bytes], root: bytes, expected: str | None):
    assert remote_mount(b"\n".join(lines) + b"\n", root) == expected


@pytest.mark.parametrize(
    ("fs_type", "is_remote"),
    [
        (b"nfs", True),
        (b"nfs4", True),
        (b"cifs", True),
        (b"smb3", True),
        (b"9p", True),
        (b"virtiofs", True),
        (b"ceph", True),
        (b"lustre", True),
        (b"fuse", True),
        (b"fuse.sshfs", True),
        (b"fuse.glusterfs", True),
        (b"vboxsf", True),
        (b"fuseblk", False),
        (b"fuse.fuse-overlayfs", False),
        (b"overlay", False),
        (b"ext4", False),
        (b"xfs", False),
        (b"btrfs", False),
        (b"zfs", False),
        (b"tmpfs", False),
        (b"nfsd", False),
    ],
)
def test_which_file_systems_are_remote(fs_type: bytes, is_remote: bool):
    lines = DISK + b"\n" + mounted(2, 1, b"/srv", fs_type)
    assert (remote_mount(lines, b"/srv/p") is not None) is is_remote


def test_this_machines_own_list_is_understood():
    with open("/proc/self/mountinfo", "rb") as file:
        mountinfo = file.read()
    assert remote_mount(mountinfo, b"/proc") is None


@pytest.mark.parametrize(
    ("lines", "overlaid"),
    [
        pytest.param([DISK], False, id="a disk"),
        pytest.param([mounted(1, 0, b"/", b"overlay")], True, id="in a container"),
        pytest.param(
            [mounted(1, 0, b"/", b"overlay"), mounted(2, 1, b"/srv", b"ext4")],
            False,
            id="on a volume of a container",
        ),
        pytest.param([DISK, mounted(2, 1, b"/srv/p/cache", b"overlay")], True, id="below the root"),
        pytest.param([DISK, mounted(2, 1, b"/var", b"overlay")], False, id="elsewhere"),
    ],
)
def test_files_on_an_overlay_are_known(lines, overlaid):
    assert is_overlaid(b"\n".join(lines), b"/srv/p") is overlaid
