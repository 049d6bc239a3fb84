"""kitd's own format, for whoever can run a command: a CI job, a script, a registry of one's own.

`{"repository", "tag"?, "digest"?, "action"?}` or a list of at most 100 of these, signed as
`kitd.signature` says, which is good for five minutes. `action` is `push` where none is given, or
`delete`. `X-Kitd-Delivery` may name the delivery. An empty list says nothing, which is a way to try
the signature.
"""

from kitd.webhooks.delivery import Action, Change, Changes, Delivery, Reading
from kitd.webhooks.format import MIB
from kitd.webhooks.formats.document import digest, read_objects, repository, tag
from kitd.webhooks.formats.sender import Sender, header_id
from kitd.webhooks.formats.target import ACTIONS
from kitd.webhooks.signature import own_signature

WINDOW_S = 300
MAX_OBJECTS = 100


def _read(delivery: Delivery) -> Reading:
    changes = []
    for each in read_objects(delivery.body, max_bytes=MIB, at_most=MAX_OBJECTS):
        action = ACTIONS.get(each.text("action", Action.PUSH))
        if action is None:
            raise each.fail("action", "push or delete")
        name = repository(each, "repository")
        changes.append(Change(name, tag(each, "tag"), digest(each, "digest"), action))
    return Changes(tuple(changes))


FORMAT = Sender(
    name="generic",
    proof=own_signature(window_s=WINDOW_S),
    reader=_read,
    identity=header_id("x-kitd-delivery"),
)
