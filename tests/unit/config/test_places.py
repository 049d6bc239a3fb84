import subprocess
import sys
from pathlib import Path

import pytest

from kitd.config.places import (
    InvalidPlaceError,
    Place,
    find_config,
    find_daemon,
    find_places,
    find_socket,
    find_state_dir,
)

HOME = {"HOME": "/home/ada"}
SESSION = HOME | {"XDG_RUNTIME_DIR": "/run/user/1000"}
ADA, ROOT = 1000, 0


@pytest.mark.parametrize(
    ("environ", "uid", "config", "state_dir", "socket"),
    [
        pytest.param(
            SESSION,
            ADA,
            "/home/ada/.config/kitd/kitd.yaml",
            "/home/ada/.local/state/kitd",
            "/run/user/1000/kitd/kitd.sock",
            id="user",
        ),
        pytest.param(
            HOME,
            ADA,
            "/home/ada/.config/kitd/kitd.yaml",
            "/home/ada/.local/state/kitd",
            "/home/ada/.local/state/kitd/kitd.sock",
            id="user without a session",
        ),
        pytest.param(
            SESSION | {"XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s"},
            ADA,
            "/c/kitd/kitd.yaml",
            "/s/kitd",
            "/run/user/1000/kitd/kitd.sock",
            id="XDG directories",
        ),
        pytest.param(
            SESSION | {"XDG_CONFIG_HOME": "c", "XDG_STATE_HOME": ""},
            ADA,
            "/home/ada/.config/kitd/kitd.yaml",
            "/home/ada/.local/state/kitd",
            "/run/user/1000/kitd/kitd.sock",
            id="relative and empty XDG directories are ignored",
        ),
        pytest.param(
            {},
            ROOT,
            "/etc/kitd/kitd.yaml",
            "/var/lib/kitd",
            "/run/kitd/kitd.sock",
            id="system",
        ),
        pytest.param(
            {"HOME": "/home/root", "XDG_RUNTIME_DIR": "/run/user/0"},
            ROOT,
            "/home/root/.config/kitd/kitd.yaml",
            "/home/root/.local/state/kitd",
            "/run/user/0/kitd/kitd.sock",
            id="root with a session",
        ),
        pytest.param(
            {"STATE_DIRECTORY": "/var/lib/kitd-a:/var/lib/b", "RUNTIME_DIRECTORY": "/run/kitd-a"},
            ROOT,
            "/etc/kitd/kitd.yaml",
            "/var/lib/kitd-a",
            "/run/kitd-a/kitd.sock",
            id="systemd's directories, the first of several",
        ),
    ],
)
def test_defaults_follow_the_mode_and_are_not_explicit(
    environ: dict[str, str], uid: int, config: str, state_dir: str, socket: str
) -> None:
    places = find_places(environ, uid)
    assert places.config == Place(config, is_explicit=False)
    assert places.state_dir == Place(state_dir, is_explicit=False)
    assert places.socket == Place(socket, is_explicit=False)


@pytest.mark.parametrize("uid", [ADA, ROOT])
def test_variables_beat_directories_and_flags_beat_variables(uid: int) -> None:
    environ = SESSION | {
        "KITD_CONFIG": "/v/kitd.yaml",
        "KITD_STATE_DIR": "/v/state",
        "KITD_SOCKET": "/v/kitd.sock",
        "STATE_DIRECTORY": "/d/state",
        "RUNTIME_DIRECTORY": "/d/run",
    }
    places = find_places(environ, uid)
    assert places.config == Place("/v/kitd.yaml", is_explicit=True)
    assert places.state_dir == Place("/v/state", is_explicit=True)
    assert places.socket == Place("/v/kitd.sock", is_explicit=True)

    flagged = find_places(environ, uid, config="/f/kitd.yaml", socket="/f/kitd.sock")
    assert flagged.config == Place("/f/kitd.yaml", is_explicit=True)
    assert flagged.socket == Place("/f/kitd.sock", is_explicit=True)


def test_the_socket_of_a_user_without_a_session_follows_the_state_directory() -> None:
    socket = find_socket({"KITD_STATE_DIR": "/srv/kitd"}, ADA)
    assert socket == Place("/srv/kitd/kitd.sock", is_explicit=False)


OWN, SYSTEM = "/run/user/1000/kitd/kitd.sock", "/run/kitd/kitd.sock"
OWN_LEDGER = "/home/ada/.local/state/kitd/ledger.sqlite3"


@pytest.mark.parametrize(
    ("there", "opened", "expected"),
    [
        ({OWN}, {SYSTEM}, OWN),
        ({OWN}, set(), OWN),
        (set(), {SYSTEM}, SYSTEM),
        # What is started is the user's own.
        (set(), set(), OWN),
        # His own is only away, and nothing that is meant for it goes to another.
        ({OWN_LEDGER}, {SYSTEM}, OWN),
        # It is there, and not for him.
        ({SYSTEM}, set(), OWN),
    ],
)
def test_clients_find_the_systems_daemon_where_the_user_has_none(there, opened, expected) -> None:
    environ = {"HOME": "/home/ada", "XDG_RUNTIME_DIR": "/run/user/1000"}
    exists, is_open = there.__contains__, opened.__contains__
    assert find_daemon(environ, ADA, exists, is_open) == expected
    named = environ | {"KITD_SOCKET": "/v/kitd.sock"}
    assert find_daemon(named, ADA, exists, is_open) == "/v/kitd.sock"


@pytest.mark.parametrize("name", ["KITD_CONFIG", "KITD_STATE_DIR", "KITD_SOCKET"])
def test_a_relative_variable_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidPlaceError, match=f"{name} is 'here', not an absolute path"):
        find_places(SESSION | {name: "here"}, ADA)


@pytest.mark.parametrize("find", [find_config, find_state_dir, find_socket])
def test_a_user_without_a_home_is_told_what_to_set(find) -> None:
    with pytest.raises(InvalidPlaceError, match="nor HOME is set") as caught:
        find({}, ADA)
    assert caught.value.hint is not None


def test_a_client_pays_for_nothing_but_the_places() -> None:
    """`kitctl` imports this module on every start."""
    code = (
        "import sys, kitd.config.places\n"
        "heavy = {'yaml', 'asyncio', 'dataclasses', 'argparse', 'json', 'kitd.config.model'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)))"
    )
    root = Path(__file__).parents[3]
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=root
    )
    assert ran.stderr.strip() == ""
