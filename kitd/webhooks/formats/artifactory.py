"""JFrog Artifactory's webhooks of the domain `docker`.

`{"domain": "docker", "event_type": "pushed", "data": {"repo_key", "image_name", "tag", "sha256"}}`
(docs.jfrog.com, "Event Types"). `sha256` is the manifest's, without its algorithm. The secret is
sent as it is, or signs the body. A remote repository's cache says `pushed` for whatever is pulled
through it.
"""

from collections.abc import Mapping

from kitd.oci.digest import Digest
from kitd.oci.json_reader import Reader
from kitd.webhooks.delivery import Action, Change, Changes, Delivery, Irrelevant, Reading
from kitd.webhooks.format import MIB
from kitd.webhooks.formats.document import (
    checked_repository,
    digest_in,
    other,
    read_object,
    tag_or_digest,
)
from kitd.webhooks.formats.sender import Sender
from kitd.webhooks.signature import any_of, header_hmac, header_secret

_AUTH = "x-jfrog-event-auth"
_ACTIONS: Mapping[str, Action] = {
    "pushed": Action.PUSH,
    "promoted": Action.PUSH,
    "deleted": Action.DELETE,
}


def _digest(data: Reader) -> Digest | None:
    text = data.optional_text("sha256")
    if not text:
        return None
    found = digest_in(text if ":" in text else f"sha256:{text}")
    if found is None:
        raise data.fail("sha256", "64 hex digits")
    return found


def _read(delivery: Delivery) -> Reading:
    document = read_object(delivery.body, max_bytes=MIB)
    domain, name = document.text("domain"), document.text("event_type")
    if domain != "docker":
        return Irrelevant(other("an event of the domain", domain))
    action = _ACTIONS.get(name)
    if action is None:
        return Irrelevant(other("an event of type", name))
    data = document.child("data")
    key = data.text("repo_key")
    if data.text("sha256", "").startswith("sample_"):
        return Irrelevant("a test delivery")
    if key.endswith("-cache"):
        return Irrelevant("what a remote repository cached")
    repository = checked_repository(data, "image_name", f"{key}/{data.text('image_name')}")
    tag, found = tag_or_digest(data, "tag")
    return Changes((Change(repository, tag, _digest(data) or found, action),))


FORMAT = Sender(
    name="artifactory",
    proof=any_of(header_secret(_AUTH), header_hmac(_AUTH)),
    reader=_read,
)
