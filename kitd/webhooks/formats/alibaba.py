"""Alibaba Cloud's Container Registry.

`{"push_data": {"digest", "tag"}, "repository": {"repo_full_name", "region", …}}` (alibabacloud.com,
"Manage triggers"). No signature and no header.
"""

from kitd.webhooks.delivery import Change, Changes, Delivery, Irrelevant, Reading
from kitd.webhooks.format import MIB
from kitd.webhooks.formats.document import digest, read_object, repository, tag
from kitd.webhooks.formats.sender import Sender
from kitd.webhooks.signature import path_secret


def _read(delivery: Delivery) -> Reading:
    document = read_object(delivery.body, max_bytes=MIB)
    name = repository(document.child("repository"), "repo_full_name")
    push = document.optional_child("push_data")
    if push is None:
        return Irrelevant("nothing was pushed")
    return Changes((Change(name, tag(push, "tag"), digest(push, "digest")),))


FORMAT = Sender(name="alibaba", proof=path_secret, reader=_read)
