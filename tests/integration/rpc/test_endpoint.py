import os
import socket
import stat

import pytest

from kitd.rpc.endpoint import (
    AlreadyRunningError,
    EndpointError,
    adopt_endpoint,
    bind_endpoint,
)


@pytest.fixture
def umask():
    before = os.umask(0o077)
    yield os.umask
    os.umask(before)


def mode_of(path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_the_file_has_the_mode_that_was_asked_for_whatever_the_umask(tmp_path, umask, mask, mode):
    umask(mask)
    endpoint = bind_endpoint(tmp_path / "kitd.sock", mode=mode)
    assert mode_of(tmp_path / "kitd.sock") == mode
    endpoint.close()


def test_missing_parents_are_private(tmp_path, umask):
    umask(0)
    endpoint = bind_endpoint(tmp_path / "a" / "b" / "kitd.sock", mode=0o600)
    assert [mode_of(tmp_path / "a"), mode_of(tmp_path / "a" / "b")] == [0o700, 0o700]
    endpoint.close()


def test_closing_removes_the_file(tmp_path):
    path = tmp_path / "kitd.sock"
    bind_endpoint(path, mode=0o600).close()
    assert not path.exists()


def test_closing_leaves_the_file_of_another(tmp_path):
    path = tmp_path / "kitd.sock"
    first = bind_endpoint(path, mode=0o600)
    path.rename(tmp_path / "old")
    second = bind_endpoint(path, mode=0o600)
    first.close()
    assert path.exists()
    second.close()


def test_what_a_dead_daemon_left_is_replaced(tmp_path):
    path = tmp_path / "kitd.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    endpoint = bind_endpoint(path, mode=0o600)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    endpoint.close()


def test_a_second_daemon_is_refused_and_the_first_stays(tmp_path):
    path = tmp_path / "kitd.sock"
    first = bind_endpoint(path, mode=0o600)
    with pytest.raises(AlreadyRunningError, match="another kitd is running") as caught:
        bind_endpoint(path, mode=0o600)
    assert caught.value.hint
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    first.close()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_not_a_socket_is_not_removed(tmp_path, kind):
    path = tmp_path / "kitd.sock"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EndpointError, match="not a socket"):
        bind_endpoint(path, mode=0o600)
    assert path.is_symlink() or path.exists()


def test_a_path_that_is_too_long_for_a_socket_is_named(tmp_path):
    with pytest.raises(EndpointError, match="at most 107 bytes"):
        bind_endpoint(tmp_path / ("x" * 120), mode=0o600)


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EndpointError, match=r"cannot listen at .*kitd\.sock"):
        bind_endpoint(tmp_path / "file" / "kitd.sock", mode=0o600)


def test_an_inherited_socket_keeps_its_file(tmp_path):
    path = tmp_path / "kitd.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        adopt_endpoint(listener).close()
    assert path.exists()


def test_an_inherited_socket_has_to_be_a_listening_unix_socket(tmp_path):
    with socket.socket(socket.AF_UNIX) as idle, pytest.raises(EndpointError):
        adopt_endpoint(idle)
    with socket.create_server(("127.0.0.1", 0)) as tcp, pytest.raises(EndpointError):
        adopt_endpoint(tcp)
