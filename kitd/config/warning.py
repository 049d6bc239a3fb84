"""What may stand in a configuration and is most likely not what was meant. Pure."""

from collections.abc import Iterator

from kitd.config.model import Config


def find_warnings(config: Config) -> Iterator[str]:
    """Yield what to warn about, each in one line."""
    if config.webhooks.listen is None:
        return
    routes = [mirror.route for mirror in config.mirrors.values()]
    for name, source in config.webhooks.sources.items():
        if not any(route.reads(source.registry) for route in routes):
            yield (
                f"webhooks.sources.{name}: no mirror reads {source.registry}, so nothing follows"
                " from its events: mend registry, or add a mirror; projects need no webhooks"
            )
