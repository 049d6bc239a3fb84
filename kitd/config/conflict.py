"""Values that are well-formed and do not fit together. Pure; one function for each rule."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from kitd.config.address import TcpAddress
from kitd.config.model import Compression, Config, Dialect, LayerFormat
from kitd.config.problem import KeyPath


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


def _mirror_targets(config: Config) -> Iterator[Conflict]:
    for name, mirror in config.mirrors.items():
        seen = set()
        for index, target in enumerate(mirror.targets):
            path: KeyPath = ("mirrors", name, "targets", index)
            if target == mirror.source:
                yield Conflict(path, f"{target} is the source of this mirror")
            elif target in seen:
                yield Conflict(path, f"{target} is given twice")
            seen.add(target)


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
    _mirror_targets,
    _own_files,
    _push_target,
    _same_kit,
    _settle,
)
