"""GitHub's `package` and `registry_package`, for its container registry.

`{"action", "package": {"name", "package_type", "owner": {"login"}, "package_version": {"version",
"package_url", "container_metadata": {"tag": {"name", "digest"}, "manifest": {"digest"}}}}}`
(docs.github.com, "Webhook events and payloads"). The type is written in several ways, and wrongly;
whether there is metadata of a container tells more. A manifest without a tag has the tag `""`.
"""

from collections.abc import Mapping

from kitd.oci.digest import Digest
from kitd.oci.json_reader import Reader
from kitd.webhooks.delivery import Action, Change, Changes, Delivery, Irrelevant, Reading
from kitd.webhooks.format import MIB
from kitd.webhooks.formats.document import (
    checked_repository,
    digest,
    digest_in,
    malformed,
    other,
    read_object,
    tag_or_digest,
)
from kitd.webhooks.formats.form import payload_of
from kitd.webhooks.formats.sender import Sender, header_id
from kitd.webhooks.signature import header_hmac

MAX_BYTES = 4 * MIB
"""Events of packages have a few kilobytes. What a body of 25 MiB may be made of, which is the most
that is ever sent, costs a gigabyte to read."""
_EVENTS = frozenset({"package", "registry_package"})
_CONTAINERS = frozenset({"container", "docker"})
_ACTIONS: Mapping[str, Action] = {
    "published": Action.PUSH,
    "updated": Action.PUSH,
    "deleted": Action.DELETE,
}


def _repository(package: Reader, version: Reader | None) -> str:
    """Return owner and name, which the registry knows in lower case only."""
    owner = package.optional_child("owner")
    login = owner.optional_text("login") if owner else None
    if login or version is None:
        return checked_repository(package, "name", f"{login or ''}/{package.text('name')}".lower())
    # The path of `ghcr.io/owner/name:tag`; where there is no tag the colon may stand all the same.
    url = version.text("package_url")
    _, _, path = url.partition("/")
    return checked_repository(
        version, "package_url", path.partition("@")[0].partition(":")[0].lower()
    )


def _container(version: Reader | None) -> Reader | None:
    """Return the metadata of a container; None where there is none, or it is empty."""
    found = version.value("container_metadata") if version else None
    return version.child("container_metadata") if version and found else None


def _names(container: Reader | None, version: Reader | None) -> tuple[str | None, Digest | None]:
    tag_name: str | None = None
    digests: list[Digest | None] = []
    if container is not None:
        manifest = container.optional_child("manifest")
        digests.append(digest(manifest, "digest") if manifest else None)
        tag = container.optional_child("tag")
        if tag is not None:
            tag_name, found = tag_or_digest(tag, "name")
            digests += [digest(tag, "digest"), found]
    if version is not None:
        # The digest, for a container.
        digests.append(digest_in(version.optional_text("version") or ""))
    return tag_name, next(filter(None, digests), None)


def _read(delivery: Delivery) -> Reading:
    event = delivery.headers.get("x-github-event")
    if event is None:
        raise malformed("the header X-GitHub-Event is missing")
    if event not in _EVENTS:
        return Irrelevant(other("an event", event))
    document = read_object(payload_of(delivery), max_bytes=MAX_BYTES)
    package = document.child(event)
    action = _ACTIONS.get(document.text("action"))
    if action is None:
        return Irrelevant(other("the action", document.text("action")))
    version = package.optional_child("package_version")
    container, kind = _container(version), package.text("package_type", "")
    if container is None and kind.lower() not in _CONTAINERS:
        return Irrelevant(other("a package of type", kind))
    return Changes((Change(_repository(package, version), *_names(container, version), action),))


FORMAT = Sender(
    name="github",
    proof=header_hmac("x-hub-signature-256", prefix="sha256="),
    reader=_read,
    identity=header_id("x-github-delivery"),
    max_bytes=MAX_BYTES,
)
