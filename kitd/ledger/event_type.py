"""Every type of event, what it says happened, and the keys of its data.

`docs/events.md` is written from this table; a test compares it with the types that are emitted, and
what real daemons tell with the keys.
"""

from collections.abc import Mapping
from typing import NamedTuple


class EventType(NamedTuple):
    """What an event of a type is about, what happened, and what its data has."""

    subject: str
    about: str
    data: Mapping[str, str]
    """Key to meaning; a key that ends in `?` may be absent."""


_JOB = {
    "kind": "`pack`, `push` …",
    "project?": "the project that it is of",
    "reference?": "the kit or the repository that it is about",
}
_FAILURE = {
    "code": "the [error code](errors.md)",
    "message": "what failed on which thing and why",
    "hint": "what to do next, or null",
}
_NAMED = {"repository": "where it is called so", "tags": "the tags that name it"}
_EDGE = {
    "source": "the tag there, as a reference",
    "target": "the tag that is made of it",
    "mirror": "the rule, or null where a person asked",
}


def _job(about: str, **data: str) -> EventType:
    named = {key.replace("_or_not", "?"): meaning for key, meaning in data.items()}
    return EventType("job:ID", about, {**_JOB, **named})


EVENT_TYPES: Mapping[str, EventType] = {
    "blob.missing": EventType(
        "blob:DIGEST",
        "a verification did not find a blob that kits need",
        {"kits": "those that need it", "why": "what was found"},
    ),
    "blob.quarantined": EventType(
        "blob:DIGEST",
        "a blob was not what it should be, and is out of the cache",
        {"kits": "those that need it", "why": "what was found"},
    ),
    "cache.collected": EventType(
        "cache",
        "a collection removed something",
        {
            "freed_bytes": "how much room there is more",
            "blobs": "how many went",
            "kits": "which went, the first of many",
        },
    ),
    "cache.over_limit": EventType(
        "cache",
        "the cache is over its limits, and nothing more may go",
        {"over_bytes": "by how much", "message": "what helps"},
    ),
    "config.rejected": EventType(
        "daemon", "a reload applied nothing", {"problems": "why, one line for each"}
    ),
    "config.reloaded": EventType(
        "daemon", "a reload was applied", {"changed": "the keys that have another value"}
    ),
    "daemon.started": EventType(
        "daemon", "kitd began", {"version": "of kitd", "epoch": "the number of this life"}
    ),
    "daemon.stopped": EventType(
        "daemon", "kitd ended in good order", {"epoch": "the number of this life"}
    ),
    "job.cancelled": _job("it was cancelled"),
    "job.cancelling": _job("somebody cancels it while it runs"),
    "job.created": _job("it was asked for", why_or_not="what it follows from"),
    "job.due": _job("the time has come that it waited for"),
    "job.failed": _job("it failed for good", **_FAILURE),
    "job.interrupted": _job("kitd ended while it ran; it goes on", why="how"),
    "job.joined": _job(
        "it waits already, and is what somebody else asks for", why_or_not="what that follows from"
    ),
    "job.retried": _job("somebody lets it run again"),
    "job.retrying": _job(
        "an attempt failed; another one follows", **_FAILURE, delay_ms="how long it waits"
    ),
    "job.started": _job("an attempt began", attempt="which"),
    "job.succeeded": _job("it is done", followed_by_or_not="the jobs that follow from it"),
    "job.superseded": _job(
        "another job does its work",
        by_or_not="that job",
        **{f"{key}?": meaning for key, meaning in _FAILURE.items()},
    ),
    "kit.evicted": EventType(
        "kit:DIGEST",
        "a collection removed a kit from the cache",
        {
            "repositories": "what it was called",
            "tags": "its tags, as references",
            "locations": "where it is still",
            "why": "the reason",
        },
    ),
    "kit.mirrored": EventType(
        "kit:DIGEST", "a mirror copied a kit", {**_EDGE, "bytes": "how many were sent"}
    ),
    "kit.packed": EventType("kit:DIGEST", "a new version was packed", _NAMED),
    "kit.pinned": EventType(
        "kit:DIGEST", "a kit is kept", {"reference": "the name it was asked by"}
    ),
    "kit.pulled": EventType("kit:DIGEST", "a kit came from a registry", _NAMED),
    "kit.pushed": EventType("kit:DIGEST", "a kit is in a registry", _NAMED),
    "kit.removed": EventType(
        "kit:DIGEST",
        "somebody removed a kit from a repository of the cache",
        {"repository": "that one"},
    ),
    "kit.unpinned": EventType(
        "kit:DIGEST", "a kit may be collected again", {"reference": "the name it was asked by"}
    ),
    "mirror.conflict": EventType(
        "tag:REF",
        "a target's tag was moved by somebody else",
        {
            **_EDGE,
            "source_digest": "what the source's tag names",
            "target_digest": "what the target's did",
            "overwritten": "whether the source's content is there now",
        },
    ),
    "mirror.removed": EventType(
        "tag:REF", "a mirror deleted a tag that is gone from its source", _EDGE
    ),
    "notification.dropped": EventType(
        "notification:NAME",
        "an endpoint is never told of some events",
        {
            "endpoint": "its name",
            "events": "how many",
            "through": "the number of the last one",
            "why": "the reason",
        },
    ),
    "project.added": EventType("project:NAME", "somebody added or changed a project", {}),
    "project.blocked": EventType(
        "project:NAME", "a project is held back for long", {"reason": "by what"}
    ),
    "project.held": EventType("project:NAME", "somebody holds a project", {}),
    "project.released": EventType("project:NAME", "somebody released a project", {}),
    "project.removed": EventType("project:NAME", "somebody removed a project", {}),
    "project.unblocked": EventType("project:NAME", "nothing holds a project back any more", {}),
    "queue.paused": EventType("queue", "nothing begins: a disk is full", _FAILURE),
    "queue.resumed": EventType("queue", "jobs begin again", {}),
    "tag.moved": EventType(
        "tag:REF",
        "a tag of the cache names something else",
        {"from": "what it named, or null", "to": "what it names"},
    ),
    "tag.removed": EventType("tag:REF", "a tag of the cache is gone", {"from": "what it named"}),
    "webhook.malformed": EventType(
        "webhook:SOURCE",
        "a delivery is authentic and cannot be read",
        {"source": "its source", "delivery": "its number", "reason": "what is wrong with it"},
    ),
    "webhook.refused": EventType(
        "webhook:SOURCE",
        "deliveries had no or another secret; at most one event a minute",
        {"source": "the source", "count": "how many"},
    ),
    "webhook.replayed": EventType(
        "webhook:SOURCE",
        "a delivery was read again",
        {
            "source": "its source",
            "delivery": "its number",
            "state": "what it came to",
            "jobs": "the jobs that follow",
        },
    ),
}
