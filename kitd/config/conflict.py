"""Values that are well-formed and do not fit together. Pure; one function for each rule."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from kitd.config.address import TcpAddress
from kitd.config.mirrors import pairs_of, routes_of
from kitd.config.model import (
    Compression,
    Config,
    Dialect,
    LayerFormat,
    MirrorConfig,
    TagFilterConfig,
)
from kitd.config.problem import KeyPath
from kitd.mirror.circle import Circle, Leg
from kitd.mirror.order import Conflicts
from kitd.mirror.route import Route
from kitd.oci.reference import InvalidReferenceError, Repository, parse_repository


@dataclass(frozen=True, slots=True)
class Conflict:
    """What does not fit, at the value that is best changed."""

    path: KeyPath
    message: str
    hint: str | None = None


def find_conflicts(config: Config) -> Iterator[Conflict]:
    """Yield what does not fit together, rule by rule."""
    return chain.from_iterable(rule(config) for rule in _RULES)


def _access(config: Config) -> Iterator[Conflict]:
    for index, rule in enumerate(config.rpc.access):
        if (rule.group is None) == (rule.uid is None):
            yield Conflict(("rpc", "access", index), "expected either a group or a uid")


def _cache_bounds(config: Config) -> Iterator[Conflict]:
    if config.cache.keep_at_least_bytes > config.cache.use_at_most_bytes:
        yield Conflict(("cache", "keep_at_least"), "must not be more than use_at_most")


def _dialect(config: Config) -> Iterator[Conflict]:
    kit = config.modelkit
    hint = f"set modelkit.dialect to {Dialect.CURRENT}"
    if kit.dialect is Dialect.KIT_1_7 and kit.compression is Compression.ZSTD:
        yield Conflict(("modelkit", "compression"), f"{kit.dialect} cannot read zstd", hint)
    if kit.dialect is Dialect.KIT_1_7 and kit.layer_format is LayerFormat.RAW:
        yield Conflict(("modelkit", "layer_format"), f"{kit.dialect} cannot read raw layers", hint)
    if kit.dialect is Dialect.KIT_1_7 and kit.model_pack:
        yield Conflict(("modelkit", "model_pack"), f"{kit.dialect} has no ModelPacks", hint)
    is_raw = kit.layer_format is LayerFormat.RAW
    if kit.model_pack and is_raw and kit.compression is not Compression.NONE:
        problem = "a ModelPack's raw layers cannot be compressed"
        yield Conflict(("modelkit", "compression"), problem, "set it to none, or pack tar layers")


def _client_certificate(config: Config) -> Iterator[Conflict]:
    for host, registry in config.registries.items():
        if registry.client_key is not None and registry.client_cert is None:
            yield Conflict(
                ("registries", host, "client_key"),
                "needs client_cert",
                "a certificate file that holds its key as well needs no client_key",
            )


def _read_mirrors(config: Config) -> Iterator[Conflict]:
    for host, registry in config.registries.items():
        for index, mirror in enumerate(registry.mirrors):
            if mirror.location == host:
                yield Conflict(("registries", host, "mirrors", index), "is the registry itself")


def _settle(config: Config) -> Iterator[Conflict]:
    for name, project in config.projects.items():
        if project.settle.quiet_s > project.settle.max_wait_s:
            yield Conflict(("projects", name, "settle", "quiet"), "must not be more than max_wait")


def _push_target(config: Config) -> Iterator[Conflict]:
    for name, project in config.projects.items():
        if project.push and project.reference.is_local:
            yield Conflict(
                ("projects", name, "reference"),
                f"{project.reference.name!r} names no registry to push to",
                "write it like registry.example.com/team/model, or set push: false",
            )


def _same_kit(config: Config) -> Iterator[Conflict]:
    first: dict[tuple[Path, str], str] = {}
    for name, project in config.projects.items():
        owner = first.setdefault((project.path, str(project.kitfile)), name)
        if owner != name:
            yield Conflict(
                ("projects", name, "path"),
                f"is the path of project {owner!r} already",
                "give one of them another kitfile, or a single project more tags",
            )


def _own_files(config: Config) -> Iterator[Conflict]:
    # A project that kitd itself writes into would never come to rest.
    places = (("the state directory", config.state_dir), ("the cache", config.cache_dir))
    for name, project in config.projects.items():
        for what, place in places:
            if place.is_relative_to(project.path) or project.path.is_relative_to(place):
                yield Conflict(
                    ("projects", name, "path"),
                    f"{project.path} and {what}, {place}, must not be inside each other",
                    "packing would change what is packed",
                )
                break


def _mirror_names(config: Config) -> Iterator[Conflict]:
    for name, mirror in config.mirrors.items():
        yield from _misnamed(name, mirror)


def _misnamed(name: str, mirror: MirrorConfig) -> Iterator[Conflict]:
    """Yield why a mirror's repositories have no name, or one that is too long."""
    ends: list[tuple[KeyPath, str]] = [
        (("mirrors", name, "source"), mirror.source),
        *(
            (("mirrors", name, "targets", index), target.repository)
            for index, target in enumerate(mirror.targets)
        ),
    ]
    registries = [(path, end) for path, end in ends if "/" not in end]
    if not mirror.repositories and registries:
        for path, end in registries:
            yield Conflict(
                path,
                f"{end} is a registry, not a repository",
                'with repositories: ["**"] a mirror is for all of them',
            )
        return
    places: list[tuple[KeyPath, Route]] = [
        (("mirrors", name, "repositories", index), replace(mirror.route, repositories=(glob,)))
        for index, glob in enumerate(mirror.repositories)
    ]
    for path, route in places or [(("mirrors", name, "source"), mirror.route)]:
        try:
            (example,) = route.examples()
        except InvalidReferenceError as error:
            yield Conflict(path, error.message, error.hint)
            continue
        for index, target in enumerate(route.targets):
            try:
                (order,) = replace(route, targets=(target,)).targets_of(example)
                parse_repository(order.repository)
            except InvalidReferenceError as error:
                yield Conflict(("mirrors", name, "targets", index), error.message, error.hint)


def _sound_mirrors(config: Config) -> Mapping[str, MirrorConfig]:
    return {
        name: mirror
        for name, mirror in config.mirrors.items()
        if next(_misnamed(name, mirror), None) is None
    }


def _mirror_targets(config: Config) -> Iterator[Conflict]:
    for name, mirror in config.mirrors.items():
        for index, target in enumerate(mirror.targets):
            if target in mirror.targets[:index]:
                path = ("mirrors", name, "targets", index)
                yield Conflict(path, f"{target.repository} is given twice")


def _mirror_circles(config: Config) -> Iterator[Conflict]:
    routes = routes_of(_sound_mirrors(config))
    told: set[tuple[frozenset[str], int | None]] = set()
    # The last mirror of a circle is the one that closed it.
    for leg in reversed(routes.legs()):
        circle = routes.circle(leg)
        if circle is None:
            continue
        alone = len(circle.routes) == 1
        key = (frozenset(circle.routes), leg.index if alone else None)
        if key not in told:
            told.add(key)
            yield _circle(leg, circle)


def _circle(leg: Leg, circle: Circle) -> Conflict:
    path = ("mirrors", leg.route, "targets", leg.index)
    if leg.source == leg.target:
        return Conflict(path, f"{leg.target} is the source of this mirror")
    if len(circle.routes) == 1:
        return Conflict(
            path,
            f"{leg.target} is below the source of this mirror, which would copy its own copies",
            "choose a target elsewhere, or repositories that the target is not among",
        )
    by = ", ".join(map(repr, circle.routes[1:]))
    where = "for ever, under longer and longer names" if circle.is_endless else "to its source"
    return Conflict(
        path,
        f"what is copied to {leg.target} goes on by {by} and comes back {where}",
        "two mirrors may copy to each other, with the same tags; let longer chains end somewhere",
    )


def _mirror_pairs(config: Config) -> Iterator[Conflict]:
    order = list(config.mirrors)
    pairs = {
        tuple(sorted((leg.route, back.route), key=order.index))
        for leg, back in pairs_of(routes_of(_sound_mirrors(config)))
    }
    for first, second in sorted(pairs):
        one, other = config.mirrors[first], config.mirrors[second]
        if one.conflicts is other.conflicts is Conflicts.OVERWRITE:
            yield Conflict(
                ("mirrors", second, "conflicts"),
                f"mirror {first!r} copies the other way and overwrites as well",
                "let one of them keep what it finds",
            )


def _mirror_writers(config: Config) -> Iterator[Conflict]:
    mirrors = _sound_mirrors(config)
    routes = routes_of(mirrors)
    written: dict[tuple[Repository, str], list[Leg]] = {}
    told: set[tuple[str, int]] = set()
    for leg in routes.legs():
        earlier = written.setdefault((leg.target, leg.tag), [])
        for first in earlier:
            if (
                leg.source != first.source
                and (leg.route, leg.index) not in told
                and _is_same_choice(mirrors[leg.route].tags, mirrors[first.route].tags)
                and not routes.is_fed_by(leg.source, first.source)
                and not routes.is_fed_by(first.source, leg.source)
            ):
                told.add((leg.route, leg.index))
                yield Conflict(
                    ("mirrors", leg.route, "targets", leg.index),
                    f"{leg.target} is written from {first.source} by mirror {first.route!r} too",
                    "give one of them another repository, or tags such as other-{tag}",
                )
        earlier.append(leg)


def _is_same_choice(one: TagFilterConfig, other: TagFilterConfig) -> bool:
    """Whether what one filter takes by name, the other takes too, or the other way round."""
    filters = [(tags.include, tags.exclude, tags.regex, tags.semver) for tags in (one, other)]
    return filters[0] == filters[1] or (("*",), (), None, None) in filters


def _notifications(config: Config) -> Iterator[Conflict]:
    for name, endpoint in config.notifications.items():
        if (endpoint.url is None) == (endpoint.url_file is None):
            yield Conflict(("notifications", name), "expected either a url or a url_file")


def _listen(config: Config) -> Iterator[Conflict]:
    first: dict[object, str] = {}
    for key, address in (
        ("webhooks", config.webhooks.listen),
        ("registry", config.registry.listen),
        ("metrics", config.metrics.listen),
    ):
        is_any = isinstance(address, TcpAddress) and address.port == 0
        if address is not None and not is_any and first.setdefault(address, key) != key:
            message = f"{address} is what {first[address]} listens on already"
            yield Conflict((key, "listen"), message)


_RULES = (
    _access,
    _cache_bounds,
    _client_certificate,
    _read_mirrors,
    _dialect,
    _listen,
    _mirror_circles,
    _mirror_names,
    _mirror_pairs,
    _mirror_targets,
    _mirror_writers,
    _notifications,
    _own_files,
    _push_target,
    _same_kit,
    _settle,
)
