"""What of an event reaches the log, in both formats."""

import json
import logging
import sys
import threading

import pytest
import structlog

from kitd.config.model import LogConfig, LogFormat, LogLevel
from kitd.daemon.log import open_logs
from kitd.secret import REDACTED

SECRET = "open-sesame-7"


@pytest.fixture
def logs(capfd):
    """The logs of the tests that follow are nobody's business here."""
    before = logging.getLogger().handlers[:]
    with open_logs() as logs:
        yield logs
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = before


@pytest.fixture
def said(logs, capfd):
    """What came out so far, after the last time."""

    def read():
        assert logs.writer.flush(10)
        return capfd.readouterr().err

    return read


def fail_with_secret():
    password = SECRET
    raise ValueError(f"cannot log in with {password}")


@pytest.mark.parametrize("style", [LogFormat.JSON, LogFormat.CONSOLE])
def test_a_secret_is_in_no_line_wherever_it_stood(logs, said, style):
    """In a value, an exception, in a record of the standard library, in a frame's variables."""
    logs.configure(LogConfig(format=style))
    logs.secrets.learn(SECRET)
    log = structlog.get_logger("test")
    log.info("said", value=f"the word is {SECRET}", listed=[SECRET], token="x")
    try:
        fail_with_secret()
    except ValueError:
        log.exception("failed")
    logging.getLogger("library").warning("sent %s", SECRET)

    text = said()
    assert SECRET not in text
    assert text.count(REDACTED) >= 4
    assert "cannot log in with" in text


def test_what_is_printed_goes_the_way_of_the_log(capfd):
    """Python prints what a thread died of: that may neither wait nor tell a secret."""
    with open_logs() as logs:
        logs.secrets.learn(SECRET)
        print("printed", SECRET, file=sys.stderr)
    assert capfd.readouterr().err == f"printed {REDACTED}\n"


def test_what_is_printed_in_pieces_comes_out_in_lines(capfd):
    """Python prints a traceback in many, and another thread may print meanwhile."""
    begun, ended = threading.Event(), threading.Event()

    def other():
        begun.wait(10)
        print("the line of another", file=sys.stderr)
        ended.set()

    with open_logs() as logs:
        logs.secrets.learn(SECRET)
        thread = threading.Thread(target=other)
        thread.start()
        sys.stderr.write(f"one {SECRET[:5]}")
        begun.set()
        ended.wait(10)
        sys.stderr.write(f"{SECRET[5:]} line\n")
        thread.join()
    assert capfd.readouterr().err == f"the line of another\none {REDACTED} line\n"


def test_a_reload_changes_the_level_for_those_who_already_log(logs, said):
    logs.configure(LogConfig(format=LogFormat.JSON))
    log = structlog.get_logger("test")
    log.debug("first")
    logs.configure(LogConfig(format=LogFormat.JSON, level=LogLevel.DEBUG))
    log.debug("second")
    logs.configure(LogConfig(format=LogFormat.JSON, level=LogLevel.ERROR))
    log.warning("third")
    assert [json.loads(line)["event"] for line in said().splitlines()] == ["second"]


def test_the_words_of_libraries_are_no_names_of_events(logs, said):
    """They change with their versions, and one may be that of an event of kitd's."""
    logs.configure(LogConfig(format=LogFormat.JSON))
    logging.getLogger("aiohttp.server").error("daemon.%s", "stopped")
    line = json.loads(said())
    assert (line["event"], line["logger"]) == ("library.message", "aiohttp.server")
    assert (line["text"], line["level"]) == ("daemon.stopped", "error")


def test_what_others_named_does_not_steer_a_terminal(logs, said):
    """Neither by a sequence that it obeys, nor by a line that looks like one of kitd's."""
    logs.configure(LogConfig(format=LogFormat.CONSOLE))
    log = structlog.get_logger("test")
    evil = "\x1b]0;title\x07\x9b2J\u202e"
    log.warning("said", error=evil, forged="a\nb")
    log.error("failed", exc_info=ValueError(evil))
    text = said()
    assert not {"\x07", "\x9b", "\u202e"} & set(text)
    assert "\x1b]" not in text
    assert text.count("x1b]0;title") == 2
    assert "forged" in text.splitlines()[0]
    assert "a\nb" not in text
    assert "\nValueError: " in text
