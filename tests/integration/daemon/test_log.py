"""What of an event reaches the log, in both formats."""

import json
import logging

import pytest
import structlog

from kitd.config.model import LogConfig, LogFormat, LogLevel
from kitd.daemon.log import configure_logs
from kitd.secret import REDACTED, Secrets

SECRET = "open-sesame-7"


@pytest.fixture(autouse=True)
def restored():
    """The logs of the tests that follow are nobody's business here."""
    before = logging.getLogger().handlers[:]
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = before


def fail_with_secret():
    password = SECRET
    raise ValueError(f"cannot log in with {password}")


@pytest.mark.parametrize("style", [LogFormat.JSON, LogFormat.CONSOLE])
def test_a_secret_is_in_no_line_wherever_it_stood(capsys, style):
    """In a value, in an exception, in a record of the standard library, in a frame's variables."""
    secrets = Secrets()
    configure_logs(LogConfig(format=style), secrets)
    secrets.learn(SECRET)
    log = structlog.get_logger("test")
    log.info("said", value=f"the word is {SECRET}", listed=[SECRET], token="x")
    try:
        fail_with_secret()
    except ValueError:
        log.exception("failed")
    logging.getLogger("library").warning("sent %s", SECRET)

    text = capsys.readouterr().err
    assert SECRET not in text
    assert text.count(REDACTED) >= 4
    assert "cannot log in with" in text


def test_a_reload_changes_the_level_for_those_who_already_log(capsys):
    secrets = Secrets()
    configure_logs(LogConfig(format=LogFormat.JSON), secrets)
    log = structlog.get_logger("test")
    log.debug("first")
    configure_logs(LogConfig(format=LogFormat.JSON, level=LogLevel.DEBUG), secrets)
    log.debug("second")
    configure_logs(LogConfig(format=LogFormat.JSON, level=LogLevel.ERROR), secrets)
    log.warning("third")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == [
        "second"
    ]
