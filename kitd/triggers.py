"""What follows from what: the whole automation of kitd, as one pure function.

The watcher, people's requests and finished jobs all go through `requests_for`; nothing else in
kitd decides that work is to be done.
"""

from typing import assert_never

from kitd.jobs.collect import COLLECT, CollectArgs
from kitd.jobs.pack import PACK, PackArgs
from kitd.jobs.pull import PULL, PullArgs
from kitd.jobs.push import PUSH, PushArgs
from kitd.jobs.verify import VERIFY, VerifyArgs
from kitd.oci.reference import Reference
from kitd.queue.fact import (
    CacheCrowded,
    CollectAsked,
    Fact,
    KitPacked,
    PackAsked,
    PackSource,
    ProjectSettled,
    PullAsked,
    PushAsked,
    VerifyAsked,
)
from kitd.queue.job import JobRequest
from kitd.queue.kind import HUMAN

_ASKED = "somebody asked for it"


def requests_for(fact: Fact) -> tuple[JobRequest, ...]:
    """Return the jobs that a fact asks for, none to several."""
    match fact:
        case ProjectSettled(source, fingerprint):
            why = "the project came to rest in a new state"
            return (_pack(source, priority=0, why=why, fingerprint=fingerprint),)
        case PackAsked(source):
            return (_pack(source, priority=HUMAN, why=_ASKED),)
        case KitPacked(push=True, repository=repository) if not repository.is_local:
            args = PushArgs(
                source=str(repository),
                digest=fact.target.digest,
                target=str(repository),
                tags=fact.tags,
            )
            why = "the kit was packed, to be pushed"
            return (_push(args, project=fact.project, priority=fact.priority, why=why),)
        case KitPacked():
            # Nobody wants it elsewhere, or its repository is the cache itself.
            return ()
        case PushAsked():
            args = PushArgs(
                source=str(fact.source),
                digest=fact.digest,
                target=str(fact.target),
                tags=fact.tags,
            )
            return (_push(args, project=None, priority=HUMAN, why=_ASKED),)
        case PullAsked(reference, filters):
            name = str(reference.with_default_tag())
            pull = PullArgs(reference=name, filters=filters)
            return (PULL.request(pull, reference=name, priority=HUMAN, why=_ASKED),)
        case CacheCrowded(excess_bytes):
            why = f"the cache has {excess_bytes} bytes too many" if excess_bytes else "a full disk"
            return (COLLECT.request(CollectArgs(), why=why),)
        case CollectAsked():
            return (COLLECT.request(CollectArgs(), priority=HUMAN, why=_ASKED),)
        case VerifyAsked(repair):
            return (VERIFY.request(VerifyArgs(repair=repair), priority=HUMAN, why=_ASKED),)
        case _:
            assert_never(fact)


def _pack(
    source: PackSource, *, priority: int, why: str, fingerprint: str | None = None
) -> JobRequest:
    args = PackArgs(
        project=source.project,
        path=source.path,
        kitfile=source.kitfile,
        repository=str(source.repository),
        tags=source.tags,
        push=source.push,
        compression=source.compression,
        fingerprint=fingerprint,
        reader=source.reader,
    )
    reference = str(Reference(source.repository))
    return PACK.request(
        args, project=source.project, reference=reference, priority=priority, why=why
    )


def _push(args: PushArgs, *, project: str | None, priority: int, why: str) -> JobRequest:
    name = f":{args.tags[0]}" if args.tags else f"@{args.digest}"
    reference = f"{args.target}{name}"
    return PUSH.request(args, project=project, reference=reference, priority=priority, why=why)
