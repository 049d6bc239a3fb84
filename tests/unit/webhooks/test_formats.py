"""What holds for every format, and is too large or too odd for a golden file."""

import json
from urllib.parse import quote_plus

import pytest

from kitd.webhooks.delivery import Change, Changes, Delivery
from kitd.webhooks.format import MIB, MalformedDeliveryError
from kitd.webhooks.formats import FORMATS
from kitd.webhooks.formats.form import payload_of
from kitd.webhooks.formats.sender import MAX_CHANGES, MAX_ID_CHARS

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def post(body: bytes | object, **headers: str) -> Delivery:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Delivery(method="POST", headers=named, body=raw, received_us=0)


def push(number: int) -> dict:
    target = {"mediaType": MANIFEST, "repository": "team/model", "tag": f"v{number}"}
    return {"id": str(number), "action": "push", "target": target}


def message_of(name: str, delivery: Delivery) -> str:
    with pytest.raises(MalformedDeliveryError) as caught:
        FORMATS[name].read(delivery)
    return caught.value.message


def test_a_thousand_changes_are_read_and_no_more():
    delivery = post({"events": [push(number) for number in range(MAX_CHANGES)]})
    reading = FORMATS["distribution"].read(delivery)
    assert isinstance(reading, Changes)
    assert len(reading.changes) == MAX_CHANGES
    assert len(set(reading.changes)) == MAX_CHANGES

    delivery = post({"events": [push(number) for number in range(MAX_CHANGES + 1)]})
    assert "events: 1001 items" in message_of("distribution", delivery)


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("quay", {"repository": "team/model", "updated_tags": ["v1"] * 1001}),
        (
            "harbor",
            {
                "type": "PUSH_ARTIFACT",
                "event_data": {
                    "repository": {"repo_full_name": "team/model"},
                    "resources": [{"tag": "v1"}] * 1001,
                },
            },
        ),
        ("eventgrid", [{"type": "another"}] * 1001),
    ],
)
def test_more_than_a_thousand_of_anything_is_malformed(name, document):
    assert "more than 1000" in message_of(name, post(document))


def test_a_hundred_objects_of_ones_own_are_read():
    reading = FORMATS["generic"].read(post([{"repository": "team/model"}] * 100))
    assert isinstance(reading, Changes)
    assert len(reading.changes) == 100


@pytest.mark.parametrize("name", FORMATS)
def test_a_body_that_is_too_large_is_not_read(name):
    format_ = FORMATS[name]
    delivery = post(b" " * (format_.max_bytes + 1))
    assert f"more than {format_.max_bytes}" in message_of(name, delivery)
    assert format_.delivery_id(delivery) is None


def test_zot_sends_manifests_of_megabytes():
    document = {"name": "team/model", "reference": "v1", "manifest": "x" * (7 * MIB)}
    delivery = post(document, ce_type="zotregistry.image.updated")
    assert FORMATS["zot"].read(delivery) == Changes((Change("team/model", "v1"),))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"7", b'"x"', b"[[]]", b"{}", b"\xff", b"[" * 100_000, b'{"a":' * 100_000],
    ids=lambda body: repr(body[:6]),
)
def test_a_body_of_something_else_is_malformed(name, body):
    headers = {"x_github_event": "package", "x_gitea_event": "package"}
    assert message_of(name, post(body, **headers)).isprintable()


def test_a_long_or_odd_delivery_id_becomes_its_hash():
    github = FORMATS["github"]
    ids = [
        github.delivery_id(post(b"", x_github_delivery=value))
        for value in ("a" * MAX_ID_CHARS, "a" * 201, "a" * 201 + "b", "a\x00", "a\n", "")
    ]
    assert ids[0] == "a" * MAX_ID_CHARS
    assert ids[-1] is None
    hashes = ids[1:-1]
    assert len({*hashes}) == 4
    assert all(len(each) == 64 and each.isalnum() for each in hashes)


def test_ids_that_are_cut_in_another_way_are_another_delivery():
    def name_of(*ids: str) -> str | None:
        return FORMATS["distribution"].delivery_id(post({"events": [{"id": i} for i in ids]}))

    assert name_of("a", "bc") != name_of("ab", "c")
    assert name_of("a") == name_of("a")
    assert name_of("a") != name_of("a", "a")
    assert name_of("a", "") is None


def test_events_of_which_one_has_no_name_have_none():
    events = [{"type": "a", "source": "/s", "id": "1"}, {"type": "a", "source": "/s"}]
    assert FORMATS["eventgrid"].delivery_id(post(events)) is None
    assert FORMATS["eventgrid"].delivery_id(post(events[:1])) == "/s 1"


@pytest.mark.parametrize("tag", [None, ""])
def test_no_tag_is_no_tag(tag):
    alibaba = {"repository": {"repo_full_name": "a"}, "push_data": {"tag": tag, "digest": tag}}
    assert FORMATS["alibaba"].read(post(alibaba)) == Changes((Change("a"),))
    generic = {"repository": "a", "tag": tag, "digest": tag}
    assert FORMATS["generic"].read(post(generic)) == Changes((Change("a"),))


def test_a_name_with_a_dot_is_a_path_and_no_host():
    reading = FORMATS["generic"].read(post({"repository": "example.com/model"}))
    assert reading == Changes((Change("example.com/model"),))


@pytest.mark.parametrize(
    "name", ["", "/", "a//b", "../a", "a/..", "A", "a:b", "a@b", "a b", "é", "a\n", "a" * 300]
)
def test_what_is_no_name_is_told_and_abbreviated(name):
    message = message_of("generic", post({"repository": name}))
    assert message.startswith("repository: expected the name of a repository, found ")
    assert message.isprintable()
    assert len(message) < 120


def test_a_validation_among_other_events_does_not_hide_them():
    validation = {
        "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "data": {"validationCode": "code"},
    }
    pushed = {
        "eventType": "Microsoft.ContainerRegistry.ImagePushed",
        "data": {"target": {"repository": "team/model", "tag": "v1"}},
    }
    reading = FORMATS["eventgrid"].read(post([validation, pushed]))
    assert reading == Changes((Change("team/model", "v1"),))


@pytest.mark.parametrize("event", ["x_github_event", "x_gitea_event"])
@pytest.mark.parametrize(
    ("form", "why"),
    [
        (b"", "payload: expected one field of the form, found 0"),
        (b"payload={}&payload={}", "payload: expected one field of the form, found 2"),
        (b"payload=", "not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"payload=%7B%7", "not JSON: Expecting property name"),
        (b"payload=%ff", "not JSON: 'utf-8' codec can't decode byte 0xff"),
        (b"payload=\xff", "not JSON: 'utf-8' codec can't decode byte 0xff"),
        (b"a=b&" * 100 + b"payload={}", "a form of 101 fields, more than 16"),
    ],
)
def test_a_form_that_cannot_be_read_is_malformed(event, form, why):
    headers = {"content_type": "application/x-www-form-urlencoded", event: "package"}
    assert message_of(event.split("_")[1], post(form, **headers)).startswith(why)


@pytest.mark.parametrize("shift", range(4))
def test_a_form_of_megabytes_is_its_json(shift):
    text = "é+ %&=" * 200_000 + "x" * shift
    owner = {"login": "team"}
    package = {"owner": owner, "name": "model", "type": "container", "version": "v1", "x": text}
    document = json.dumps({"action": "created", "package": package}, ensure_ascii=False)
    form = b"a=b&payload=" + quote_plus(document).encode()
    delivery = post(form, content_type="application/x-www-form-urlencoded", x_gitea_event="package")
    assert FORMATS["gitea"].read(delivery) == Changes((Change("team/model", "v1"),))
    assert payload_of(delivery) == document.encode()


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b'{"callback_url": "https://a/t0k", "b": 1}', b'{"callback_url": "[redacted]", "b": 1}'),
        (b'{"callback_url":"https:\\/\\/a\\"t0k"}', b'{"callback_url":"[redacted]"}'),
        (b'{"callback_url" :\n "https://a/t0', b'{"callback_url" :\n "[redacted]"'),
        (b'{"callback_url":"https://a/t0\\', b'{"callback_url":"[redacted]"'),
        (b'{"callback_url": null}', b'{"callback_url": null}'),
        (b'{"other": "callback_url"}', b'{"other": "callback_url"}'),
        (b"\xff\x00", b"\xff\x00"),
        (b'"callback_url":"' * 60_000, None),
        (b'"callback_url":"' + b"\\" * 1_000_000, None),
    ],
    ids=lambda value: repr(value[:20]) if value else "",
)
def test_the_callback_of_docker_hub_is_not_kept(body, kept):
    """Not of what is malformed either: who has the URL can say how the delivery went."""
    found = FORMATS["dockerhub"].kept_body(body)
    assert b"t0" not in found
    assert kept is None or found == kept
