"""Everything that can be configured, with its defaults, which stand nowhere else.

An option is a field here and a line in `parse`; its key in the file is the field's name without
the unit (`key_of`). What has no default must be given, or comes from `kitd.config.places`.
`docs/configuration.md` explains each option to those who set it.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from kitd.config.address import Endpoint, ListenAddress, TcpAddress
from kitd.config.tag_template import TagTemplate, parse_tag_template
from kitd.mirror.order import Conflicts, Deletes, TargetOrder
from kitd.mirror.route import TAG, Route
from kitd.mirror.schedule import Schedule
from kitd.oci.reference import Repository
from kitd.oci.repository_glob import RepositoryGlob

GIB = 2**30
DAY_S = 86_400.0
KITFILE = PurePosixPath("Kitfile")
LATEST = parse_tag_template("latest")


def key_of(field_name: str) -> str:
    """Return the key in the file: units are part of the value there, not of the name."""
    return field_name.removesuffix("_s").removesuffix("_bytes")


class LogLevel(enum.StrEnum):
    """The least important messages that are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(enum.StrEnum):
    """`auto`: console on a terminal, JSON lines otherwise."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class Role(enum.StrEnum):
    """What a peer of the socket may do; each includes the one before."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"


class Dialect(enum.StrEnum):
    """Which release of `kit` a ModelKit is packed like."""

    CURRENT = "current"
    KIT_1_7 = "kit-1.7"


class Compression(enum.StrEnum):
    """How layers are compressed."""

    NONE = "none"
    GZIP = "gzip"
    GZIP_FASTEST = "gzip-fastest"
    ZSTD = "zstd"


class LayerFormat(enum.StrEnum):
    """Whether single files are wrapped in a tar archive."""

    TAR = "tar"
    RAW = "raw"


class BuiltinCredentials(enum.StrEnum):
    """`docker`: the files and helpers of `docker login`; `anonymous`: none at all."""

    DOCKER = "docker"
    ANONYMOUS = "anonymous"


class UploadMode(enum.StrEnum):
    """How blobs are sent; `auto` follows what is known of the registry."""

    AUTO = "auto"
    MONOLITHIC = "monolithic"
    CHUNKED = "chunked"
    STREAM = "stream"


class WatchMode(enum.StrEnum):
    """How changes are noticed; `auto` polls where the file system gives no notifications."""

    AUTO = "auto"
    NATIVE = "native"
    POLL = "poll"
    OFF = "off"


class WebhookFormat(enum.StrEnum):
    """What a sender of webhooks speaks. The receiver has a reader for each of these names."""

    DISTRIBUTION = "distribution"
    GITLAB = "gitlab"
    HARBOR = "harbor"
    DOCKERHUB = "dockerhub"
    GITHUB = "github"
    QUAY = "quay"
    ACR = "acr"
    EVENTGRID = "eventgrid"
    ECR = "ecr"
    GAR = "gar"
    ZOT = "zot"
    GITEA = "gitea"
    ARTIFACTORY = "artifactory"
    ALIBABA = "alibaba"
    GENERIC = "generic"


class FileMode(int):
    """Permission bits of a file; `str()` gives octal digits."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"{int(self):04o}"


OWNER_ONLY = FileMode(0o600)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """What the daemon logs to standard error."""

    level: LogLevel = LogLevel.INFO
    format: LogFormat = LogFormat.AUTO


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRule:
    """Gives the members of a group or a user a role; exactly one of the two is set.

    `repositories` are where kitd goes for them with its own network and credentials.
    """

    group: str | None = None
    uid: int | None = None
    role: Role
    repositories: tuple[RepositoryGlob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcConfig:
    """The Unix socket that clients connect to."""

    socket: Path
    mode: FileMode = OWNER_ONLY
    access: tuple[AccessRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """The blob cache; `Config.cache_dir` says where."""

    dir: Path | None = None
    use_at_most_bytes: int = 200 * GIB
    keep_at_least_bytes: int = 0
    leave_free_bytes: int = 10 * GIB
    keep_recent_s: float = 600.0
    stream_over_bytes: int | None = None
    """None streams only what the disk has no room for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelkitConfig:
    """How kits are packed."""

    dialect: Dialect = Dialect.CURRENT
    cli_version: str = "1.16.0"
    compression: Compression = Compression.NONE
    layer_format: LayerFormat = LayerFormat.TAR
    model_pack: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersConfig:
    """How many jobs of a kind run at once."""

    pack: int = 2
    push: int = 4
    pull: int = 4
    mirror: int = 4
    verify: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionConfig:
    """How long what is over stays in the ledger: jobs that ended, and events."""

    succeeded_s: float = 7 * DAY_S
    failed_s: float = 30 * DAY_S
    events_s: float = 14 * DAY_S


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordFile:
    """A user name, and the file that holds the password."""

    username: str
    password_file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFile:
    """The file that holds a bearer token."""

    token_file: Path


Credentials = BuiltinCredentials | PasswordFile | TokenFile


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadConfig:
    """How blobs are sent to a registry; `chunk_bytes` None follows what is known of it."""

    mode: UploadMode = UploadMode.AUTO
    chunk_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadMirrorConfig:
    """A registry, or a prefix of one (`host/prefix`), that is read before another."""

    location: str
    tags: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryConfig:
    """How to talk to one registry; `plain_http` None is true on loopback hosts only."""

    plain_http: bool | None = None
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    proxy: str | None = None
    credentials: Credentials = BuiltinCredentials.DOCKER
    upload: UploadConfig = UploadConfig()
    mirrors: tuple[ReadMirrorConfig, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleConfig:
    """When a changed project is at rest."""

    quiet_s: float = 2.0
    max_wait_s: float = 900.0
    min_interval_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectConfig:
    """A directory that is packed whenever it changed and came to rest."""

    path: Path
    kitfile: PurePosixPath = KITFILE
    reference: Repository
    tags: tuple[TagTemplate, ...] = (LATEST,)
    push: bool = True
    watch: WatchMode = WatchMode.AUTO
    settle: SettleConfig = SettleConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class TagFilterConfig:
    """Which tags a mirror copies: those that pass everything that is given."""

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    regex: str | None = None
    semver: str | None = None
    newest: int | None = None
    max_age_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorTargetConfig:
    """Where a mirror copies to: a repository, a prefix or a template, and a template of tags."""

    repository: str
    tag: str = TAG


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorConfig:
    """A repository, or those below a prefix that match a glob, copied to other registries."""

    source: str
    repositories: tuple[str, ...] = ()
    targets: tuple[MirrorTargetConfig, ...]
    tags: TagFilterConfig = TagFilterConfig()
    referrers: bool = True
    digest_tags: bool = True
    deletes: Deletes = Deletes.IGNORE
    grace_s: float = DAY_S
    conflicts: Conflicts | None = None
    """None is for `kitd.config.mirrors` to say."""
    schedule: Schedule | None = None

    @property
    def route(self) -> Route:
        """Where it copies from and to."""
        targets = (TargetOrder(repository=to.repository, tag=to.tag) for to in self.targets)
        return Route(self.source, self.repositories, tuple(targets))


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSourceConfig:
    """One sender: its format's name, the registry it speaks for, the file with the secret."""

    format: WebhookFormat
    registry: str
    secret_file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhooksConfig:
    """The receiver of registry events; `listen` None is off."""

    listen: ListenAddress | None = None
    sources: Mapping[str, WebhookSourceConfig] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationConfig:
    """An HTTP endpoint that is told of events; exactly one of `url` and `url_file` is set.

    `types` are globs of event types. Without `secret_file` requests are not signed.
    """

    url: Endpoint | None = None
    url_file: Path | None = None
    types: tuple[str, ...] = ("*",)
    secret_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HubConfig:
    """The hub that models and datasets are imported from, and the file that holds its token."""

    endpoint: str = "https://huggingface.co"
    token_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """kitd's own OCI registry over the cache; `listen` None is off."""

    listen: TcpAddress | None = None
    writable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig:
    """The Prometheus endpoint; `listen` None is off."""

    listen: TcpAddress | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration. Never changed."""

    state_dir: Path
    log: LogConfig = LogConfig()
    rpc: RpcConfig
    cache: CacheConfig = CacheConfig()
    modelkit: ModelkitConfig = ModelkitConfig()
    workers: WorkersConfig = WorkersConfig()
    retention: RetentionConfig = RetentionConfig()
    registries: Mapping[str, RegistryConfig] = field(default_factory=dict, hash=False)
    projects: Mapping[str, ProjectConfig] = field(default_factory=dict, hash=False)
    mirrors: Mapping[str, MirrorConfig] = field(default_factory=dict, hash=False)
    webhooks: WebhooksConfig = WebhooksConfig()
    notifications: Mapping[str, NotificationConfig] = field(default_factory=dict, hash=False)
    hub: HubConfig = HubConfig()
    registry: GatewayConfig = GatewayConfig()
    metrics: MetricsConfig = MetricsConfig()

    @property
    def cache_dir(self) -> Path:
        """Where the blob cache is: `cache.dir`, or `cache` in the state directory."""
        return self.cache.dir or self.state_dir / "cache"
