"""The Dockerfile keeps the rules that an image of ours has to keep."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from release import sources

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")


class Step(NamedTuple):
    """One instruction, of a stage that is numbered from 1; 0 is what comes before the first."""

    stage: int
    name: str
    arguments: str


def steps():
    """Return the instructions, each in one line."""
    lines = [line for line in TEXT.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    stage, found = 0, []
    for line in filter(str.strip, joined.splitlines()):
        name, arguments = line.split(maxsplit=1)
        stage += name == "FROM"
        found.append(Step(stage, name, arguments))
    return found


STEPS = steps()
IMAGE = [step for step in STEPS if step.stage == STEPS[-1].stage]


def arguments_of(name, among=IMAGE):
    """Return what is said by all instructions of a name."""
    return [step.arguments for step in among if step.name == name]


def only(name):
    """Return what the image's only instruction of a name says."""
    (found,) = arguments_of(name)
    return found


def test_the_base_can_be_named_by_digest():
    """Every stage begins from one argument, whose default is a version and never `latest`."""
    default = dict(text.split("=", 1) for text in arguments_of("ARG", STEPS[:1]))["PYTHON_IMAGE"]

    assert {text.split()[0] for text in arguments_of("FROM", STEPS)} == {"${PYTHON_IMAGE}"}
    assert re.fullmatch(r"[a-z.]+/[a-z/]+:3\.\d+-slim-[a-z]+", default)


def test_there_are_stages_and_the_last_one_builds_nothing():
    """Tools that build stay in the stage before."""
    assert STEPS[-1].stage > 1
    runs = " ".join(arguments_of("RUN"))
    for word in ("pip install", "pip wheel", "apt-get", "-m build", "curl", "wget", "git "):
        assert word not in runs, word


def test_nothing_is_installed_without_a_hash():
    """What pip fetches is in a lock with its hash; the rest comes from the wheels made of that."""
    builds = " ".join(arguments_of("RUN", STEPS))
    for command in re.findall(r"pip (?:--python \S+ )?(?:install|wheel) [^&]*", builds):
        assert "--require-hashes" in command or "--no-index" in command, command
    assert "PIP_NO_CACHE_DIR=1" in TEXT


def test_it_runs_as_a_user_with_a_number():
    """Kubernetes can tell that it is not root."""
    user, group = re.fullmatch(r"\$\{(\w+)\}:\$\{(\w+)\}", only("USER")).groups()
    values = dict(text.split("=") for text in arguments_of("ARG") if "=" in text)

    assert int(values[user]) >= 1000
    assert int(values[group]) >= 1000
    assert arguments_of("USER") == [only("USER")]


def test_what_an_engine_has_to_know():
    """How it is started, stopped and asked for its health, without a shell in between."""
    assert only("STOPSIGNAL") == "SIGTERM"
    assert (only("ENTRYPOINT"), only("CMD")) == ('["kitd"]', '["serve"]')
    assert re.search(r'--timeout=\S+ .*CMD \["kitctl", "status"\]$', only("HEALTHCHECK"))
    assert set(eval(only("VOLUME"))) == {"/var/lib/kitd", "/run/kitd", "/projects"}


def test_labels_say_what_it_is():
    """Those of the image specification; what changes with a release comes from outside."""
    labels = dict(re.findall(r'org\.opencontainers\.image\.([\w.]+)="([^"]*)"', only("LABEL")))

    assert labels.keys() == {
        "title", "description", "licenses", "version", "revision", "source", "created",
        "base.name",
    }  # fmt: skip
    assert labels["licenses"] == "Apache-2.0"
    # Who names the base by digest has it in there.
    assert labels["base.name"] == "${PYTHON_IMAGE}"
    for name in ("version", "revision", "source", "created"):
        assert labels[name] == f"${{{name.upper()}}}"
        assert name.upper() in arguments_of("ARG")


def copied():
    """Return what is copied from the sources."""
    found = [text.split() for text in arguments_of("COPY", STEPS) if not text.startswith("--")]
    return [source for *sources, _ in found for source in sources]


def test_nothing_comes_from_an_address():
    """There is no ADD, which would unpack and download."""
    assert not arguments_of("ADD", STEPS)


def let_through(names):
    """Return which of these files the engine gets, by .dockerignore: the last rule decides."""
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = []
    for rule in rules:
        if rule and not rule.startswith("#"):
            text = re.escape(rule.removeprefix("!")).replace(r"\*\*/", "(.*/)?")
            text = text.replace(r"\*", "[^/]*")
            patterns.append((rule.startswith("!"), re.compile(f"{text}(/.*)?")))
    return {
        name
        for name in names
        if [is_kept for is_kept, pattern in patterns if pattern.fullmatch(name)][-1:] == [True]
    }


def test_what_is_copied_is_let_through():
    """All of it that are sources: else the build fails, or the result lacks something."""
    known = sources()
    wanted = {n for n in known for source in copied() if n == source or n.startswith(f"{source}/")}

    assert all((ROOT / source).exists() for source in copied())
    assert let_through(known) == wanted


def test_nothing_else_is_let_through():
    """The engine gets no history, no environment, and nothing that lies beside what is copied."""
    others = {
        ".env", ".git/config", ".venv/pyvenv.cfg", "auth.json", "config/auth.json",
        "config/compose/auth.json", "config/kubernetes/secrets.yaml", "docs/auth.json",
        "kitd/__pycache__/auth.json", "kitd/ctl/auth.pyc", "systemd/auth.json",
    }  # fmt: skip

    assert let_through(others) == set()


def test_engines_find_what_is_let_through():
    """They skip a directory that is left out, unless an exception begins with its very name."""
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()

    assert not [r for r in rules if r.startswith("!") and "*" in r.rpartition("/")[0]]


def test_make_gives_it_its_arguments():
    """`make image` says version, revision and time, and names the image by no `latest`."""
    done = subprocess.run(
        ["make", "--dry-run", "image"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in ("VERSION", "REVISION", "SOURCE_DATE_EPOCH"):
        assert f"--build-arg {name}=" in done.stdout
    # RFC 3339, as the image specification wants it.
    assert re.search(r"--build-arg CREATED=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", done.stdout)
    assert "latest" not in done.stdout
