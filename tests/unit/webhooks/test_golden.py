"""Every golden delivery is judged and read as it says; tests/golden/webhooks/README.md."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

from kitd.webhooks.delivery import Changes, Delivery, Handshake, Irrelevant
from kitd.webhooks.format import MIB, MalformedDeliveryError
from kitd.webhooks.formats import FORMATS
from kitd.webhooks.judgement import judge, kept_headers

GOLDEN = Path(__file__).parents[2] / "golden/webhooks"
PATHS = sorted(GOLDEN.glob("*/*.json"))
LARGER = {"zot": 8 * MIB, "github": 4 * MIB, "gitea": 4 * MIB}


def load(path: Path) -> tuple[dict, Delivery, bytes]:
    document = json.loads(path.read_text(encoding="utf-8"))
    fields = dict(document["delivery"])
    text, encoded = fields.pop("body", None), fields.pop("body_base64", None)
    body = base64.b64decode(encoded) if text is None else text.encode()
    return document["expected"], Delivery(body=body, **fields), document["secret"].encode()


def read(format_, delivery: Delivery) -> dict:
    match format_.read(delivery):
        case Changes(changes):
            named = [
                {"repository": c.repository, "tag": c.tag, "digest": c.digest, "action": c.action}
                for c in changes
            ]
            return {"changes": named}
        case Irrelevant(why):
            return {"irrelevant": why}
        case Handshake(headers, body):
            return {"handshake": {"headers": dict(headers), "body": body.decode()}}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_is_kept_of_a_delivery_reads_as_all_of_it(path):
    format_ = FORMATS[path.parent.name]
    _, delivery, _ = load(path)
    kept = replace(delivery, body=format_.kept_body(delivery.body))

    judged = judge(format_, delivery)
    assert judge(format_, kept) == judged
    # Handshakes are answered and not kept at all.
    assert isinstance(judged, Handshake) or b"never-called" not in kept.body


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_delivery_is_judged_and_read(path):
    format_ = FORMATS[path.parent.name]
    expected, delivery, secret = load(path)

    assert format_.is_authentic(delivery, secret) is expected["authentic"]
    assert format_.delivery_id(delivery) == expected["delivery_id"]
    if not expected["authentic"]:
        assert expected["reading"] is None
    elif "malformed" in expected["reading"]:
        with pytest.raises(MalformedDeliveryError) as caught:
            format_.read(delivery)
        assert expected["reading"]["malformed"] in caught.value.message
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 240
        assert caught.value.hint is not None
    else:
        assert read(format_, delivery) == expected["reading"]


def kinds_of(name: str) -> set[str]:
    kinds = set()
    for path in GOLDEN.glob(f"{name}/*.json"):
        expected, _, _ = load(path)
        reading = expected["reading"]
        if not expected["authentic"]:
            kinds.add("wrong credential")
        elif "malformed" in reading:
            kinds.add("malformed")
        elif any(change["action"] == "push" for change in reading.get("changes", [])):
            kinds.add("push")
        elif not reading.get("changes"):
            kinds.add("not acted on")
    return kinds


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_the_cases_that_matter(name):
    assert kinds_of(name) >= {"push", "not acted on", "wrong credential", "malformed"}


def test_every_golden_is_of_a_format():
    assert {path.parent.name for path in PATHS} == set(FORMATS)


@pytest.mark.parametrize(("name", "format_"), FORMATS.items())
def test_a_format_has_its_own_name_and_bound(name, format_):
    assert format_.name == name
    assert format_.max_bytes == LARGER.get(name, MIB)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_no_other_secret_will_do(path):
    format_ = FORMATS[path.parent.name]
    _, delivery, secret = load(path)
    assert not format_.is_authentic(delivery, secret + b"!")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_delivery_that_is_kept_is_read_again_as_it_was(path):
    """What is left of its headers is enough, and nothing of them is the secret."""
    form = FORMATS[path.parent.name]
    expected, delivery, secret = load(path)
    if not expected["authentic"] or delivery.method != "POST":
        return
    kept = replace(delivery, headers=kept_headers(delivery.headers), path_secret=None)
    assert judge(form, kept) == judge(form, delivery)
    assert secret.decode() not in str(kept.headers)
