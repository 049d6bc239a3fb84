"""What follows from what: the whole automation of kitd, as one pure function.

The watcher, people's requests and finished jobs all go through `requests_for`; nothing else in
kitd decides that work is to be done.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import assert_never

import msgspec

from kitd.jobs.assembly import PackArgs
from kitd.jobs.collect import COLLECT, CollectArgs
from kitd.jobs.import_kit import IMPORT, ImportArgs
from kitd.jobs.mirror.kind import MIRROR
from kitd.jobs.pack import PACK
from kitd.jobs.pull import PULL, PullArgs
from kitd.jobs.push import PUSH, PushArgs
from kitd.jobs.survey import SURVEY, SurveyArgs
from kitd.jobs.verify import VERIFY, VerifyArgs
from kitd.mirror.order import MirrorOrder, MirrorWish
from kitd.mirror.rule import Rule, literal_repositories, orders_for, rules_for
from kitd.oci.reference import Reference
from kitd.queue.fact import (
    CacheCrowded,
    CollectAsked,
    Fact,
    ImportAsked,
    KitFact,
    KitPacked,
    MirrorAsked,
    MirrorDue,
    MirrorFact,
    PackAsked,
    PackSource,
    ProjectSettled,
    PullAsked,
    PushAsked,
    RepositoriesFound,
    RepositoryChanged,
    VerifyAsked,
)
from kitd.queue.job import JobRequest
from kitd.queue.kind import HUMAN

_ASKED = "somebody asked for it"


def requests_for(fact: Fact, rules: Sequence[Rule] = ()) -> tuple[JobRequest, ...]:
    """Return the jobs that a fact asks for, none to several; `rules` are the mirrors there are."""
    return tuple(_mirrors(fact, rules)) if isinstance(fact, MirrorFact) else _requests(fact)


def _requests(fact: KitFact) -> tuple[JobRequest, ...]:
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
                parents=fact.parents,
                with_parents=fact.with_parents,
            )
            return (_push(args, project=None, priority=HUMAN, why=_ASKED),)
        case PullAsked() | ImportAsked():
            return (_bring(fact),)
        case CacheCrowded(excess_bytes):
            why = f"the cache has {excess_bytes} bytes too many" if excess_bytes else "a full disk"
            return (COLLECT.request(CollectArgs(), why=why),)
        case CollectAsked():
            return (COLLECT.request(CollectArgs(), priority=HUMAN, why=_ASKED),)
        case VerifyAsked(repair):
            return (VERIFY.request(VerifyArgs(repair=repair), priority=HUMAN, why=_ASKED),)
        case _:
            assert_never(fact)


def _bring(fact: PullAsked | ImportAsked) -> JobRequest:
    """Return what brings in what a person wants: a kit, or files to make one of."""
    if isinstance(fact, PullAsked):
        name = str(fact.reference.with_default_tag())
        pull = PullArgs(reference=name, filters=fact.filters, parents=fact.parents)
        return PULL.request(pull, reference=name, priority=HUMAN, why=_ASKED)
    args = ImportArgs(
        source=fact.source,
        include=fact.include,
        exclude=fact.exclude,
        kitfile=fact.kitfile,
        repository=str(fact.repository),
        tags=fact.tags,
        push=fact.push,
        asker=fact.asker,
    )
    name = str(Reference(fact.repository, tag=fact.tags[0]))
    return IMPORT.request(args, reference=name, priority=HUMAN, why=_ASKED)


def _mirrors(fact: MirrorFact, rules: Sequence[Rule]) -> Iterator[JobRequest]:
    match fact:
        case RepositoryChanged(repository=changed):
            for rule in rules_for(rules, changed.registry, changed.name):
                for order in _orders_for_change(rule, fact, rules):
                    yield _mirror(order, priority=0, why="something changed in its source")
        case MirrorDue(rule=name):
            for rule in _named(rules, name):
                yield from _look(rule, fact, rules)
        case MirrorAsked(order):
            yield _mirror(order, priority=HUMAN, why=_ASKED)
        case RepositoriesFound(rule=name, wish=wish, priority=priority):
            for rule in _named(rules, name):
                for repository in fact.repositories:
                    for order in _wished(orders_for(rule, repository, rules), wish):
                        yield _mirror(order, priority=priority, why="its registry lists it")


def _named(rules: Sequence[Rule], name: str) -> Sequence[Rule]:
    """Return the rule of that name, unless it is gone by now."""
    return [rule for rule in rules if rule.name == name]


def _orders_for_change(
    rule: Rule, fact: RepositoryChanged, rules: Sequence[Rule]
) -> Iterator[MirrorOrder]:
    """Yield an order for each tag and target: what else moves meanwhile is no reason to wait."""
    if fact.whole:
        yield from orders_for(rule, fact.repository, rules)
    for tag in fact.tags:
        yield from orders_for(rule, fact.repository, rules, tags=(tag,))
    if fact.manifests and rule.referrers:
        yield from orders_for(rule, fact.repository, rules, tags=(), manifests=fact.manifests)


def _look(rule: Rule, fact: MirrorDue, rules: Sequence[Rule]) -> Iterator[JobRequest]:
    """Yield what looks at all that a mirror concerns; its registry lists it where globs do not."""
    priority, why = (HUMAN, _ASKED) if fact.by_person else (0, "its time has come")
    repositories = literal_repositories(rule)
    if repositories is None:
        args = SurveyArgs(
            rule=rule.name,
            repositories=tuple(map(str, rule.route.globs)),
            wish=fact.wish,
            priority=priority,
        )
        yield SURVEY.request(args, reference=rule.route.source, priority=priority, why=why)
    for repository in repositories or ():
        for order in _wished(orders_for(rule, repository, rules), fact.wish):
            yield _mirror(order, priority=priority, why=why)


def _wished(orders: Iterable[MirrorOrder], wish: MirrorWish) -> Iterator[MirrorOrder]:
    return (msgspec.structs.replace(order, wish=wish) for order in orders)


def _mirror(order: MirrorOrder, *, priority: int, why: str) -> JobRequest:
    # As of a push: several may come from one source.
    reference = order.target.repository
    return MIRROR.request(order, reference=reference, priority=priority, why=why)


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
        layer_format=source.layer_format,
        model_pack=source.model_pack,
        source_date_epoch=source.source_date_epoch,
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
