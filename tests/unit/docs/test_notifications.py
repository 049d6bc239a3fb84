"""docs/notifications.md shows what is really sent, and a check of signatures that is right."""

import json
import re
import time
from pathlib import Path

import pytest

from docs_runner.page import run_elsewhere
from kitd.ledger.event_ledger import Event
from kitd.outbox.cloud_event import CONTENT_TYPE, cloud_event
from kitd.outbox.plan import TOO_OLD_US
from kitd.signature import HEADER, sign

PAGE = (Path(__file__).parents[3] / "docs" / "notifications.md").read_text(encoding="utf-8")
(SECRET,) = re.findall(r"is `(correct horse battery staple)`", PAGE)


HTTP = run_elsewhere("docs/notifications.md", "http").text
JSON = run_elsewhere("docs/notifications.md", "json").text
PYTHON = run_elsewhere("docs/notifications.md", "python").text


@pytest.fixture
def headers():
    """Those of the example."""
    return dict(line.split(": ", 1) for line in HTTP.splitlines()[1:])


@pytest.fixture
def is_from_kitd():
    """The function that the page gives to receivers."""
    namespace = {}
    exec(PYTHON, namespace)
    return namespace["is_from_kitd"]


def test_the_example_is_what_is_sent(headers):
    shown = json.loads(JSON)
    event = Event(
        seq=int(shown["sequence"]),
        at_us=1_790_000_000_123_000,
        type="kit.packed",
        subject=shown["subject"],
        job=int(shown["kitdjob"]),
        project=shown["kitdproject"],
        data=shown["data"],
    )
    body = cloud_event(shown["id"].partition("-")[0], event)

    assert list(json.loads(body).items()) == list(shown.items())
    assert headers["Content-Type"] == CONTENT_TYPE
    assert headers[HEADER] == sign(SECRET.encode(), body, at_s=1_790_000_001)


def test_the_check_takes_what_kitd_signs_and_nothing_else(is_from_kitd):
    now_s = int(time.time())
    good = sign(b"secret", b"{}", at_s=now_s)
    assert is_from_kitd(good, b"{}", b"secret")
    assert not is_from_kitd(good, b"{} ", b"secret")
    assert not is_from_kitd(good, b"{}", b"Secret")
    assert not is_from_kitd(sign(b"secret", b"{}", at_s=now_s - 600), b"{}", b"secret")
    for header in ("", "t=,sha256=", good.upper(), good + "0", good.replace("t=", "t=1")):
        assert not is_from_kitd(header, b"{}", b"secret")


def test_the_check_has_ten_lines():
    assert sum(bool(line) for line in PYTHON.splitlines()) <= 10


def test_the_day_is_a_day():
    assert f"more than {TOO_OLD_US // 3_600_000_000} hours old" in PAGE
