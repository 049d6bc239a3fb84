"""What follows for mirrors from all of them together. Pure."""

from collections.abc import Iterator, Mapping

from kitd.config.model import MirrorConfig
from kitd.mirror.circle import Leg, Routes
from kitd.mirror.order import Conflicts


def routes_of(mirrors: Mapping[str, MirrorConfig]) -> Routes:
    """Return where mirrors copy from and to."""
    return Routes({name: mirror.route for name, mirror in mirrors.items()})


def pairs_of(routes: Routes) -> Iterator[tuple[Leg, Leg]]:
    """Return each leg with one of another mirror that carries back what it brought."""
    return ((leg, back) for leg in routes.legs() for back in routes.returns(leg))


def conflicts_in_force(mirrors: Mapping[str, MirrorConfig]) -> Mapping[str, Conflicts]:
    """Return what each mirror does where both ends have moved: what it says, or a default.

    Of two that carry back what the other brought, where neither or one says what it does, exactly
    one overwrites: the one that says so, or else the first that does not say `keep`.
    """
    order = {name: place for place, name in enumerate(mirrors)}
    in_force = {name: mirror.conflicts or Conflicts.OVERWRITE for name, mirror in mirrors.items()}
    for leg, back in pairs_of(routes_of(mirrors)):
        for one, other in ((leg.route, back.route), (back.route, leg.route)):
            said = mirrors[other].conflicts
            is_first = order[other] < order[one] and said is None
            is_other_right = is_first or said is Conflicts.OVERWRITE
            if mirrors[one].conflicts is None and is_other_right:
                in_force[one] = Conflicts.KEEP
    return in_force
