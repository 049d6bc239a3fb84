"""Routes that would work against each other: circles, and two that write one repository.

Found on examples: a repository for each glob of each route is followed wherever the routes carry
it. What is found this way does happen; what needs names that no example has is not found.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kitd.mirror.route import TAG, Route
from kitd.oci.reference import Repository, parse_repository
from kitd.oci.repository_glob import canonical


@dataclass(frozen=True, slots=True)
class Leg:
    """One target of a route, for one repository. Repositories are canonical."""

    route: str
    index: int
    """The target's position."""
    source: Repository
    target: Repository
    tag: str
    """The template of tags."""


@dataclass(frozen=True, slots=True)
class Circle:
    """How what a leg brings comes back."""

    routes: tuple[str, ...]
    """Those that carry it, in their order; the leg's own first."""
    is_endless: bool = False
    """Whether it never comes to where it began, but goes on under longer and longer names."""


class Routes:
    """All routes by name, in the order of the file. What was worked out once is kept."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        self._routes = routes
        self._literals = {
            name: {
                canonical(parse_repository(glob.text)) for glob in route.globs if glob.is_literal
            }
            for name, route in routes.items()
        }
        self._wild = {
            name: [glob for glob in route.globs if not glob.is_literal]
            for name, route in routes.items()
        }
        self._legs_from = functools.cache(self._find_legs)

    def legs(self) -> tuple[Leg, ...]:
        """Return the legs of the examples of each route."""
        return tuple(
            leg
            for name, route in self._routes.items()
            for example in route.examples()
            for leg in self._legs_from(canonical(example))
            if leg.route == name
        )

    def returns(self, leg: Leg) -> Iterator[Leg]:
        """Return the legs of other routes that carry a leg's target back to its source."""
        for back in self._legs_from(leg.target):
            if back.target == leg.source and back.route != leg.route:
                yield back

    def circle(self, leg: Leg) -> Circle | None:
        """Return how what a leg brings comes back, unless another route carries it straight back.

        Two routes that do so with the same tags are a pair: what one has brought, the other finds
        in place.
        """
        onward = [after.route for after in self._legs_from(leg.target)]
        if leg.source == leg.target or leg.route in onward:
            return Circle((leg.route,))
        for back in self.returns(leg):
            if {leg.tag, back.tag} != {TAG}:
                return Circle((leg.route, back.route))
        came_by = {leg.target: leg}
        for seen in self._reached(leg):
            if seen is None:
                return Circle((leg.route, *onward), is_endless=True)
            if seen.target == leg.source and seen.source != leg.target:
                return Circle(_way(leg, seen, came_by))
            came_by.setdefault(seen.target, seen)
        return None

    def is_fed_by(self, repository: Repository, other: Repository) -> bool:
        """Whether the routes carry what is in `other` to `repository`."""
        return any(
            seen is not None and seen.target == repository
            for leg in self._legs_from(other)
            for seen in (leg, *self._reached(leg))
        )

    def _reached(self, leg: Leg) -> Iterator[Leg | None]:
        """Return the legs that follow one without passing its source again; None if for ever."""
        visited = {leg.source, leg.target}
        frontier = [leg.target]
        # A route can be passed twice on the way; names grow where one is passed again and again.
        for _ in range(2 * len(self._routes) + 1):
            following = [after for place in frontier for after in self._legs_from(place)]
            yield from following
            frontier = list(dict.fromkeys(after.target for after in following))
            frontier = [place for place in frontier if place not in visited]
            visited.update(frontier)
            if not frontier:
                return
        yield None

    def _carries(self, name: str, repository: Repository) -> bool:
        is_named = repository in self._literals[name]
        return is_named or any(glob.matches(repository) for glob in self._wild[name])

    def _find_legs(self, repository: Repository) -> tuple[Leg, ...]:
        return tuple(
            Leg(name, index, repository, canonical(end), route.targets[index].tag)
            for name, route in self._routes.items()
            if self._carries(name, repository)
            for index, end in route.ends(repository)
        )


def _way(first: Leg, last: Leg, came_by: Mapping[Repository, Leg]) -> tuple[str, ...]:
    """Return the routes from one leg to another, both included."""
    names = [last.route]
    while last is not first:
        last = came_by[last.source]
        names.append(last.route)
    return tuple(reversed(names))
