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


def order_for(
    rule: Rule,
    repository: Repository,
    rules: Iterable[Rule],
    *,
    tags: tuple[str, ...] | None = None,
) -> MirrorOrder:
    """Return the order to mirror one of a rule's repositories; `tags` only, or all that are meant.

    `rules` are all there are: they say whether one of them carries a target back. A target's name
    may be too long for a registry: that is for the job to say, and no reason to have none.
    """
    ends = [end for _, end in rule.route.ends(repository)]
    return MirrorOrder(
        rule=rule.name,
        source=str(repository),
        targets=rule.route.targets_of(repository),
        tags=tags,
        select=rule.select,
        referrers=rule.referrers,
        digest_tags=rule.digest_tags,
        deletes=rule.deletes,
        grace_s=rule.grace_s,
        conflicts=rule.conflicts,
        returns=any(
            other.route.leads_to(end, repository)
            for other in rules
            if other.name != rule.name
            for end in ends
        ),
    )
