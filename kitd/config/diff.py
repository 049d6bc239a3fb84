"""What is different between two configurations, and whether a running kitd can take it. Pure."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kitd.config.model import Config, key_of

LIVE: tuple[str, ...] = (
    "log",
    "rpc.access",
    "cache.use_at_most",
    "cache.keep_at_least",
    "cache.leave_free",
    "cache.keep_recent",
    "workers",
    "registries",
    "projects",
    "mirrors",
    "webhooks.sources",
    "retention",
    "notifications",
    "hub",
)
"""The keys, with all below them, that a reload applies; every other one takes a restart."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The dotted keys whose values differ, in the order of the file: `workers.pack`."""

    live: Sequence[str]
    restart: Sequence[str]
    """Those that only a restart can apply."""

    @property
    def changed(self) -> Sequence[str]:
        """All of them."""
        return (*self.live, *self.restart)


def compare_configs(old: Config, new: Config) -> Difference:
    """Return the keys in which two configurations differ.

    One project or one registry is one key: `projects.demo`.
    """
    changed = tuple(_changed(old, new, ()))
    live = tuple(key for key in changed if is_live(key))
    return Difference(live, tuple(key for key in changed if key not in live))


def is_live(key: str) -> bool:
    """Whether a reload applies a change of this dotted key."""
    return any(key == live or key.startswith(f"{live}.") for live in LIVE)


def _changed(old: object, new: object, path: tuple[str, ...]) -> Iterator[str]:
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = [*old, *(name for name in new if name not in old)]
        yield from (".".join((*path, n)) for n in names if old.get(n) != new.get(n))
    elif len(path) < 2 and dataclasses.is_dataclass(old) and type(old) is type(new):
        for field in dataclasses.fields(old):
            was, now = getattr(old, field.name), getattr(new, field.name)
            yield from _changed(was, now, (*path, key_of(field.name)))
    else:
        yield ".".join(path)
