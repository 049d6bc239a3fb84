"""Events as CloudEvents 1.0: what the specification asks for, and what readers rely on."""

import json
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest

from kitd.ledger.event_ledger import Event
from kitd.outbox.cloud_event import CONTENT_TYPE, cloud_event

INSTANCE = "4f1c2a9be0d34c6f8a7b5e2d1c0f9a8b"


@pytest.fixture
def event():
    """Make an event; what is not named is plain."""

    def event(**fields):
        plain = {"seq": 42, "at_us": 1_700_000_000_123_456, "type": "kit.packed"}
        plain |= {
            "subject": "kit:sha256:aa",
            "job": None,
            "project": None,
            "data": {"tags": ["v1"]},
        }
        return Event(**{**plain, **fields})

    return event


def told(event, instance=INSTANCE):
    return json.loads(cloud_event(instance, event))


def test_every_attribute_has_the_form_of_the_specification(event):
    """CloudEvents 1.0.2: context attributes, type system, naming conventions."""
    said = told(event(job=7, project="demo"))

    assert said["specversion"] == "1.0"
    for required in ("id", "source", "type"):
        assert isinstance(said[required], str)
        assert said[required]
    assert urlsplit(said["source"]).scheme == "urn"
    assert said["datacontenttype"] == "application/json"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", said["time"])
    at = datetime.fromisoformat(said["time"])
    assert at == datetime.fromtimestamp(0, UTC) + timedelta(microseconds=1_700_000_000_123_000)
    assert all(re.fullmatch("[a-z0-9]{1,20}", name) for name in said)
    attributes = {name: value for name, value in said.items() if name != "data"}
    assert all(isinstance(value, str) and value for value in attributes.values())
    assert CONTENT_TYPE == "application/cloudevents+json; charset=utf-8"


def test_it_says_what_the_event_says(event):
    assert told(event(job=7, project="demo")) == {
        "specversion": "1.0",
        "id": f"{INSTANCE}-42-1700000000123456",
        "source": f"urn:kitd:{INSTANCE}",
        "type": "dev.kitd.kit.packed",
        "subject": "kit:sha256:aa",
        "time": "2023-11-14T22:13:20.123Z",
        "datacontenttype": "application/json",
        "sequence": "0000000000000000042",
        "kitdjob": "7",
        "kitdproject": "demo",
        "data": {"tags": ["v1"]},
    }


def test_what_an_event_is_not_about_is_left_out(event):
    assert told(event()).keys().isdisjoint({"kitdjob", "kitdproject"})


def test_the_order_of_the_text_is_the_order_of_the_events(event):
    numbers = [1, 9, 10, 99, 100, 2**31, 2**63 - 1]
    said = [told(event(seq=number))["sequence"] for number in numbers]
    assert said == sorted(said)
    assert len(set(map(len, said))) == 1


def test_the_same_event_is_the_same_bytes_and_that_of_another_ledger_is_not(event):
    assert cloud_event(INSTANCE, event()) == cloud_event(INSTANCE, event())
    other = told(event(), instance="0" * 32)
    assert other["id"] != told(event())["id"]
    assert other["source"] != told(event())["source"]


def test_a_number_that_is_given_again_is_another_id(event):
    """A ledger that was restored from a backup numbers what happens then like what it forgot."""
    first, second = told(event()), told(event(at_us=1_700_000_000_123_457))
    assert (first["source"], first["sequence"]) == (second["source"], second["sequence"])
    assert first["id"] != second["id"]


def test_text_of_every_script_comes_back(event):
    data = {"text": 'Grévy "\\ \u2028 \U0001f600', "list": [1, None, 2.5, {"a": []}]}
    assert told(event(data=data, subject="project:naïve"))["data"] == data
