from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from kitd.config.address import Endpoint, TcpAddress, UnixAddress
from kitd.config.model import (
    AccessRule,
    BuiltinCredentials,
    Config,
    LogLevel,
    PasswordFile,
    ReadMirrorConfig,
    Role,
    RpcConfig,
    TokenFile,
    UploadConfig,
)
from kitd.config.parse import parse_config
from kitd.config.places import Place, Places
from kitd.config.problem import MAX_PROBLEMS, ConfigError
from kitd.config.show import show_config
from kitd.mirror.schedule import Cron, Interval
from kitd.oci.reference import Repository

Parse = Callable[[str], Config]

PROJECT = "projects:\n  s:\n    path: /srv/s\n    reference: r.example/s\n"
MIRROR = "mirrors:\n  m:\n    source: a.example/x\n    targets: [b.example/x]\n"


def problems(parse: Parse, text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return caught.value.lines


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n", "null\n", "projects:\nlog:\n"])
def test_an_empty_document_or_section_is_all_defaults(
    parse: Parse, places: Places, text: str
) -> None:
    expected = Config(
        state_dir=Path(places.state_dir.path), rpc=RpcConfig(socket=Path(places.socket.path))
    )
    assert parse(text) == expected
    assert parse(text).cache_dir == Path(places.state_dir.path) / "cache"


def test_values_become_domain_types(parse: Parse) -> None:
    config = parse(
        PROJECT
        + "    kitfile: kits/Kitfile\n"
        + "    tags: [latest, '{digest:8}']\n"
        + "    settle: {quiet: 500ms, max_wait: 1h30m}\n"
        + "rpc: {mode: 0660, access: [{group: ml, role: submit}, {uid: 7, role: admin}]}\n"
        + "cache: {dir: ~/cache, use_at_most: 1.5GiB, stream_over: 10GB}\n"
        + "log: {level: debug}\n"
        + "webhooks: {listen: 'unix:/run/kitd/hooks.sock'}\n"
        + "metrics: {listen: '[::1]:9470'}\n"
    )
    project = config.projects["s"]
    assert project.path == Path("/srv/s")
    assert project.kitfile == PurePosixPath("kits/Kitfile")
    assert project.reference == Repository("r.example", "s")
    assert [str(tag) for tag in project.tags] == ["latest", "{digest:8}"]
    assert (project.settle.quiet_s, project.settle.max_wait_s) == (0.5, 5400.0)
    assert config.rpc.mode == 0o660
    assert config.rpc.access == (
        AccessRule(group="ml", role=Role.SUBMIT),
        AccessRule(uid=7, role=Role.ADMIN),
    )
    assert config.cache_dir == Path("/home/ada/cache")
    assert config.cache.use_at_most_bytes == 3 * 2**29
    assert config.cache.stream_over_bytes == 10**10
    assert config.log.level is LogLevel.DEBUG
    assert config.webhooks.listen == UnixAddress(Path("/run/kitd/hooks.sock"))
    assert config.metrics.listen == TcpAddress("::1", 9470)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("docker", BuiltinCredentials.DOCKER),
        ("anonymous", BuiltinCredentials.ANONYMOUS),
        (
            "{username: me, password_file: /etc/p}",
            PasswordFile(username="me", password_file=Path("/etc/p")),
        ),
        ("{token_file: ~/t}", TokenFile(token_file=Path("/home/ada/t"))),
        (
            "{token_file: $CREDENTIALS_DIRECTORY/t}",
            TokenFile(token_file=Path("/run/credentials/kitd.service/t")),
        ),
    ],
)
def test_credentials_have_four_forms(parse: Parse, text: str, expected: object) -> None:
    config = parse(f"registries: {{r.example: {{credentials: {text}}}}}")
    assert config.registries["r.example"].credentials == expected


@pytest.mark.parametrize(
    "host", ["docker.io", "localhost:5000", "127.0.0.1:5000", "[::1]:5000", "r.example:443"]
)
def test_a_registry_is_a_host_with_or_without_port(parse: Parse, host: str) -> None:
    assert list(parse(f"registries: {{'{host}': {{}}}}").registries) == [host]


@pytest.mark.parametrize("host", ["index.docker.io", "registry-1.docker.io", "Docker.IO"])
def test_a_registry_has_one_spelling(parse: Parse, host: str) -> None:
    assert list(parse(f"registries: {{'{host}': {{}}}}").registries) == ["docker.io"]
    location = f"{{location: {host}/hub}}"
    config = parse(f"registries: {{r.example: {{mirrors: [{location}]}}}}")
    (mirror,) = config.registries["r.example"].mirrors
    assert mirror.location == "docker.io/hub"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", ()),
        ("null", ()),
        ("[m.example]", (ReadMirrorConfig(location="m.example"),)),
        ("['m.example:5000/a/b']", (ReadMirrorConfig(location="m.example:5000/a/b"),)),
        (
            "[{location: m.example}, {location: n.example, tags: true}]",
            (
                ReadMirrorConfig(location="m.example"),
                ReadMirrorConfig(location="n.example", tags=True),
            ),
        ),
    ],
)
def test_a_mirror_is_a_place_and_perhaps_more(
    parse: Parse, text: str, expected: tuple[ReadMirrorConfig, ...]
) -> None:
    config = parse(f"registries: {{r.example: {{mirrors: {text}}}}}")
    assert config.registries["r.example"].mirrors == expected


@pytest.mark.parametrize("word", ["auto", "null", "~"])
def test_an_automatic_chunk_size_is_none(parse: Parse, word: str) -> None:
    config = parse(f"registries: {{r.example: {{upload: {{chunk: {word}}}}}}}")
    assert config.registries["r.example"].upload == UploadConfig(chunk_bytes=None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'*/15 * * * *'", Cron("*/15 * * * *")),
        ("0  3 * *   mon-fri", Cron("0 3 * * mon-fri")),
        ("90s", Interval(90.0)),
        ("null", None),
    ],
)
def test_a_schedule_is_cron_or_an_interval(parse: Parse, text: str, expected: object) -> None:
    assert parse(f"{MIRROR}    schedule: {text}\n").mirrors["m"].schedule == expected


@pytest.mark.parametrize("mode", ["0600", '"0600"', "0o600", "600"])
def test_a_mode_is_octal_quoted_or_not(parse: Parse, mode: str) -> None:
    """A YAML 1.1 loader would read 0600 as 384 and 600 as decimal."""
    assert parse(f"rpc: {{mode: {mode}}}").rpc.mode == 0o600


def test_words_of_yaml_1_1_stay_words(parse: Parse) -> None:
    """`off` is a way to watch, `1.16` a version, neither a boolean nor a number."""
    config = parse(f"{PROJECT}    watch: off\nmodelkit: {{cli_version: 1.10}}\n")
    assert config.projects["s"].watch == "off"
    assert config.modelkit.cli_version == "1.10"


def test_anchors_and_aliases_work(parse: Parse) -> None:
    config = parse(
        f"{PROJECT}    settle: &slow {{quiet: 1m}}\n"
        "  t: {path: /srv/t, reference: r.example/t, settle: *slow}\n"
    )
    assert config.projects["t"].settle.quiet_s == 60.0


def test_explicit_places_beat_the_file_and_others_do_not(places: Places) -> None:
    content = b"state_dir: /file/state\nrpc: {socket: /file/kitd.sock}\n"
    config = parse_config(content, source="f", places=places)
    assert (config.state_dir, config.rpc.socket) == (Path("/file/state"), Path("/file/kitd.sock"))

    explicit = places._replace(
        state_dir=Place("/env/state", is_explicit=True),
        socket=Place("/flag/kitd.sock", is_explicit=True),
    )
    config = parse_config(content, source="f", places=explicit)
    assert (config.state_dir, config.rpc.socket) == (Path("/env/state"), Path("/flag/kitd.sock"))
    assert config.cache_dir == Path("/env/state/cache")


def test_all_problems_are_reported_in_the_order_of_the_file(parse: Parse) -> None:
    text = (
        "log: {level: inf}\n"
        "cache:\n"
        "  use_at_mst: 3\n"
        "  use_at_most: lots\n"
        "projects:\n"
        "  sentiment:\n"
        "    path: models\n"
        "    settle:\n"
        "      quiet: fast\n"
        "    tags: [latest, '{packge.version}', 'a b']\n"
        "  Two: {path: /srv/two, reference: r.example/Two, push: yes}\n"
    )
    assert problems(parse, text) == (
        (
            "kitd.yaml:1:14: log.level: expected one of debug, info, warning, error, got 'inf'"
            " (did you mean 'info'?)"
        ),
        "kitd.yaml:3:3: cache.use_at_mst: unknown key (did you mean 'use_at_most'?)",
        "kitd.yaml:4:16: cache.use_at_most: expected a size such as 64MiB or 10GB, got 'lots'",
        "kitd.yaml:7:5: projects.sentiment: the key 'reference' is missing",
        (
            "kitd.yaml:7:11: projects.sentiment.path: must be an absolute path"
            " (it begins with / or ~/)"
        ),
        (
            "kitd.yaml:9:14: projects.sentiment.settle.quiet: expected a duration such as 2s,"
            " got 'fast'"
        ),
        (
            "kitd.yaml:10:20: projects.sentiment.tags[1]: unknown placeholder {packge.version}"
            " (did you mean {package.version}?)"
        ),
        (
            "kitd.yaml:10:40: projects.sentiment.tags[2]: 'a b' is not a tag"
            " (letters, digits, '_', '.' and '-', at most 128)"
        ),
        (
            "kitd.yaml:11:3: projects.Two: 'Two' is not a name"
            " (lower case letters, digits, '.', '_' and '-', at most 64)"
        ),
        (
            "kitd.yaml:11:36: projects.Two.reference: the repository 'Two' must be lower case"
            " (write it like registry.example.com/team/model:tag)"
        ),
        "kitd.yaml:11:57: projects.Two.push: expected true or false, got 'yes'",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The document
        ("log: {level: info", "2:1: not YAML: "),
        ("log:\n\tlevel: info\n", "2:1: not YAML: "),
        ("log: {}\n--- {}\n", "2:1: a second document begins here"),
        ("- a\n", "1:1: expected keys and values, got a list"),
        ("just text\n", "1:1: expected keys and values, got text"),
        ("? [a]\n: b\n", "1:3: a key must be one word"),
        ("log: !!map {}\n", "1:6: the tag 'tag:yaml.org,2002:map' is not used here"),
        ("a: *b\n", "1:4: no anchor 'b' ends before this"),
        ("a: &a [*a]\n", "1:8: no anchor 'a' ends before this"),
        ("log: {level: 'a\x01'}\n", "1:16: the character U+0001 is not allowed in YAML"),
        ('log: {level: "\\0"}\n', "1:14: the character U+0000 is not text"),
        ("[" * 40, "1:33: nested deeper than 32 levels"),
        # Keys
        ("project: {}\n", "1:1: project: unknown key (did you mean 'projects'?)"),
        ("log: {zzz: 1}\n", "1:7: log.zzz: unknown key (known here: format, level)"),
        ("log: {}\nlog: {}\n", "2:1: log: given twice, first in line 1"),
        (
            "registries:\n  docker.io: {}\n  index.docker.io: {}\n",
            "3:3: registries.index.docker.io: the same as 'docker.io', which is given in line 2",
        ),
        (f"{PROJECT}  s: {{}}\n", "5:3: projects.s: given twice, first in line 2"),
        ('"a\\nb": 1\n', "1:1: 'a\\nb': unknown key"),
        ("projects:\n  s:\n", "2:5: projects.s: the key 'path' is missing"),
        # Types
        ("log: info\n", "1:6: log: expected keys and values, got text"),
        ("log: [info]\n", "1:6: log: expected keys and values, got a list"),
        ("log: {level: [info]}\n", "1:14: log.level: expected text, got a list"),
        ("log: {level: }\n", "1:14: log.level: expected text, got nothing"),
        ("log: {level: ''}\n", "1:14: log.level: expected one line of 1 to 4096 characters"),
        ("rpc: {access: ml}\n", "1:15: rpc.access: expected a list, got text"),
        (
            "rpc: {access: [{uid: 1, role: read, repositories: [team]}]}\n",
            "1:52: rpc.access[0].repositories[0]: 'team' is not a glob of repositories",
        ),
        ("workers: {pack: 0}\n", "1:17: workers.pack: expected a number from 1 to 256, got '0'"),
        ("workers: {pack: two}\n", "1:17: workers.pack: expected a number from 1 to 256"),
        ("registry: {writable: on}\n", "1:22: registry.writable: expected true or false, got 'on'"),
        (
            "registry: {writable: 'true'}\n",
            "1:22: registry.writable: expected true or false, got 'true' (without quotes)",
        ),
        ("registry: {writable: }\n", "1:22: registry.writable: expected true or false, got noth"),
        # Values
        ("state_dir: state\n", "1:12: state_dir: must be an absolute path"),
        ("state_dir: ~ada/x\n", "1:12: state_dir: must be an absolute path"),
        ("state_dir: /var/../etc\n", "1:12: state_dir: must be a path without '..'"),
        ("rpc: {mode: 0900}\n", "1:13: rpc.mode: expected three octal digits such as 0600"),
        ("rpc: {mode: '4600'}\n", "1:13: rpc.mode: expected three octal digits such as 0600"),
        (f"rpc: {{socket: /{'x' * 107}}}\n", "1:15: rpc.socket: the path of a socket has at most"),
        ("cache: {leave_free: 10 GB}\n", "1:21: cache.leave_free: expected a size"),
        ("cache: {leave_free: 10gb}\n", "1:21: cache.leave_free: expected a size"),
        ("cache: {leave_free: 9000PiB}\n", "1:21: cache.leave_free: 9000PiB is larger than any"),
        ("metrics: {listen: 9470}\n", "1:19: metrics.listen: expected an address such as"),
        ("metrics: {listen: ':9470'}\n", "1:19: metrics.listen: ':9470' names no host"),
        ("metrics: {listen: 'h:70000'}\n", "1:19: metrics.listen: expected an address such as"),
        ("metrics: {listen: '[::g]:1'}\n", "1:19: metrics.listen: expected an address such as"),
        ("metrics: {listen: '[1:2]:1'}\n", "1:19: metrics.listen: [1:2] is not an IPv6 address"),
        ("webhooks: {listen: 'unix:x'}\n", "1:20: webhooks.listen: the path of a socket must be"),
        ("registry: {listen: 'unix:/x'}\n", "1:20: registry.listen: expected an address such as"),
        ("registries: {harbor: {}}\n", "1:14: registries.harbor: 'harbor' is not a registry host"),
        (
            "registries: {'https://r.example': {}}\n",
            "1:14: registries.https://r.example: 'https://r.example' is not a registry host",
        ),
        (
            "registries: {r.example: {proxy: proxy}}\n",
            "1:33: registries.r.example.proxy: expected a proxy such as",
        ),
        (
            "registries: {r.example: {upload: {mode: chunky}}}\n",
            (
                "1:41: registries.r.example.upload.mode: expected one of auto, monolithic, chunked,"
                " stream, got 'chunky' (did you mean 'chunked'?)"
            ),
        ),
        (
            "modelkit: {dialect: kit-1.7, model_pack: true}\n",
            (
                "1:42: modelkit.model_pack: kit-1.7 has no ModelPacks (set modelkit.dialect to"
                " current)"
            ),
        ),
        (
            "modelkit: {model_pack: true, layer_format: raw, compression: gzip}\n",
            (
                "1:62: modelkit.compression: a ModelPack's raw layers cannot be compressed (set it"
                " to none, or pack tar layers)"
            ),
        ),
        (
            "registries: {r.example: {mirrors: [m.example, team/model]}}\n",
            "1:47: registries.r.example.mirrors[1]: 'team/model' names no registry",
        ),
        (
            "registries: {r.example: {mirrors: [{tags: true}]}}\n",
            "1:36: registries.r.example.mirrors[0]: the key 'location' is missing",
        ),
        (f"{PROJECT}    kitfile: /Kitfile\n", "5:14: projects.s.kitfile: expected a path inside"),
        (f"{PROJECT}    kitfile: ../Kitfile\n", "5:14: projects.s.kitfile: expected a path inside"),
        (f"{PROJECT}    tags: []\n", "5:11: projects.s.tags: expected a list with at least 1"),
        (f"{PROJECT}    settle: {{quiet: 2}}\n", "5:21: projects.s.settle.quiet: expected a dura"),
        (f"{PROJECT}    settle: {{quiet: 9999d}}\n", "5:21: projects.s.settle.quiet: 9999d is lo"),
        (
            "projects: {s: {path: /s, reference: r.example/s:v1}}\n",
            "1:37: projects.s.reference: 'r.example/s:v1' must name a repository, without a tag",
        ),
        (f"{MIRROR}    schedule: '* * * *'\n", "5:15: mirrors.m.schedule: expected a duration or"),
        (f"{MIRROR}    schedule: '60 * * * *'\n", "5:15: mirrors.m.schedule: '60' is not a minute"),
        (f"{MIRROR}    schedule: '* * 0 * *'\n", "5:15: mirrors.m.schedule: '0' is not a day of t"),
        (f"{MIRROR}    schedule: '* * * 5-2 *'\n", "5:15: mirrors.m.schedule: '5-2' is not a mon"),
        (f"{MIRROR}    schedule: '*/0 * * * *'\n", "5:15: mirrors.m.schedule: '*/0' is not a min"),
        (f"{MIRROR}    schedule: 0s\n", "5:15: mirrors.m.schedule: 0s is shorter than 1s"),
        (f"{MIRROR}    schedule: '0 0 30 2 *'\n", "5:15: mirrors.m.schedule: no such day ever co"),
        (f"{MIRROR}    tags: {{newest: 0}}\n", "5:20: mirrors.m.tags.newest: expected a number"),
        (
            f"{MIRROR}    tags: {{regex: 'v[0-9'}}\n",
            (
                "5:19: mirrors.m.tags.regex: not a regular expression: unterminated character set"
                " at character 2"
            ),
        ),
        (
            f"{MIRROR}    tags: {{semver: newest}}\n",
            "5:20: mirrors.m.tags.semver: 'newest' is not part of a range of versions (write it li",
        ),
        (
            f"{MIRROR}    tags: {{max_age: 9}}\n",
            "5:21: mirrors.m.tags.max_age: expected a duration",
        ),
        (
            f"{MIRROR}    tags: {{include: [v1, 'a:b']}}\n",
            "5:26: mirrors.m.tags.include[1]: 'a:b' is",
        ),
        (
            f"{MIRROR}    conflicts: first\n",
            "5:16: mirrors.m.conflicts: expected one of overwrite, ",
        ),
        (
            f"{MIRROR}    repositories: ['a?']\n",
            "5:20: mirrors.m.repositories[0]: 'a?' is not a gl",
        ),
        (
            "mirrors: {m: {source: a.example/x, targets: ['b.example/{tag}']}}\n",
            (
                "1:46: mirrors.m.targets[0]: 'b.example/{tag}' is not a target ({path} and {name}"
                " stand for parts of a path)"
            ),
        ),
        (
            "mirrors: {m: {source: a.example/x, targets: [{repository: b.example/x, tag: v}]}}\n",
            "1:77: mirrors.m.targets[0].tag: 'v' must have {tag} once (write it like stable-{tag})",
        ),
        (
            "mirrors: {m: {source: a.example/x, targets: [{tag: '{tag}'}]}}\n",
            "1:46: mirrors.m.targets[0]: the key 'repository' is missing",
        ),
        (
            "webhooks: {sources: {h: {format: habor, registry: q.io, secret_file: /s}}}\n",
            "1:34: webhooks.sources.h.format: expected one of distribution, gitlab, harbor, ",
        ),
        (
            "mirrors: {m: {source: team/x, targets: [b.example/x]}}\n",
            "1:23: mirrors.m.source: 'team/x' names no registry",
        ),
        (
            "webhooks: {sources: {Hub: {format: quay, registry: q.io, secret_file: /s}}}\n",
            "1:22: webhooks.sources.Hub: 'Hub' is not a name",
        ),
    ],
)
def test_a_single_mistake_is_named_with_its_place(parse: Parse, text: str, expected: str) -> None:
    first = problems(parse, text)[0]
    assert first.startswith(f"kitd.yaml:{expected}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "rpc: {access: [{role: read}]}\n",
            "1:16: rpc.access[0]: expected either a group or a uid",
        ),
        (
            "rpc: {access: [{group: a, uid: 1, role: read}]}\n",
            "1:16: rpc.access[0]: expected either a group or a uid",
        ),
        (
            "cache: {keep_at_least: 300GiB}\n",
            "1:24: cache.keep_at_least: must not be more than use_at_most",
        ),
        (
            "modelkit: {dialect: kit-1.7, compression: zstd}\n",
            (
                "1:43: modelkit.compression: kit-1.7 cannot read zstd (set modelkit.dialect to"
                " current)"
            ),
        ),
        (
            "modelkit: {dialect: kit-1.7, layer_format: raw}\n",
            (
                "1:44: modelkit.layer_format: kit-1.7 cannot read raw layers (set modelkit.dialect"
                " to current)"
            ),
        ),
        (
            "registries: {r.example: {mirrors: [m.example, r.example]}}\n",
            "1:47: registries.r.example.mirrors[1]: is the registry itself",
        ),
        (
            "registries: {r.example: {client_key: /k}}\n",
            (
                "1:38: registries.r.example.client_key: needs client_cert (a certificate file that"
                " holds its key as well needs no client_key)"
            ),
        ),
        (
            f"{PROJECT}    settle: {{quiet: 1h}}\n",
            "5:21: projects.s.settle.quiet: must not be more than max_wait",
        ),
        (
            "projects: {s: {path: /s, reference: team/s}}\n",
            (
                "1:37: projects.s.reference: 'team/s' names no registry to push to (write it like"
                " registry.example.com/team/model, or set push: false)"
            ),
        ),
        (
            f"{PROJECT}  t: {{path: /srv/s, reference: r.example/t}}\n",
            (
                "5:13: projects.t.path: is the path of project 's' already (give one of them"
                " another kitfile, or a single project more tags)"
            ),
        ),
        (
            f"state_dir: /srv/s/state\n{PROJECT}",
            (
                "4:11: projects.s.path: /srv/s and the state directory, /srv/s/state, must not be"
                " inside each other (packing would change what is packed)"
            ),
        ),
        (
            f"cache: {{dir: /srv}}\n{PROJECT}",
            (
                "4:11: projects.s.path: /srv/s and the cache, /srv, must not be inside each other"
                " (packing would change what is packed)"
            ),
        ),
        (
            "mirrors: {m: {source: a.example/x, targets: [b.example/x, a.example/x]}}\n",
            "1:59: mirrors.m.targets[1]: a.example/x is the source of this mirror",
        ),
        (
            "mirrors: {m: {source: a.example/x, targets: [b.example/x, b.example/x]}}\n",
            "1:59: mirrors.m.targets[1]: b.example/x is given twice",
        ),
        (
            "registry: {listen: '127.0.0.1:80'}\nmetrics: {listen: '127.0.0.1:80'}\n",
            "2:19: metrics.listen: 127.0.0.1:80 is what registry listens on already",
        ),
    ],
)
def test_values_that_do_not_fit_together_are_named(parse: Parse, text: str, expected: str) -> None:
    assert problems(parse, text) == (f"kitd.yaml:{expected}",)


@pytest.mark.parametrize(
    "text",
    [
        f"{PROJECT}  t: {{path: /srv/s, kitfile: small/Kitfile, reference: r.example/t}}\n",
        f"{PROJECT}  t: {{path: /srv/s/inner, reference: r.example/t}}\n",
        f"state_dir: /srv/s-state\n{PROJECT}",
        "projects: {s: {path: /s, reference: team/s, push: false}}\n",
        "registry: {listen: '127.0.0.1:0'}\nmetrics: {listen: '127.0.0.1:0'}\n",
    ],
)
def test_what_only_looks_like_a_conflict_is_accepted(parse: Parse, text: str) -> None:
    parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "registries: {r.example: {credentials: hunter2}}",
        "registries: {r.example: {credentials: [hunter2]}}",
        "registries: {r.example: {credentials: {username: me, password: hunter2}}}",
        "registries: {r.example: {credentials: {username: me, password_file: hunter2}}}",
        "registries: {r.example: {credentials: {token_file: hunter2}}}",
        "registries: {r.example: {proxy: 'http://me:hunter2@proxy.example:3128'}}",
        "registries: {r.example: {proxy: 'http://me:hunter2@proxy.example:port'}}",
        "webhooks: {sources: {a: {format: gar, registry: c.example, secret_file: hunter2}}}",
        "notifications: {a: {url: 'https://me:hunter2@a.example/'}}",
        "notifications: {a: {url: 'https://a.example/?token=hunter2'}}",
        "notifications: {a: {url: 'hunter2'}}",
        "notifications: {a: {url_file: hunter2}}",
        "notifications: {a: {url: 'https://a.example/', secret_file: hunter2}}",
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(parse: Parse, text: str) -> None:
    assert "hunter2" not in repr(problems(parse, text))


def test_a_large_file_is_refused(parse: Parse) -> None:
    (line,) = problems(parse, "#" + "x" * 2**20)
    assert line == "kitd.yaml:1:1: the file is larger than 1024 KiB"


def test_aliases_cannot_expand_without_bound(parse: Parse) -> None:
    """A few lines that stand for a billion values are refused before they are visited."""
    levels = "".join(f"  l{n + 1}: &l{n + 1} [{', '.join([f'*l{n}'] * 10)}]\n" for n in range(9))
    (line,) = problems(parse, f"log:\n  l0: &l0 x\n{levels}")
    assert line == "kitd.yaml:7:7: more than 100000 values, aliases expanded"


def test_bytes_that_are_not_utf_8_are_located(places: Places) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config("log: {}\n# é".encode("latin-1"), source="f", places=places)
    assert caught.value.lines == ("f:2:3: not UTF-8 text (save the file as UTF-8)",)


def test_a_byte_order_mark_is_no_problem(places: Places) -> None:
    config = parse_config(b"\xef\xbb\xbflog: {level: debug}", source="f", places=places)
    assert config.log.level is LogLevel.DEBUG


def test_the_error_is_one_line_and_names_the_command_for_the_rest(parse: Parse) -> None:
    with pytest.raises(ConfigError) as caught:
        parse("log: {level: inf, format: xml, colour: true}")
    assert caught.value.code == "invalid_config"
    assert caught.value.message.endswith("got 'inf'; and 2 more")
    assert caught.value.hint == "kitd check-config kitd.yaml lists them"


def test_reported_problems_are_bounded(parse: Parse) -> None:
    with pytest.raises(ConfigError) as caught:
        parse("".join(f"k{number}: 1\n" for number in range(5000)))
    assert len(caught.value.problems) == MAX_PROBLEMS
    assert caught.value.message.endswith("; and 4999 more")


@pytest.mark.parametrize(
    "url",
    [
        "https://ci.example.com",
        "http://127.0.0.1:8080/hooks/kitd",
        "HTTP://[::1]:80/",
        "https://xn--bcher-kva.example/a%20b;c",
    ],
)
def test_the_url_of_an_endpoint(parse: Parse, url: str) -> None:
    config = parse(f"notifications: {{ci: {{url: '{url}'}}}}")
    assert config.notifications["ci"].url == Endpoint(url)
    assert config.notifications["ci"].types == ("*",)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://ci.example.com", "https://ci.example.com/"),
        ("HTTPS://ci.example.com:8443/", "https://ci.example.com:8443/"),
        ("http://[::1]:80/hooks/hunter2", "http://[::1]:80/[redacted]"),
        ("https://ci.example.com//hunter2", "https://ci.example.com/[redacted]"),
        ("https://ci.example.com#hunter2", "https://ci.example.com/[redacted]"),
        ("https://ci.example.com/;hunter2", "https://ci.example.com/[redacted]"),
    ],
)
def test_of_an_endpoint_no_more_is_shown_than_its_host(parse: Parse, url: str, shown: str) -> None:
    config = parse(f"notifications: {{ci: {{url: '{url}'}}}}")
    assert show_config(config)["notifications"]["ci"]["url"] == shown
    assert "hunter2" not in repr(config)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ci.example.com/hooks",
        "ftp://ci.example.com/",
        "file:///etc/passwd",
        "http://",
        "http:///hooks",
        "https://ci.example.com:0/",
        "https://ci.example.com:70000/",
        "https://user@ci.example.com/",
        "https://@ci.example.com/",
        "https://ci.example.com/a b",
        "https://ci.example.com/?",
        "https://bücher.example/",
        "https://[::1/",
        f"https://ci.example.com/{'a' * 2000}",
    ],
)
def test_what_is_no_url_of_an_endpoint(parse: Parse, url: str) -> None:
    (line,) = problems(parse, f"notifications: {{ci: {{url: '{url}'}}}}")
    assert "notifications.ci.url: " in line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "notifications.ci: expected either a url or a url_file"),
        ("{url: 'http://a.example/', url_file: /f}", "expected either a url or a url_file"),
        ("{url: 'http://a.example/', types: []}", "notifications.ci.types: "),
        ("{url: 'http://a.example/', types: ['[a-z]*']}", "is no glob of event types"),
        ("{url: 'http://a.example/', types: ['kit packed']}", "is no glob of event types"),
    ],
)
def test_an_endpoint_that_cannot_be(parse: Parse, text: str, says: str) -> None:
    (line,) = problems(parse, f"notifications: {{ci: {text}}}")
    assert says in line
