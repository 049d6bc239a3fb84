"""Docker Hub: `{"callback_url", "push_data": {"tag"}, "repository": {"repo_name"}}`.

(docs.docker.com, "Webhooks".) No digest, no signature, no header. `callback_url` is for chains of
webhooks and is never called, and not kept: who has it can say how the delivery went.
"""

import re

from kitd.webhooks.delivery import Change, Changes, Delivery, Irrelevant, Reading
from kitd.webhooks.format import MIB
from kitd.webhooks.formats.document import read_object, repository, tag
from kitd.webhooks.formats.sender import Sender
from kitd.webhooks.signature import path_secret

_CALLBACK = re.compile(rb'("callback_url"\s*:\s*)"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
"""Found as text, because what is malformed is kept too: cut short, it may end within the URL."""


def _read(delivery: Delivery) -> Reading:
    document = read_object(delivery.body, max_bytes=MIB)
    name = repository(document.child("repository"), "repo_name")
    push = document.optional_child("push_data")
    if push is None:
        return Irrelevant("nothing was pushed")
    return Changes((Change(name, tag(push, "tag")),))


def _without_callback(body: bytes) -> bytes:
    return _CALLBACK.sub(rb'\1"[redacted]"', body)


FORMAT = Sender(name="dockerhub", proof=path_secret, reader=_read, keeper=_without_callback)
