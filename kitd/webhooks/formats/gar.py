"""Google Artifact Registry through a push subscription of Pub/Sub, wrapped and unwrapped.

`{"action": "INSERT", "digest": "host/project/repository/image@sha256:…", "tag":
"host/project/repository/image:tag"}` (cloud.google.com, "Configuring Pub/Sub notifications"), in
base64 in `{"message": {"data", "messageId"}, "subscription"}` or as it is ("Payload unwrapping for
Pub/Sub push subscriptions"). Either of digest and tag may be missing. The token that Pub/Sub can
sign is not looked at: Google's keys would have to be fetched.
"""

import base64
from collections.abc import Mapping

from kitd.oci.json_reader import Reader
from kitd.oci.reference import InvalidReferenceError, Reference, parse_reference
from kitd.webhooks.delivery import Action, Change, Changes, Delivery, Irrelevant, Reading
from kitd.webhooks.format import MIB
from kitd.webhooks.formats.document import malformed, other, read_object
from kitd.webhooks.formats.sender import Sender
from kitd.webhooks.signature import path_secret

_ACTIONS: Mapping[str, Action] = {"INSERT": Action.PUSH, "DELETE": Action.DELETE}


def _reference(notice: Reader, key: str) -> Reference | None:
    """Return a full reference; None where it is missing or empty."""
    text = notice.optional_text(key)
    if not text:
        return None
    try:
        reference = parse_reference(text)
    except InvalidReferenceError as error:
        raise notice.fail(key, "a full reference") from error
    if reference.repository.is_local or (reference.tag or reference.digest) is None:
        raise notice.fail(key, "a full reference")
    return reference


def _read(delivery: Delivery) -> Reading:
    notice = read_object(delivery.body, max_bytes=MIB)
    message = notice.optional_child("message")
    if message is not None:
        data = message.optional_text("data")
        if not data:
            return Irrelevant("a message without data")
        try:
            content = base64.b64decode(data, validate=True)
        except ValueError as error:
            raise message.fail("data", "base64") from error
        notice = read_object(content, max_bytes=MIB)
    name = notice.text("action")
    action = _ACTIONS.get(name)
    if action is None:
        return Irrelevant(other("the action", name))
    by_digest, by_tag = _reference(notice, "digest"), _reference(notice, "tag")
    named = by_tag or by_digest
    if named is None:
        raise notice.fail("digest", "a full reference here or at tag")
    if by_digest and by_digest.repository != named.repository:
        raise malformed("digest and tag name two repositories")
    return Changes(
        (
            Change(
                named.repository.name,
                by_tag.tag if by_tag else None,
                by_digest.digest if by_digest else named.digest,
                action,
            ),
        )
    )


def _identity(delivery: Delivery) -> str | None:
    # There where what Pub/Sub knows of a message is not in the body, and it is told to write it.
    message_id = delivery.headers.get("x-goog-pubsub-message-id")
    if message_id:
        return message_id
    message = read_object(delivery.body, max_bytes=MIB).optional_child("message")
    return message.optional_text("messageId") if message else None


FORMAT = Sender(name="gar", proof=path_secret, reader=_read, identity=_identity)
