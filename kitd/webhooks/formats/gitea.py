"""Gitea and Forgejo.

`{"action": "created", "package": {"owner": {"login"}, "name", "type": "container", "version"}}`
(docs.gitea.com, "Webhooks"). `version` is the tag, in lower case as their registry keeps it, or the
digest of a manifest without one. They send GitHub's headers beside their own; theirs decide. What
"Test delivery" sends is a push of commits.
"""

from collections.abc import Mapping

from kitd.webhooks.delivery import Action, Change, Changes, Delivery, Irrelevant, Reading
from kitd.webhooks.format import MIB
from kitd.webhooks.formats.document import (
    checked_repository,
    malformed,
    other,
    read_object,
    tag_or_digest,
)
from kitd.webhooks.formats.form import payload_of
from kitd.webhooks.formats.sender import Sender, header_id
from kitd.webhooks.signature import any_of, header_hmac

MAX_BYTES = 4 * MIB
"""Events of packages have a few kilobytes. What a body of 25 MiB may be made of, which is the most
that is ever sent, costs a gigabyte to read."""
_ACTIONS: Mapping[str, Action] = {"created": Action.PUSH, "deleted": Action.DELETE}


def _read(delivery: Delivery) -> Reading:
    event = delivery.headers.get("x-gitea-event")
    if event is None:
        raise malformed("the header X-Gitea-Event is missing")
    if event != "package":
        return Irrelevant(other("an event", event))
    document = read_object(payload_of(delivery), max_bytes=MAX_BYTES)
    package = document.child("package")
    kind, action = package.text("type"), _ACTIONS.get(document.text("action"))
    if kind != "container":
        return Irrelevant(other("a package of type", kind))
    if action is None:
        return Irrelevant(other("the action", document.text("action")))
    # An owner may be written with capitals; the names of the registry have none.
    name = f"{package.child('owner').text('login')}/{package.text('name')}".lower()
    repository = checked_repository(package, "name", name)
    return Changes((Change(repository, *tag_or_digest(package, "version"), action),))


FORMAT = Sender(
    name="gitea",
    proof=any_of(
        header_hmac("x-gitea-signature"), header_hmac("x-hub-signature-256", prefix="sha256=")
    ),
    reader=_read,
    identity=header_id("x-gitea-delivery"),
    max_bytes=MAX_BYTES,
)
