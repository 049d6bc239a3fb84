"""Amazon ECR through an API destination of EventBridge.

`{"id", "source": "aws.ecr", "detail-type": "ECR Image Action", "detail": {"result", "action-type",
"repository-name", "image-digest", "image-tag"}}` (docs.aws.amazon.com, "Amazon ECR events and
EventBridge"). An image without a tag has the tag `""` or none; each tag of a push is an event.
"""

from collections.abc import Mapping

from kitd.webhooks.delivery import Action, Change, Changes, Delivery, Irrelevant, Reading
from kitd.webhooks.format import MIB
from kitd.webhooks.formats.document import digest, other, read_object, repository, tag_or_digest
from kitd.webhooks.formats.sender import Sender
from kitd.webhooks.signature import any_of, authorization, header_secret, path_secret

_ACTIONS: Mapping[str, Action] = {"PUSH": Action.PUSH, "DELETE": Action.DELETE}


def _read(delivery: Delivery) -> Reading:
    document = read_object(delivery.body, max_bytes=MIB)
    kind = document.text("detail-type")
    if kind != "ECR Image Action":
        return Irrelevant(other("an event of type", kind))
    detail = document.child("detail")
    name, result = detail.text("action-type"), detail.text("result")
    if result != "SUCCESS":
        return Irrelevant(other("the result", result))
    action = _ACTIONS.get(name)
    if action is None:
        return Irrelevant(other("the action", name))
    tag, found = tag_or_digest(detail, "image-tag")
    image = digest(detail, "image-digest") or found
    return Changes((Change(repository(detail, "repository-name"), tag, image, action),))


def _identity(delivery: Delivery) -> str | None:
    return read_object(delivery.body, max_bytes=MIB).optional_text("id")


FORMAT = Sender(
    name="ecr",
    proof=any_of(authorization, header_secret("x-api-key"), path_secret),
    reader=_read,
    identity=_identity,
)
