"""The configuration in the words of the rooms that it is for."""

import os
from collections.abc import Mapping

from kitd.config import model
from kitd.config.mirrors import conflicts_in_force
from kitd.config.model import Config
from kitd.jobs.port import PackSettings
from kitd.mirror.order import Selection
from kitd.mirror.rule import Rule
from kitd.modelkit.dialect import Dialect
from kitd.queue.job import Lane
from kitd.registry import credentials as registry_credentials
from kitd.registry import settings as registry
from kitd.rpc.methods.wire import WireLogins
from kitd.rpc.peer import AccessRule, Role


def registry_settings(config: model.RegistryConfig) -> registry.RegistrySettings:
    """Return how one registry is reached."""
    credentials: registry.CredentialSource
    match config.credentials:
        case model.BuiltinCredentials.ANONYMOUS:
            credentials = registry.Anonymous()
        case model.PasswordFile(username=username, password_file=password_file):
            credentials = registry.PasswordFile(username, password_file)
        case model.TokenFile(token_file=token_file):
            credentials = registry.TokenFile(token_file)
        case _:
            credentials = registry.DockerCredentials()
    return registry.RegistrySettings(
        plain_http=config.plain_http,
        ca_file=config.ca_file,
        client_cert=config.client_cert,
        client_key=config.client_key,
        proxy=config.proxy,
        credentials=credentials,
        upload_mode=registry.UploadMode(config.upload.mode),
        chunk_bytes=config.upload.chunk_bytes,
        mirrors=tuple(map(_mirror, config.mirrors)),
    )


def login_places(config: model.RegistryConfig, environ: Mapping[str, str]) -> WireLogins:
    """Return where the credentials of a registry are looked for."""
    source, files = "docker", registry_credentials.auth_paths(environ)
    match config.credentials:
        case model.BuiltinCredentials.ANONYMOUS:
            source, files = "anonymous", ()
        case model.PasswordFile(password_file=path) | model.TokenFile(token_file=path):
            source, files = "file", (path,)
        case _:
            pass
    return WireLogins(uid=os.geteuid(), source=source, files=tuple(map(str, files)))


def _mirror(config: model.ReadMirrorConfig) -> registry.Mirror:
    host, _, prefix = config.location.partition("/")
    return registry.Mirror(host, prefix, config.tags)


def pack_settings(config: model.ModelkitConfig, environ: Mapping[str, str]) -> PackSettings:
    """Return how kits are packed; `SOURCE_DATE_EPOCH` is honoured where it is a number."""
    epoch = environ.get("SOURCE_DATE_EPOCH", "")
    return PackSettings(
        dialect=Dialect(config.dialect),
        cli_version=config.cli_version,
        compression=config.compression,
        layer_format=config.layer_format,
        model_pack=config.model_pack,
        source_date_epoch=int(epoch) if epoch.isdecimal() and len(epoch) < 12 else None,
    )


def access_rules(config: model.RpcConfig) -> tuple[AccessRule, ...]:
    """Return who may call what; looks the groups up. Raises `UnknownGroupError`."""
    return tuple(
        AccessRule.for_group(rule.group, Role[rule.role.upper()], rule.repositories)
        if rule.group is not None
        else AccessRule(Role[rule.role.upper()], uid=rule.uid, repositories=rule.repositories)
        for rule in config.access
    )


def lane_slots(config: model.WorkersConfig) -> Mapping[Lane, int]:
    """Return how many jobs of each lane run at once."""
    return {
        Lane.PACK: config.pack,
        Lane.PUSH: config.push,
        Lane.PULL: config.pull,
        Lane.MIRROR: config.mirror,
        # Two that look for what nobody needs would only be in each other's way.
        Lane.COLLECT: 1,
        Lane.VERIFY: config.verify,
    }


def mirror_rules(config: Config) -> tuple[Rule, ...]:
    """Return the mirrors, in the order of the file."""
    conflicts = conflicts_in_force(config.mirrors)
    return tuple(
        Rule(
            name=name,
            route=mirror.route,
            select=_selection(mirror.tags),
            referrers=mirror.referrers,
            digest_tags=mirror.digest_tags,
            deletes=mirror.deletes,
            grace_s=mirror.grace_s,
            conflicts=conflicts[name],
            schedule=mirror.schedule,
        )
        for name, mirror in config.mirrors.items()
    )


def _selection(tags: model.TagFilterConfig) -> Selection:
    return Selection(
        include=tags.include,
        exclude=tags.exclude,
        regex=tags.regex,
        semver=tags.semver,
        newest=tags.newest,
        max_age_s=tags.max_age_s,
    )
