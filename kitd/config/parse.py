"""Bytes to `Config`: which reader reads which option. Pure.

To add an option, add a field in `model` and a line here. What one value may be is in the readers,
how several values must fit together in `conflict`.
"""

from functools import partial
from itertools import islice
from pathlib import Path

from kitd.config import model, tree
from kitd.config.address import check_socket_path, parse_listen_address, parse_tcp_address
from kitd.config.conflict import find_conflicts
from kitd.config.literal import (
    parse_endpoint,
    parse_event_types,
    parse_host,
    parse_hub_endpoint,
    parse_kitfile,
    parse_location,
    parse_mode,
    parse_name,
    parse_path,
    parse_proxy,
    parse_untagged_repository,
)
from kitd.config.places import Place, Places
from kitd.config.problem import MAX_PROBLEMS, ConfigError, ConfigProblem, RejectedError
from kitd.config.quantity import parse_duration, parse_size
from kitd.config.reader import (
    Reader,
    Value,
    boolean,
    choice,
    integer,
    listing,
    optional,
    parsed,
    section,
    table,
    text,
)
from kitd.config.schedule import parse_schedule
from kitd.config.tag_template import parse_tag_template
from kitd.mirror.order import Conflicts, Deletes
from kitd.mirror.route import parse_repository_part, parse_tag_target, parse_target
from kitd.mirror.select import parse_tag_glob, parse_tag_regex
from kitd.mirror.semver import parse_range
from kitd.oci.repository_glob import parse_repository_glob

MAX_JOBS = 256
MAX_NEWEST = 1_000_000
MAX_UID = 2**32 - 2

_duration = parsed(parse_duration)
_size = parsed(parse_size)
_listen = optional(parsed(parse_listen_address))
_listen_tcp = optional(parsed(parse_tcp_address))
_jobs = integer(1, MAX_JOBS)


def parse_config(content: bytes, *, source: str, places: Places) -> model.Config:
    """Return the configuration in `content`, one YAML document; an empty one is all defaults.

    `source` names the file in messages. Explicit `places` beat the file, others are defaults.
    Raises `ConfigError` with all problems: of the syntax the first one, else those of all values,
    else those of values that do not fit together.
    """
    try:
        root = tree.compose(content)
        config = _config(places)(Value(root, ()))
        _reject_conflicts(config, root)
    except RejectedError as error:
        raise ConfigError(source, sorted(error.problems, key=_order)) from None
    return config


def _reject_conflicts(config: model.Config, root: tree.Node) -> None:
    problems = [
        ConfigProblem(tree.locate(root, found.path), found.path, found.message, found.hint)
        for found in islice(find_conflicts(config), MAX_PROBLEMS)
    ]
    if problems:
        raise RejectedError(problems)


def _order(problem: ConfigProblem) -> tuple[int, int]:
    return (0, 0) if problem.position is None else (problem.position.line, problem.position.column)


def _config(places: Places) -> Reader[model.Config]:
    path = parsed(partial(parse_path, home=places.home, credentials=places.credentials))
    return section(
        model.Config,
        {
            "state_dir": Path(places.state_dir.path),
            "rpc": model.RpcConfig(socket=Path(places.socket.path)),
        },
        state_dir=_unless_explicit(places.state_dir, path),
        log=section(model.LogConfig, level=choice(model.LogLevel), format=choice(model.LogFormat)),
        rpc=_rpc(places),
        cache=section(
            model.CacheConfig,
            dir=optional(path),
            use_at_most_bytes=_size,
            keep_at_least_bytes=_size,
            leave_free_bytes=_size,
            keep_recent_s=_duration,
            stream_over_bytes=optional(_size),
        ),
        modelkit=section(
            model.ModelkitConfig,
            dialect=choice(model.Dialect),
            cli_version=text,
            compression=choice(model.Compression),
            layer_format=choice(model.LayerFormat),
            model_pack=boolean,
        ),
        workers=section(
            model.WorkersConfig, pack=_jobs, push=_jobs, pull=_jobs, mirror=_jobs, verify=_jobs
        ),
        retention=section(
            model.RetentionConfig,
            succeeded_s=_duration,
            failed_s=_duration,
            events_s=_duration,
        ),
        registries=table(parse_host, _registry(path)),
        projects=table(parse_name, _project(path)),
        mirrors=table(parse_name, _mirror()),
        webhooks=section(
            model.WebhooksConfig,
            listen=_listen,
            sources=table(
                parse_name,
                section(
                    model.WebhookSourceConfig,
                    format=choice(model.WebhookFormat),
                    registry=parsed(parse_host),
                    secret_file=path,
                ),
            ),
        ),
        notifications=table(
            parse_name,
            section(
                model.NotificationConfig,
                url=optional(parsed(parse_endpoint)),
                url_file=optional(path),
                types=listing(parsed(parse_event_types), at_least=1),
                secret_file=optional(path),
            ),
        ),
        hub=section(
            model.HubConfig, endpoint=parsed(parse_hub_endpoint), token_file=optional(path)
        ),
        registry=section(model.GatewayConfig, listen=_listen_tcp, writable=boolean),
        metrics=section(model.MetricsConfig, listen=_listen_tcp),
    )


def _unless_explicit(place: Place, read: Reader[Path]) -> Reader[Path]:
    """Read a path all the same, so that a mistake is found before the flag is taken away."""

    def read_unless_explicit(value: Value) -> Path:
        found = read(value)
        return Path(place.path) if place.is_explicit else found

    return read_unless_explicit


def _rpc(places: Places) -> Reader[model.RpcConfig]:
    socket = parsed(lambda found: check_socket_path(parse_path(found, home=places.home)))
    return section(
        model.RpcConfig,
        {"socket": Path(places.socket.path)},
        socket=_unless_explicit(places.socket, socket),
        mode=parsed(parse_mode),
        access=listing(
            section(
                model.AccessRule,
                group=optional(text),
                uid=optional(integer(0, MAX_UID)),
                role=choice(model.Role),
                repositories=listing(parsed(parse_repository_glob)),
            )
        ),
    )


def _registry(path: Reader[Path]) -> Reader[model.RegistryConfig]:
    return section(
        model.RegistryConfig,
        plain_http=optional(boolean),
        ca_file=optional(path),
        client_cert=optional(path),
        client_key=optional(path),
        proxy=optional(parsed(parse_proxy)),
        credentials=_credentials(path),
        upload=section(
            model.UploadConfig,
            mode=choice(model.UploadMode),
            chunk_bytes=optional(_size, word="auto"),
        ),
        mirrors=listing(_read_mirror()),
    )


def _read_mirror() -> Reader[model.ReadMirrorConfig]:
    location = parsed(parse_location)
    full = section(model.ReadMirrorConfig, location=location, tags=boolean)

    def read_mirror(value: Value) -> model.ReadMirrorConfig:
        if isinstance(value.node, tree.Scalar) and not value.is_null:
            return model.ReadMirrorConfig(location=location(value))
        return full(value)

    return read_mirror


def _credentials(path: Reader[Path]) -> Reader[model.Credentials]:
    token_file = section(model.TokenFile, token_file=path)
    password_file = section(model.PasswordFile, username=text, password_file=path)
    words = {str(word): word for word in model.BuiltinCredentials}

    def read_credentials(value: Value) -> model.Credentials:
        match value.node:
            case tree.Mapping(entries=entries):
                is_token = any(key.text == "token_file" for key, _ in entries)
                return (token_file if is_token else password_file)(value)
            case tree.Scalar(text=word) if word in words:
                return words[word]
        # What stands here may be the secret itself, so it is not repeated.
        raise value.rejected(
            f"expected {', '.join(words)}, or a file with a secret",
            "write it like {username: me, password_file: /path} or {token_file: /path}",
        )

    return read_credentials


def _project(path: Reader[Path]) -> Reader[model.ProjectConfig]:
    return section(
        model.ProjectConfig,
        path=path,
        kitfile=parsed(parse_kitfile),
        reference=parsed(parse_untagged_repository),
        tags=listing(parsed(parse_tag_template), at_least=1),
        push=boolean,
        watch=choice(model.WatchMode),
        settle=section(
            model.SettleConfig, quiet_s=_duration, max_wait_s=_duration, min_interval_s=_duration
        ),
    )


def _mirror() -> Reader[model.MirrorConfig]:
    globs = listing(parsed(parse_tag_glob))
    return section(
        model.MirrorConfig,
        source=parsed(parse_location),
        repositories=listing(parsed(parse_repository_part)),
        targets=listing(_mirror_target(), at_least=1),
        tags=section(
            model.TagFilterConfig,
            include=globs,
            exclude=globs,
            regex=optional(parsed(parse_tag_regex)),
            semver=optional(parsed(_range)),
            newest=optional(integer(1, MAX_NEWEST)),
            max_age_s=optional(_duration),
        ),
        referrers=boolean,
        digest_tags=boolean,
        deletes=choice(Deletes),
        grace_s=_duration,
        conflicts=optional(choice(Conflicts)),
        schedule=optional(parsed(parse_schedule)),
    )


def _range(found: str) -> str:
    parse_range(found)
    return found


def _mirror_target() -> Reader[model.MirrorTargetConfig]:
    repository = parsed(parse_target)
    full = section(model.MirrorTargetConfig, repository=repository, tag=parsed(parse_tag_target))

    def read_target(value: Value) -> model.MirrorTargetConfig:
        if isinstance(value.node, tree.Scalar) and not value.is_null:
            return model.MirrorTargetConfig(repository=repository(value))
        return full(value)

    return read_target
