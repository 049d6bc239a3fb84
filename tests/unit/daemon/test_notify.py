"""What the environment says of the service manager, and that it is taken out of it."""

import os
import socket

import pytest

from kitd.daemon.notify import take_service_manager


def test_nothing_is_said_without_one():
    service = take_service_manager({"HOME": "/"}, 7)
    assert (service.address, service.watchdog_s, service.listener) == (None, None, None)
    service.notify("READY=1")


@pytest.mark.parametrize(
    ("said", "address"),
    [("/run/notify", "/run/notify"), ("@abstract", "\0abstract"), ("", None), ("relative", None)],
)
def test_where_it_listens(said, address):
    assert take_service_manager({"NOTIFY_SOCKET": said}, 7).address == address


@pytest.mark.parametrize(
    ("environ", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "7"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog(environ, watchdog_s):
    assert take_service_manager(environ, 7).watchdog_s == watchdog_s


def test_children_do_not_inherit_what_it_said():
    environ = {
        "NOTIFY_SOCKET": "/run/notify",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "7",
        "LISTEN_PID": "8",
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "rpc",
        "HOME": "/home",
    }
    take_service_manager(environ, 7)
    assert environ == {"HOME": "/home"}


def test_a_listener_of_another_process_is_left_alone():
    assert take_service_manager({"LISTEN_PID": "8", "LISTEN_FDS": "1"}, 7).listener is None


def test_a_message_that_nobody_takes_is_dropped(tmp_path):
    """Neither a gone socket nor a full one holds kitd up."""
    service = take_service_manager({"NOTIFY_SOCKET": str(tmp_path / "gone")}, os.getpid())
    service.notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as full:
        full.bind(str(tmp_path / "gone"))
        for _ in range(1000):
            service.notify("STATUS=" + "x" * 1000)
