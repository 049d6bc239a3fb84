"""Every block of every page is run or says why not; links and commands in the text are right."""

import re
import tomllib
from collections import Counter
from signal import SIGINT, SIGTERM

import pytest
import yaml

from docs_runner.likeness import is_like
from docs_runner.page import PAGES, ROOT, RUN, SHOWN, blocks, markers
from kitd.__main__ import EX_CONFIG, EX_IOERR, EX_SOFTWARE, EX_TEMPFAIL
from kitd.config.diff import LIVE
from kitd.ctl.command import COMMANDS
from kitd.ledger.event_type import EVENT_TYPES
from kitd.rpc.methods import METHODS


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


NOT_RUN = Counter(
    {
        ("README.md", "it is what runs the tests"): 1,
        ("README.md", "needs a package index"): 1,
        ("docs/containers.md", "a part of a compose file"): 1,
        ("docs/containers.md", "needs a cluster"): 3,
        ("docs/containers.md", "needs a container engine"): 3,
        ("docs/how-to/service.md", "a part of a systemd unit"): 1,
        ("docs/how-to/service.md", "needs a package index and root"): 1,
        ("docs/how-to/service.md", "needs systemd"): 1,
        ("docs/how-to/service.md", "needs systemd and root"): 3,
        ("docs/how-to/webhooks.md", "configuration of the other registry"): 1,
        ("docs/import.md", "needs a server of ssh"): 1,
        ("docs/performance.md", "it takes three quarters of an hour and the peers"): 1,
        ("docs/releasing.md", "a step of a release"): 7,
        ("docs/metrics.md", "configuration of Prometheus"): 2,
        ("docs/metrics.md", "needs systemd and root"): 1,
        ("docs/systemd.md", "a part of a systemd unit"): 1,
        ("docs/systemd.md", "needs systemd"): 1,
        ("docs/systemd.md", "needs systemd and root"): 2,
        ("docs/tutorial.md", "needs a package index"): 1,
        ("docs/webhooks.md", "configuration of the other registry"): 2,
    }
)
"""All that no test runs, and why."""

RUN_BY = Counter(
    {
        ("README.md", "console", "tests/e2e/test_docs.py"): 1,
        ("docs/notifications.md", "http", "tests/unit/docs/test_notifications.py"): 1,
        ("docs/notifications.md", "json", "tests/unit/docs/test_notifications.py"): 1,
        ("docs/notifications.md", "python", "tests/unit/docs/test_notifications.py"): 1,
    }
)
"""All that a test of its own runs."""

FLAGS = {
    command.name: {name for argument in command.arguments for name in argument.names}
    for command in COMMANDS
}
KITD = {
    usage.split()[0]: set(re.findall(r"--[a-z-]+", usage))
    for usage in re.findall(r"^\| `kitd ([^`]+)` \|", text_of("docs/commands.md"), re.MULTILINE)
}
TARGETS = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
OPTIONS = set(
    re.findall(
        r"^\| `([^`]+)` \|",
        text_of("docs/configuration.md").partition("## Options")[2].partition("\n## ")[0],
        re.MULTILINE,
    )
)
NAMES = {
    *EVENT_TYPES,
    *(method.name for method in METHODS),
    *yaml.safe_load(text_of("docs/log-events.yaml")),
}
EVERYWHERE = {"--json", "--quiet", "--socket", "--help", "-h"}


def pieces():
    for page in PAGES:
        yield from blocks(page)


def prose(page):
    """Return a page without its blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def anchors(page):
    """Return what a forge calls the headings of a page."""
    found = Counter()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        yield slug if not found[slug] else f"{slug}-{found[slug]}"
        found[slug] += 1


def test_what_is_not_run_says_so_and_is_listed_here():
    """A new marker is a line more above: none is silent."""
    marked = [block for block in pieces() if block.marker is not None]
    not_run = Counter((b.page, b.marker[1]) for b in marked if b.marker[0] == "not run")
    assert not_run == NOT_RUN
    assert len(marked) == sum(markers(page) for page in PAGES), "a marker stands before no block"


def test_what_another_test_runs_is_asked_for_there():
    run_by = [b for b in pieces() if b.marker is not None and b.marker[0] == "run by"]
    assert Counter((b.page, b.language, b.marker[1]) for b in run_by) == RUN_BY
    for page, language, program in RUN_BY:
        assert f'run_elsewhere("{page}", "{language}")' in text_of(program)


def test_what_is_shown_of_an_answer_is_compared():
    """An answer that is left out as a whole is not shown at all."""
    steps = [(b.place, s) for b in pieces() if b.language == "console" for s in b.steps]
    assert [place for place, step in steps if step.output.strip() == "…"] == []


def test_all_others_are_in_a_language_that_is_run():
    for block in pieces():
        if block.marker is None:
            assert block.language in RUN | SHOWN, f"{block.place}: neither run nor marked"


def test_no_command_hides_in_what_is_only_shown():
    for block in pieces():
        if block.language in SHOWN:
            assert not re.search(r"^(\$|kitctl|kitd) ", block.text, re.MULTILINE), block.place


def test_nothing_is_installed_that_is_not_in_a_lock():
    """Neither what is needed nor, for kitd itself, what builds it."""
    installed = [
        command
        for block in pieces()
        for command in re.findall(r"pip\S* install (.*)$", block.text, re.MULTILINE)
    ]
    assert installed
    for options in map(str.split, installed):
        assert "--require-hashes" in options or {"--no-deps", "--no-build-isolation"} <= {*options}


def test_the_readme_names_what_the_runtime_needs():
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    (said,) = re.findall(r"The runtime needs (.*?)\.\n", text_of("README.md"), re.DOTALL)
    needed = [re.match(r"[\w-]+", line)[0] for line in project["dependencies"]]
    assert re.split(r",\s+|\s+and\s+", said) == needed


def test_the_service_knows_its_groups_and_lets_the_same_people_connect():
    """kitd does not start where a rule names a group that nobody made."""
    page = list(blocks("docs/how-to/service.md"))
    (config,) = [yaml.safe_load(b.text) for b in page if b.file == "/etc/kitd/kitd.yaml"]
    groups = {rule["group"] for rule in config["rpc"]["access"]}
    made = set(re.findall(r"^[ug] (\S+)", text_of("systemd/sysusers.d/kitd.conf"), re.MULTILINE))
    joined = {g for b in page for g in re.findall(r"usermod -aG (\S+) ada", b.text)}
    (let_in,) = re.findall(r"^SocketGroup=(.+)$", text_of("systemd/kitd.socket"), re.MULTILINE)

    assert groups <= made
    assert joined == groups == {let_in}


def test_the_menu_of_the_site_has_every_page_once():
    menu = yaml.safe_load(text_of("docs/site/navigation.yaml"))
    pages = [f"docs/{page}.md" for group in menu.values() for page in group]
    records = {page for page in PAGES if page.startswith("docs/adr/0")}
    assert sorted(pages) == sorted({*PAGES} - records - {"README.md", "docs/index.md"})


def test_every_page_is_led_to():
    """From docs/index.md, at once or by way of others."""
    found, ahead = set(), ["docs/index.md"]
    while ahead:
        page = ahead.pop()
        if page not in found:
            found.add(page)
            for target in re.findall(r"\]\(([^)#:\s]+\.md)", prose(page)):
                to = ((ROOT / page).parent / target).resolve()
                if to.is_relative_to(ROOT / "docs"):
                    ahead.append(str(to.relative_to(ROOT)))
    assert found == {*PAGES} - {"README.md"}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_headings_that_there_are(page):
    """Every relative link of a page names a file, and an anchor of it if it has one."""
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)]*))?\)", prose(page)):
        found = (ROOT / page).parent / target if target else ROOT / page
        # The site has no page for a directory.
        assert found.is_file(), f"{page} links to {target}"
        if anchor:
            there = str(found.resolve().relative_to(ROOT))
            assert anchor in set(anchors(there)), f"{page} links to {target}#{anchor}"


def options(inner):
    """Return the options in a command, without what belongs to them."""
    return re.findall(r"(?<=[ \[])-{1,2}[A-Za-z][A-Za-z-]*", inner)


def check_kitctl(place, inner):
    words = re.sub(r"^((--json|--quiet) )*", "", " ".join(inner.split())).split()
    if not words or words[0] in {*EVERYWHERE, "--version", "help"} or words[0].isupper():
        return
    name = " ".join(words[:2]) if " ".join(words[:2]) in FLAGS else words[0]
    group = any(command.startswith(f"{words[0]} ") for command in FLAGS)
    assert name in FLAGS or (group and len(words) == 1), f"{place}: kitctl {inner}"
    for flag in options(inner):
        assert flag in FLAGS.get(name, set()) | EVERYWHERE, f"{place}: kitctl {inner}"


def check_kitd(place, inner):
    words = inner.split()
    assert words[0] in KITD, f"{place}: kitd {inner}"
    assert set(options(inner)) <= KITD[words[0]], f"{place}: kitd {inner}"


def check_make(place, inner):
    plain = re.sub(r'"[^"]*"', "", inner.partition(" # ")[0])
    for word in plain.split():
        assert word in TARGETS or "=" in word, f"{place}: make {inner}"


CHECKS = {"kitctl": check_kitctl, "kitd": check_kitd, "make": check_make}


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_named_have_the_options_that_are_named(page):
    """In the text, and in blocks that nothing runs."""
    for program, inner in re.findall(r"`(kitctl|kitd|make) ([^`]+)`", prose(page)):
        CHECKS[program](page, inner)
    for block in blocks(page):
        if block.marker is not None and block.language in RUN:
            found = re.findall(
                r"^(?:\$ )?(?:sudo )?(kitctl|kitd|make) (.+)$", block.text, re.MULTILINE
            )
            for program, inner in found:
                CHECKS[program](block.place, inner)


@pytest.mark.parametrize("page", PAGES)
def test_keys_that_are_named_are_in_the_table_of_options(page):
    """`cache.leave_free`; what looks like one may also be an event or a method of the socket."""
    heads = {key.partition(".")[0] for key in OPTIONS}
    for code in re.findall(r"`([a-z_]+(?:\.[a-z_<>\[\]]+)+):?`", prose(page)):
        first, *_, last = code.split(".")
        if first in heads and last not in ("py", "lock", "com"):
            known = any(key == code or key.startswith(f"{code}.") for key in OPTIONS)
            assert known or code in NAMES, f"{page}: {code}"


def test_links_are_written_where_they_are():
    """Nothing here checks where those lead that have their targets at the end of a page."""
    for page in PAGES:
        assert not re.search(r"^ *\[[^]]+\]:", prose(page), re.MULTILINE), page


def test_what_a_reload_applies_is_what_is_said():
    page = text_of("docs/configuration.md")
    (said,) = re.findall(
        r"What a reload applies, with all that is below: (.*?)\.\s", page, re.DOTALL
    )
    assert tuple(re.findall(r"`([^`]+)`", said)) == LIVE


def test_exit_codes_of_the_daemon_are_those_of_the_program():
    """2 is argparse's, 130 and 143 are those of its signals."""
    table = text_of("docs/systemd.md").partition("## Exit codes")[2]
    codes = re.findall(r"^\| (\d[\d, ]*) \|", table, re.MULTILINE)
    own = [0, 2, EX_SOFTWARE, EX_IOERR, EX_TEMPFAIL, EX_CONFIG]
    signals = [128 + SIGINT, 128 + SIGTERM]
    assert [int(code) for cell in codes for code in cell.split(",")] == own + signals


def test_likeness_forgives_what_is_measured_and_nothing_else():
    assert is_like("job 12 done in 3.5 s\n", "job 7   done in 12 ms\n")
    assert is_like("pid 7, 14.3 KiB, 2s ago\n", "pid 4711, 2 KiB, just now\n")
    assert is_like("sha256:0123456789abcdef a\n…\nz\n", "sha256:ffff56789 a\nb\nc\nz\n")
    assert is_like("a … z\n", "a b c z\n")
    assert not is_like("job 12 done\n", "job 12 failed\n")
    assert not is_like("a\n", "a\nb\n")
    assert not is_like("a\n…\nz\n", "a\nb\n")


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("2 s", "3 d"),
        ("2s ago", "2h ago"),
        ("5 B", "5 GiB"),
        ("1.5 KiB", "1.5 MiB"),
        ("exit 0", "exit 70"),
        ("exit code 1", "exit code 2"),
        ("9 blobs", "4 blobs"),
        ("   9   blobs", "   4   blobs"),
        ("1,024 files", "2,024 files"),
        ("3 layers, 2 reused", "3 layers, 1 reused"),
        ("schema 10", "schema 12"),
        ("a\n…\nz", "a\nz"),
        ("a … z", "a z"),
        ("…", ""),
    ],
)
def test_likeness_minds_units_and_how_many(shown, printed):
    assert is_like(shown, shown)
    assert not is_like(f"{shown}\n", f"{printed}\n")
