"""Quay: `{"repository": "team/model", "docker_url": "quay.io/team/model", "updated_tags": […]}`.

(docs.quay.io, "Repository Notifications".) Old ones have a map from tag to image instead of the
list. No digest, no signature, no header. Other notifications, of builds and of scans, name no
updated tags.
"""

from collections.abc import Mapping, Sequence

from kitd.oci.json_reader import Reader
from kitd.oci.reference import InvalidReferenceError, check_tag
from kitd.webhooks.delivery import Change, Changes, Delivery, Irrelevant, Reading
from kitd.webhooks.format import MIB
from kitd.webhooks.formats.document import checked_repository, malformed, read_object
from kitd.webhooks.formats.sender import Sender
from kitd.webhooks.signature import path_secret


def _repository(document: Reader) -> str:
    name = document.optional_text("repository")
    if name:
        return checked_repository(document, "repository", name)
    _, _, path = document.text("docker_url").partition("/")
    return checked_repository(document, "docker_url", path)


def _tags(document: Reader) -> list[str]:
    value = document.value("updated_tags")
    if isinstance(value, str) or not isinstance(value, Mapping | Sequence):
        raise document.fail("updated_tags", "a list of tags")
    tags = []
    for position, tag in enumerate(value):
        try:
            tags.append(check_tag(tag if isinstance(tag, str) else ""))
        except InvalidReferenceError as error:
            found = repr(tag)[:60]
            raise malformed(f"updated_tags[{position}]: expected a tag, found {found}") from error
    return tags


def _read(delivery: Delivery) -> Reading:
    document = read_object(delivery.body, max_bytes=MIB)
    name = _repository(document)
    if document.value("updated_tags") is None:
        return Irrelevant("a notification without updated tags")
    return Changes(tuple(Change(name, tag) for tag in _tags(document)))


FORMAT = Sender(name="quay", proof=path_secret, reader=_read)
