"""Names that may be values of labels: those of the configuration, and no others. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import islice

from kitd.config.model import Config

OTHER = "other"
MAX_NAMES = 500
"""Of one sort; the rest, by the alphabet, is `other`."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a configuration, by what they are names of."""

    registries: Collection[str]
    projects: Collection[str]
    mirrors: Collection[str]
    sources: Collection[str]
    endpoints: Collection[str]


def names_in(config: Config) -> Names:
    """Return the names that a configuration has."""
    hosts = {*config.registries}
    hosts |= {project.reference.registry for project in config.projects.values()}
    hosts |= {source.registry for source in config.webhooks.sources.values()}
    for mirror in config.mirrors.values():
        places = (mirror.source, *(target.repository for target in mirror.targets))
        hosts |= {place.partition("/")[0] for place in places}
    for registry in config.registries.values():
        hosts |= {mirror.location.partition("/")[0] for mirror in registry.mirrors}
    return Names(
        registries=_first(hosts - {"", "localhost"}),
        projects=_first(config.projects),
        mirrors=_first(config.mirrors),
        sources=_first(config.webhooks.sources),
        endpoints=_first(config.notifications),
    )


def named(name: str, names: Collection[str]) -> str:
    """Return a name if it is one of these, else `other`."""
    return name if name in names else OTHER


def _first(names: Iterable[str]) -> frozenset[str]:
    return frozenset(islice(sorted(names), MAX_NAMES))
