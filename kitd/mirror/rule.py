"""A mirror as it was configured, and the orders that come of it."""

from collections.abc import Iterable
from dataclasses import dataclass

from kitd.mirror.order import Conflicts, Deletes, MirrorOrder, Selection
from kitd.mirror.route import Route
from kitd.mirror.schedule import Schedule
from kitd.oci.reference import InvalidReferenceError, Repository, parse_repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is copied, where to, and when by itself."""

    name: str
    route: Route
    select: Selection
    referrers: bool
    digest_tags: bool
    deletes: Deletes
    grace_s: float
    conflicts: Conflicts
    schedule: Schedule | None
    """None for a rule that runs on events and on demand only."""


def literal_repositories(rule: Rule) -> tuple[Repository, ...] | None:
    """Return the repositories of a rule; None where the source's catalog must tell."""
    return rule.route.literal_repositories()


def rules_for(rules: Iterable[Rule], registry: str, repository: str) -> tuple[Rule, ...]:
    """Return the rules whose sources include a repository, by the name its registry gives it.

    The names may be anything: what is no repository is in no rule.
    """
    try:
        changed = parse_repository(f"{registry}/{repository}")
    except InvalidReferenceError:
        return ()
    return tuple(rule for rule in rules if rule.route.carries(changed))


def orders_for(
    rule: Rule,
    repository: Repository,
    rules: Iterable[Rule],
    *,
    tags: tuple[str, ...] | None = None,
    manifests: tuple[str, ...] = (),
) -> tuple[MirrorOrder, ...]:
    """Return the orders to mirror one of a rule's repositories, one for each of its targets.

    They are for `tags` and `manifests` only, or for all that are meant. `rules` are all there are:
    they say whether one of them carries a target back, or has copies of its own there. A target's
    name may be too long for a registry: that is for the job to say, and no reason to have none.
    """
    targets = rule.route.targets_of(repository)
    others = [other for other in rules if other.name != rule.name]
    ends = dict(rule.route.ends(repository))
    orders = []
    for index, target in enumerate(targets):
        end = ends.get(index)
        returning = [
            other for other in others if end is not None and other.route.leads_to(end, repository)
        ]
        orders.append(
            MirrorOrder(
                rule=rule.name,
                source=str(repository),
                target=target,
                by_many=len(targets) > 1,
                tags=tags,
                manifests=manifests,
                select=rule.select,
                referrers=rule.referrers,
                digest_tags=rule.digest_tags,
                deletes=rule.deletes,
                grace_s=rule.grace_s,
                conflicts=rule.conflicts,
                returns=bool(returning),
                deletes_return=any(other.deletes is Deletes.PROPAGATE for other in returning),
                spares=tuple(
                    other.select
                    for other in others
                    if other.deletes is Deletes.IGNORE
                    and other.route.carries(repository)
                    and target in other.route.targets_of(repository)
                ),
            )
        )
    return tuple(orders)
