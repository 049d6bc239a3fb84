"""Mirrors of the configuration: when each is due, and which of them a change concerns."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
import structlog

from kitd.clock import Clock
from kitd.config.model import Config
from kitd.daemon.setback import note_setback
from kitd.daemon.translation import mirror_rules
from kitd.errors import KitdError
from kitd.ledger.mirror_ledger import EdgeRow, MirrorLedger
from kitd.mirror.decide import subject_of
from kitd.mirror.edge import Edge, target_tag
from kitd.mirror.order import Deletes, MirrorOrder, TargetOrder
from kitd.mirror.rule import Rule
from kitd.mirror.schedule import next_start_us, spread_of
from kitd.mirror.select import admits
from kitd.oci.reference import InvalidReferenceError, Repository, parse_repository
from kitd.oci.repository_glob import canonical
from kitd.queue.fact import Fact, MirrorDue, RepositoryChanged
from kitd.queue.job import JobRequest
from kitd.rpc.methods.services import StartTimes
from kitd.triggers import requests_for
from kitd.webhooks.delivery import Action, Change

MANY_CHANGES = 32
"""With more of them in one delivery, whole repositories are looked at: its sender waits for a
second at most."""
MANY_JOBS = 33
"""Where so many jobs of a pair wait, one more looks at all tags and stands for the rest: a first
copy in one direction is told of tag by tag for the other one."""
CARE_S = 600.0
"""How often it is looked what failed and was given up, and what has been gone for long enough."""
GIVEN_UP_S = 7200.0
"""After so long the queue has given up a tag that fails."""
LOOK_AGAIN_US = 24 * 3600 * 1_000_000
"""What is gone and was not removed is looked at again after that: what was held may be few by then,
and what was moved meanwhile may be at rest."""
LOOK_S = 15.0
"""How often it is looked what is due: a reload may have changed that, or somebody the clock."""

log = structlog.get_logger(__name__)


class MirrorKeeper:
    """Starts mirrors when their time has come, and says what follows from a change.

    `ask` enqueues a wish, `under_way` says how many jobs of a lock wait or run, up to a limit.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        ledger: MirrorLedger,
        clock: Clock,
        ask: Callable[[JobRequest], Awaitable[object]],
        under_way: Callable[[str, int], Awaitable[int]],
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._clock = clock
        self._ask = ask
        self._under_way = under_way
        self._looked_until_us: dict[str, tuple[int, int]] = {}
        """By rule: up to when tags were gone that were asked for last, and when all were."""
        self._known: tuple[Config, tuple[Rule, ...]] | None = None

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The mirrors there are, in the order of the configuration."""
        config = self._config()
        if self._known is None or self._known[0] is not config:
            self._known = (config, mirror_rules(config))
        return self._known[1]

    def follow(self, fact: Fact) -> tuple[JobRequest, ...]:
        """Return the jobs that a fact asks for."""
        return requests_for(fact, self.rules)

    async def start_times(self) -> Mapping[str, StartTimes]:
        """Return when each mirror was started by its schedule, and when it is next."""
        starts, now_us = await self._ledger.starts(), self._clock.now_us()
        return {
            rule.name: StartTimes(
                starts.get(rule.name),
                None
                if rule.schedule is None
                else next_start_us(
                    rule.schedule, starts.get(rule.name), now_us, spread_of(rule.name)
                ),
            )
            for rule in self.rules
        }

    async def follow_changes(
        self, registry: str, changes: Sequence[Change]
    ) -> Sequence[JobRequest]:
        """Return the jobs that changes of a registry's repositories ask for.

        What is at both ends already asks for none: it is most often kitd's own doing that comes
        back as an event.
        """
        requests: dict[str, JobRequest] = {}
        vague = len(changes) > MANY_CHANGES
        for change in changes:
            if vague or (change.tag is None and change.digest is None):
                repository = Repository(registry, change.repository)
                whole = RepositoryChanged(repository=repository, whole=True)
                found: Sequence[JobRequest] = self.follow(whole)
            else:
                found = await self._follow_change(registry, change)
            requests |= {request.key: request for request in found}
        return tuple(requests.values())

    async def _follow_change(self, registry: str, change: Change) -> Sequence[JobRequest]:
        repository = Repository(registry, change.repository)
        if change.tag is None and change.action is Action.DELETE:
            # Its tags went with it, and which those were shows in a look at all of them.
            whole = self.follow(RepositoryChanged(repository=repository, whole=True))
            removes = {rule.name for rule in self.rules if rule.deletes is Deletes.PROPAGATE}
            return [request for request in whole if request.mirror in removes]
        if change.tag is None:
            if change.digest is None:
                return ()
            return self.follow(RepositoryChanged(repository=repository, manifests=(change.digest,)))
        requests: list[JobRequest] = []
        for request in self.follow(RepositoryChanged(repository=repository, tags=(change.tag,))):
            order = msgspec.json.decode(request.args, type=MirrorOrder)
            # First, because what such a job is about to write down is not what is agreed now.
            jobs = await self._under_way(request.lock, MANY_JOBS)
            if jobs == MANY_JOBS and order.returns and not _lists_referrers(change.tag):
                requests += self._whole(request, repository)
            elif jobs or not await self._has(order.target, repository, change):
                requests.append(request)
        return requests

    def _whole(self, request: JobRequest, repository: Repository) -> Sequence[JobRequest]:
        """Return what looks at all of what a job looks at a tag of."""
        return [
            whole
            for whole in self.follow(RepositoryChanged(repository=repository, whole=True))
            if (whole.mirror, whole.lock) == (request.mirror, request.lock)
        ]

    async def _has(self, target: TargetOrder, repository: Repository, change: Change) -> bool:
        """Whether a target has what a job would copy, by what a change tells."""
        if change.action is not Action.PUSH or change.digest is None or change.tag is None:
            return False
        try:
            where = parse_repository(target.repository)
        except InvalidReferenceError:
            # The job has to say what is wrong with it.
            return False
        edge = Edge(repository, change.tag, where, target_tag(target.tag, change.tag))
        return await self._ledger.are_agreed(edge, change.digest)

    async def run(self) -> None:
        """Start what is due, until cancelled."""
        care_s = self._clock.monotonic_s()
        while True:
            wait_s = LOOK_S
            try:
                wait_s = min(wait_s, await self._start_due())
                if self.rules and self._clock.monotonic_s() - care_s > CARE_S:
                    care_s = self._clock.monotonic_s()
                    await self.look_after()
            except KitdError as error:
                note_setback("mirrors.not_started", error)
            await asyncio.sleep(wait_s)

    async def look_after(self) -> None:
        """Ask again for what nobody would come back to: what failed, and tags that are gone."""
        await self._ask_for_given_up()
        await self._ledger.tidy()
        for rule in self.rules:
            if rule.deletes is Deletes.PROPAGATE:
                await self._ask_for_gone(rule)

    async def _ask_for_given_up(self) -> None:
        before_us = self._clock.now_us() - int(GIVEN_UP_S * 1_000_000)
        while rows := await self._ledger.given_up(before_us):
            nobodys = [row.edge for row in rows if not self._is_meant(row)]
            if nobodys:
                # What is left of other rules would be all there is to see, for ever.
                await self._ledger.forgive(nobodys)
                continue
            for change in dict.fromkeys(map(_again, rows)):
                for request in self.follow(change):
                    await self._ask(request)
            await self._ledger.put_off([row.edge for row in rows])
            return

    def _is_meant(self, row: EdgeRow) -> bool:
        """Whether a rule in force says that an edge be there, or took care of it until it went."""
        return any(
            _leads_along(rule, row.edge)
            and (
                not row.edge.tag
                or row.gone_us is not None
                or (rule.digest_tags and subject_of(row.edge.tag) is not None)
                or admits(rule.select, row.edge.tag)
            )
            for rule in self.rules
        )

    async def _ask_for_gone(self, rule: Rule) -> None:
        """Ask for a look at all of those repositories whose tags are gone for long enough."""
        now_us = self._clock.now_us()
        until_us = now_us - int(rule.grace_s * 1_000_000)
        after_us, all_us = self._looked_until_us.get(rule.name, (0, 0))
        if now_us - all_us > LOOK_AGAIN_US:
            after_us, all_us = 0, now_us
        gone = await self._ledger.gone(after_us, until_us)
        for source in dict.fromkeys(
            source for source, target in gone if rule.route.leads_to(source, target)
        ):
            # Only a look at all tags removes any.
            for request in self.follow(RepositoryChanged(repository=source, whole=True)):
                if request.mirror == rule.name:
                    await self._ask(request)
        self._looked_until_us[rule.name] = (until_us, all_us)

    async def _start_due(self) -> float:
        """Start what is due and return in how many seconds the next one is."""
        if all(rule.schedule is None for rule in self.rules):
            return LOOK_S
        starts = await self._ledger.starts()
        next_us = []
        for rule in self.rules:
            if rule.schedule is None:
                continue
            now_us, last_us = self._clock.now_us(), starts.get(rule.name)
            spread = spread_of(rule.name)
            due_us = next_start_us(rule.schedule, last_us, now_us, spread)
            if due_us <= now_us:
                for request in self.follow(MirrorDue(rule=rule.name)):
                    await self._ask(request)
                # Afterwards: what is asked for twice is one job, what is not asked for is missed.
                await self._ledger.note_start(rule.name, now_us)
                due_us = next_start_us(rule.schedule, now_us, now_us, spread)
            next_us.append(due_us - now_us)
        return max(0.05, min(next_us, default=LOOK_S * 1e6) / 1e6)


def _lists_referrers(tag: str) -> bool:
    """Whether a tag is of those that list what refers to a manifest: a look at all skips them."""
    subject = subject_of(tag)
    return subject is not None and not subject[1]


def _again(row: EdgeRow) -> RepositoryChanged:
    """Return the change that has an edge looked at again."""
    edge = row.edge
    if not edge.tag or row.gone_us is not None:
        # What failed of a tag that is gone is its removal, which takes a look at all tags.
        return RepositoryChanged(repository=edge.source, whole=True)
    return RepositoryChanged(repository=edge.source, tags=(edge.tag,))


def _leads_along(rule: Rule, edge: Edge) -> bool:
    """Whether a rule carries from one end of an edge to the other."""
    if not rule.route.carries(edge.source):
        return False
    templates = [
        rule.route.targets[index].tag
        for index, end in rule.route.ends(edge.source)
        if canonical(end) == canonical(edge.target)
    ]
    return any(
        not edge.tag or target_tag(template, edge.tag) == edge.target_tag for template in templates
    )
