"""Everything `kitctl` can do, as data: parser, help and completion are derived from this table.

A word can be a command of its own and begin others, which come first then: `mirror SRC DST` and
`mirror run NAME`. What follows it is one of the others, an option, or has a slash, as references
to registries have.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Literal, NamedTuple

from kitd.ctl.format import number_reader, parse_duration_s, parse_since

JOB_STATES = (
    "scheduled",
    "ready",
    "running",
    "succeeded",
    "failed",
    "cancelled",
    "superseded",
)
JOB_KINDS = ("pack", "push", "pull", "mirror", "survey", "import", "collect", "verify")
DELIVERY_STATES = ("accepted", "ignored", "malformed")
COMPRESSIONS = ("none", "gzip", "gzip-fastest", "zstd")
LAYER_FORMATS = ("tar", "raw")
IMPORT_TOOLS = ("hf", "git")


# `enum` costs more than all else that is imported here: words and no members.
Values = Literal[
    "file",
    "directory",
    "kit",
    "compared kit",
    "repository",
    "job",
    "open job",
    "failed job",
    "project",
    "mirror",
    "subject",
    "layers",
    "source",
    "delivery",
]


class Argument(NamedTuple):
    """One argument of a command: an option if its names begin with `-`, else a positional.

    A positional is required unless `is_optional`, an option is not unless `is_required`. An option
    without a `metavar` is a switch. `values` is what shells complete.
    """

    names: tuple[str, ...]
    help: str
    metavar: str | None = None
    read: Callable[[str], object] = str
    choices: tuple[str, ...] | None = None
    is_required: bool = False
    is_repeated: bool = False
    is_optional: bool = False
    values: Values | None = None

    @property
    def is_option(self) -> bool:
        """Whether it is given by name."""
        return self.names[0].startswith("-")

    @property
    def parameter(self) -> str:
        """The name of the parameter of the command's function."""
        return self.names[-1].lstrip("-").replace("-", "_")


class Command(NamedTuple):
    """One command: its words, the function that runs it as `module:function`, what help says."""

    name: str
    function: str
    summary: str
    example: str
    arguments: tuple[Argument, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the name, one or two."""
        return tuple(self.name.split(" "))

    def load(self) -> Callable[..., int]:
        """Import and return the function; it takes the session, and the arguments by name."""
        module, _, function = self.function.partition(":")
        loaded: Callable[..., int] = getattr(import_module(f"kitd.ctl.commands.{module}"), function)
        return loaded


_MAX_EDGES = 1000
"""Tags of a mirror that one call returns at most."""
_read_id = number_reader(1)
_JOB = Argument(("job",), "the job's number", metavar="ID", read=_read_id, values="job")
_OPEN_JOB = _JOB._replace(values="open job")
_FAILED_JOB = _JOB._replace(values="failed job")
_PROJECT = Argument(("name",), "the project's name", metavar="NAME", values="project")
_REFERENCE = Argument(
    ("reference",), "repository:tag or repository@digest", metavar="REF", values="kit"
)
_KITFILE = Argument(
    ("-f", "--file", "--kitfile"), "another Kitfile", metavar="KITFILE", values="file"
)
_FOLLOW = Argument(("-f", "--follow"), "go on with what happens from now on")
_DETACH = Argument(("--detach",), "do not wait: print the job's number")
_LIMIT = Argument(
    ("-n", "--limit"), "at most this many (default: 50)", metavar="N", read=number_reader(1)
)
_MIRROR = Argument(("name",), "the mirror's name", metavar="NAME", values="mirror")
_DRY_RUN = Argument(("--dry-run",), "only tell what would be done")
_REMOTE = Argument(("-r", "--remote"), "ask the registry, not the cache")

COMMANDS = (
    Command(
        "status",
        "status:status",
        "daemon, projects, queue and cache at a glance",
        "status",
        (Argument(("-w", "--watch"), "go on showing it as it changes; q ends it"),),
    ),
    Command(
        "doctor",
        "doctor:examine",
        "what is wrong, and the command that mends it",
        "doctor",
        (Argument(("--audit",), "replay the history of every job as well"),),
    ),
    Command(
        "pack",
        "transfer:pack",
        "pack a directory as a kit",
        "pack . -t registry.example.com/team/sentiment:v1,latest --push",
        (
            Argument(("directory",), "the project's directory", metavar="DIR", values="directory"),
            Argument(
                ("-t", "--tag"),
                "what to call the kit, with further tags after commas",
                metavar="REF[,TAG...]",
                values="kit",
                is_required=True,
            ),
            _KITFILE._replace(help="another Kitfile, named from here"),
            Argument(
                ("--compression",),
                "of the layers: none, gzip, gzip-fastest or zstd",
                metavar="C",
                choices=COMPRESSIONS,
            ),
            Argument(
                ("--layer-format",),
                "tar, or raw: each entry is one file, stored as it is",
                metavar="F",
                choices=LAYER_FORMATS,
            ),
            Argument(
                ("--use-model-pack", "--model-pack"), "make a CNCF ModelPack instead of a ModelKit"
            ),
            Argument(("--push",), "push the kit as well"),
            _DETACH,
        ),
    ),
    Command(
        "init",
        "init:init_kitfile",
        "write a Kitfile for what is in a directory",
        "init . --name sentiment",
        (
            Argument(("directory",), "the project's directory", metavar="DIR", values="directory"),
            Argument(("--name",), "what the kit is called", metavar="NAME"),
            Argument(("--desc",), "what it is", metavar="TEXT"),
            Argument(("--author",), "who made it", metavar="NAME", is_repeated=True),
            Argument(("-f", "--force"), "replace the Kitfile that is there"),
            Argument(
                ("-o", "--output"),
                "another file (default: DIR/Kitfile), - to print",
                metavar="FILE",
                values="file",
            ),
        ),
    ),
    Command(
        "import",
        "import_kit:import_kit",
        "make a kit of a model or a dataset of Hugging Face, or of a git repository",
        "import org/name -t registry.example.com/team/name:v1 --exclude '*.bin'",
        (
            Argument(
                ("repository",),
                "org/name, datasets/org/name, its address, or that of a git repository",
                metavar="REPO",
            ),
            Argument(
                ("--tool",),
                "hf, or git (default: by the address)",
                metavar="TOOL",
                choices=IMPORT_TOOLS,
            ),
            Argument(
                ("-t", "--tag"),
                "what to call the kit (default: org/name:latest)",
                metavar="REF[,TAG...]",
                values="kit",
            ),
            _KITFILE._replace(
                help="its Kitfile, named from here"
                " (default: that of a git repository, or one is written)"
            ),
            Argument(
                ("--ref",),
                "a branch, tag or commit (default: main, HEAD of git)",
                metavar="REVISION",
            ),
            Argument(("--include",), "only these: '*.json' …", metavar="GLOB", is_repeated=True),
            Argument(("--exclude",), "none of these", metavar="GLOB", is_repeated=True),
            Argument(("--push",), "push the kit as well"),
            _DETACH,
        ),
    ),
    Command(
        "push",
        "transfer:push",
        "copy a kit to its registry, or to another reference",
        "push registry.example.com/team/sentiment:v1",
        (
            _REFERENCE,
            Argument(
                ("target",), "where to, if elsewhere", metavar="DST", is_optional=True, values="kit"
            ),
            Argument(("--with-parents",), "push the kits it builds on as well"),
            _DETACH,
        ),
    ),
    Command(
        "pull",
        "transfer:pull",
        "copy a kit to the cache",
        "pull registry.example.com/team/sentiment:v1",
        (_REFERENCE, _DETACH),
    ),
    Command(
        "mirror run",
        "mirror:run",
        "copy now what a mirror of the configuration lacks",
        "mirror run prod --dry-run",
        (
            _MIRROR,
            _DRY_RUN,
            Argument(("--thorough",), "look at both ends, whatever is remembered of them"),
            Argument(("--allow-deletes",), "agree to deletions that look like an accident"),
            _DETACH,
        ),
    ),
    Command("mirror list", "mirror:list_mirrors", "mirrors of the configuration", "mirror list"),
    Command(
        "mirror edges",
        "mirror:list_edges",
        "what is known of a mirror's tags, those in trouble first",
        "mirror edges prod",
        (
            _MIRROR,
            Argument(
                ("-n", "--limit"),
                "at most this many, up to 1000 (default: 100)",
                metavar="N",
                read=number_reader(1, _MAX_EDGES),
            ),
        ),
    ),
    Command(
        "mirror",
        "mirror:copy",
        "copy a repository, or some of its tags, to another registry",
        "mirror registry.example.com/team/sentiment mirror.example.com/sentiment --tags 'v*'",
        (
            Argument(("source",), "a repository of a registry, or one tag of it", metavar="SRC"),
            Argument(("target",), "where to, with a tag to change its name", metavar="DST"),
            Argument(("--tags",), "only these: v1, 'v*' …", metavar="GLOB", is_repeated=True),
            _DRY_RUN,
            _DETACH,
        ),
    ),
    Command(
        "unpack",
        "unpack:unpack_kit",
        "write a kit's files to a directory",
        "unpack team/sentiment:v1 -d model --filter model",
        (
            _REFERENCE,
            Argument(
                ("-d", "--dir"), "where to (default: here)", metavar="DIR", values="directory"
            ),
            Argument(
                ("-f", "--filter"),
                "only this: TYPE[,TYPE...][:NAME[,NAME...]]",
                metavar="FILTER",
                values="layers",
                is_repeated=True,
            ),
            Argument(("-o", "--overwrite"), "replace files that exist"),
            Argument(("-i", "--ignore-existing"), "keep files that exist"),
            Argument(("--include-remote",), "fetch remote datasets, from S3, https and other kits"),
        ),
    ),
    Command(
        "list",
        "kit:list_kits",
        "kits in the cache, or of a repository in its registry",
        "list --remote registry.example.com/team/sentiment",
        (
            Argument(
                ("repository",),
                "only this one",
                metavar="REPO",
                is_optional=True,
                values="repository",
            ),
            _REMOTE,
            Argument(
                ("-f", "--filter"),
                "kits that have this: TYPE[,TYPE...][:NAME[,NAME...]]",
                metavar="FILTER",
                values="layers",
                is_repeated=True,
            ),
            Argument(
                ("--format",), "table, json, or fields: '{{.Repo}} {{.Size}}'", metavar="FORMAT"
            ),
        ),
    ),
    Command(
        "inspect",
        "kit:inspect_kit",
        "a kit's digest, manifest and configuration as JSON",
        "inspect team/sentiment:v1",
        (_REFERENCE, _REMOTE),
    ),
    Command(
        "info",
        "kit:show_info",
        "a kit's Kitfile, or a part of it",
        "info team/sentiment:v1 --filter .model.parts[0].path",
        (
            _REFERENCE,
            _REMOTE,
            Argument(
                ("-f", "--filter"),
                "only this: .model.name, .datasets[0].parameters …",
                metavar="PATH",
            ),
        ),
    ),
    Command(
        "diff",
        "kit_diff:diff_kits",
        "what two kits share, and which layers and files only one has",
        "diff team/sentiment:v1 remote://registry.example.com/team/sentiment:v2",
        (
            Argument(
                ("a",),
                "a kit; local:// or remote:// before it says where",
                metavar="A",
                values="compared kit",
            ),
            Argument(("b",), "another kit", metavar="B", values="compared kit"),
            Argument(("--layers",), "compare layers only, and read no files"),
        ),
    ),
    Command(
        "tag",
        "kit_names:tag_kit",
        "give a kit of the cache another name",
        "tag team/sentiment:v1 registry.example.com/team/sentiment:v1,latest",
        (
            _REFERENCE,
            Argument(
                ("target",), "the name, with further tags after commas", metavar="DST", values="kit"
            ),
        ),
    ),
    Command(
        "remove",
        "kit_names:remove_kits",
        "take a tag from a kit, or a kit from the cache or its registry",
        "remove team/sentiment:v1",
        (
            Argument(
                ("reference",),
                "repository:tag[,TAG...] or repository@digest",
                metavar="REF",
                values="kit",
                is_optional=True,
            ),
            Argument(("-f", "--force"), "the kit goes with all its tags, whoever needs it"),
            Argument(("-a", "--all"), "kits of the cache without a tag; with --force all"),
            Argument(("-r", "--remote"), "remove it in its registry, and not in the cache"),
        ),
    ),
    Command(
        "jobs list",
        "jobs:list_jobs",
        "what was, is and will be done, newest first",
        "jobs list --state failed",
        (
            Argument(("--state",), "only in this state", metavar="STATE", choices=JOB_STATES),
            Argument(
                ("--kind",),
                "only of this kind: pack, push, pull …",
                metavar="KIND",
                choices=JOB_KINDS,
            ),
            Argument(("--project",), "only of this project", metavar="NAME", values="project"),
            _LIMIT,
        ),
    ),
    Command("jobs show", "jobs:show_job", "one job", "jobs show 12", (_JOB,)),
    Command(
        "jobs wait",
        "jobs:wait_job",
        "wait until a job has ended",
        "jobs wait 12 --timeout 15m",
        (
            _OPEN_JOB,
            Argument(
                ("--timeout",),
                "give up after 30s, 15m, 1h30m …",
                metavar="D",
                read=parse_duration_s,
            ),
        ),
    ),
    Command("jobs cancel", "jobs:cancel_job", "stop a job", "jobs cancel 12", (_OPEN_JOB,)),
    Command(
        "jobs retry",
        "jobs:retry_job",
        "run a failed or cancelled job again",
        "jobs retry 12",
        (_FAILED_JOB,),
    ),
    Command("jobs log", "jobs:show_log", "a job's events", "jobs log 12 -f", (_JOB, _FOLLOW)),
    Command("projects list", "projects:list_projects", "what is watched", "projects list"),
    Command(
        "projects add",
        "projects:add_project",
        "watch a directory",
        "projects add sentiment . -t registry.example.com/team/sentiment:latest --push",
        (
            _PROJECT._replace(values=None),
            Argument(("path",), "its directory", metavar="PATH", values="directory"),
            Argument(
                ("-t", "--tag"),
                "what to call its kits, with tags after commas",
                metavar="REF[,TAG...]",
                values="kit",
                is_required=True,
            ),
            _KITFILE._replace(help="another Kitfile, named from PATH"),
            Argument(("--push",), "push every new kit"),
            Argument(("--no-push",), "keep kits in the cache"),
        ),
    ),
    Command(
        "projects remove",
        "projects:remove_project",
        "watch a directory no longer; its kits stay",
        "projects remove sentiment",
        (_PROJECT,),
    ),
    Command(
        "projects rescan",
        "projects:rescan_project",
        "look at a project's files now",
        "projects rescan sentiment",
        (_PROJECT,),
    ),
    Command(
        "projects hold",
        "projects:hold_project",
        "pack a project no more until it is released",
        "projects hold sentiment",
        (_PROJECT,),
    ),
    Command(
        "projects release",
        "projects:release_project",
        "let a held project be packed again",
        "projects release sentiment",
        (_PROJECT,),
    ),
    Command(
        "why",
        "why:explain",
        "why a project waits, a job ran or a blob is kept",
        "why sentiment",
        (
            Argument(
                ("subject",),
                "a project, a job or a digest, or as much of it as tables show",
                metavar="PROJECT|JOB|DIGEST",
                values="subject",
            ),
        ),
    ),
    Command(
        "events",
        "events:show_events",
        "what happened",
        "events -f",
        (
            _FOLLOW,
            Argument(
                ("--since",), "only what came after event SEQ", metavar="SEQ", read=number_reader(0)
            ),
        ),
    ),
    Command("cache stats", "cache:show_stats", "how much the cache holds", "cache stats"),
    Command(
        "cache gc",
        "cache:collect",
        "remove from the cache what is least needed, down to its limits",
        "cache gc --dry-run",
        (Argument(("--dry-run",), "only tell what would go, and why the rest stays"), _DETACH),
    ),
    Command(
        "cache verify",
        "cache:verify",
        "hash the whole cache again",
        "cache verify --repair",
        (Argument(("--repair",), "fetch anew what is damaged, where a registry has it"), _DETACH),
    ),
    Command(
        "cache pin",
        "cache:pin",
        "keep a kit in the cache, whatever its limits",
        "cache pin team/sentiment:v1",
        (_REFERENCE,),
    ),
    Command(
        "cache unpin",
        "cache:unpin",
        "let a pinned kit be collected again",
        "cache unpin team/sentiment:v1",
        (_REFERENCE,),
    ),
    Command(
        "webhooks list",
        "webhooks:list_deliveries",
        "what registries told, newest first",
        "webhooks list --state malformed",
        (
            Argument(("--source",), "only from this source", metavar="NAME", values="source"),
            Argument(("--state",), "only in this state", metavar="STATE", choices=DELIVERY_STATES),
            _LIMIT,
        ),
    ),
    Command(
        "webhooks replay",
        "webhooks:replay",
        "read deliveries again, and do what follows from them",
        "webhooks replay --since 2h --source harbor-eu",
        (
            Argument(
                ("deliveries",),
                "their numbers",
                metavar="ID",
                values="delivery",
                read=_read_id,
                is_repeated=True,
                is_optional=True,
            ),
            Argument(
                ("--since",),
                "all since then: 30m, 2h ago, or a time like 2026-11-20T08:00:00Z",
                metavar="TIME",
                read=parse_since,
            ),
            Argument(
                ("--source",), "with --since: only of this source", metavar="NAME", values="source"
            ),
        ),
    ),
    Command(
        "login",
        "login:log_in",
        "keep a registry's password or token, where docker does",
        "login registry.example.com -u ada --password-stdin",
        (
            Argument(("registry",), "its host, with a port or without", metavar="HOST"),
            Argument(("-u", "--username"), "without it: an identity token", metavar="NAME"),
            Argument(("--password-stdin",), "read the password or the token from stdin"),
            Argument(
                ("-p", "--password"),
                "refused: whoever runs ps would see it",
                metavar="PASSWORD",
            ),
        ),
    ),
    Command(
        "logout",
        "login:log_out",
        "forget a registry's password or token",
        "logout registry.example.com",
        (Argument(("registry",), "its host, with a port or without", metavar="HOST"),),
    ),
    Command("config show", "config:show_config", "the effective configuration", "config show"),
    Command("reload", "config:reload_config", "apply the changed configuration file", "reload"),
    Command(
        "completion",
        "completion:print_script",
        "a completion script for a shell",
        "completion bash > ~/.local/share/bash-completion/completions/kitctl",
        (
            Argument(
                ("shell",), "which shell", metavar="bash|zsh|fish", choices=("bash", "zsh", "fish")
            ),
        ),
    ),
    Command("version", "version:show_version", "versions of kitctl and kitd", "version"),
)
