"""Azure Container Registry's own webhooks.

`{"id", "action", "target": {"mediaType", "digest", "repository", "tag"}, …}` (learn.microsoft.com,
"Azure Container Registry webhook reference"). Charts of the old kind, in `chart_push`, are no
manifests.
"""

from kitd.webhooks.delivery import Changes, Delivery, Irrelevant, Reading
from kitd.webhooks.format import MIB
from kitd.webhooks.formats.document import other, read_object
from kitd.webhooks.formats.sender import Sender
from kitd.webhooks.formats.target import ACTIONS, change_of_target
from kitd.webhooks.signature import any_of, authorization, path_secret


def _read(delivery: Delivery) -> Reading:
    document = read_object(delivery.body, max_bytes=MIB)
    name = document.text("action")
    action = ACTIONS.get(name)
    if action is None:
        return Irrelevant(other("the action", name))
    change = change_of_target(document.child("target"), action)
    return Irrelevant("not a manifest") if change is None else Changes((change,))


def _identity(delivery: Delivery) -> str | None:
    return read_object(delivery.body, max_bytes=MIB).optional_text("id")


FORMAT = Sender(
    name="acr",
    proof=any_of(authorization, path_secret),
    reader=_read,
    identity=_identity,
)
