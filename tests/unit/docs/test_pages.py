"""Every block of every page is run or says why not; links and commands in the text are right."""

import re
import tomllib
from collections import Counter

import pytest
import yaml

from docs_runner.likeness import is_like
from docs_runner.page import PAGES, ROOT, RUN, SHOWN, blocks, markers
from kitd.ctl.command import COMMANDS

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
        ("docs/releasing.md", "a step of a release"): 5,
        ("docs/metrics.md", "configuration of Prometheus"): 1,
        ("docs/systemd.md", "a part of a systemd unit"): 1,
        ("docs/systemd.md", "needs systemd"): 1,
        ("docs/systemd.md", "needs systemd and root"): 2,
        ("docs/tutorial.md", "needs a package index"): 1,
        ("docs/webhooks.md", "configuration of the other registry"): 2,
    }
)
"""All that no test runs, and why."""

FLAGS = {
    command.name: {name for argument in command.arguments for name in argument.names}
    for command in COMMANDS
}
EVERYWHERE = {"--json", "--quiet", "--socket", "--help", "-h"}


def pieces():
    for page in PAGES:
        yield from blocks(page)


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


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


def test_what_another_test_runs_is_run_there():
    for block in pieces():
        if block.marker is not None and block.marker[0] == "run by":
            program = (ROOT / block.marker[1]).read_text(encoding="utf-8")
            assert block.page.rpartition("/")[2].removesuffix(".md").lower() in program.lower()


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


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_named_have_the_options_that_are_named(page):
    for inner in re.findall(r"`kitctl ([^`]+)`", prose(page)):
        words = re.sub(r"^((--json|--quiet) )*", "", " ".join(inner.split())).split()
        if not words or words[0] in EVERYWHERE or words[0].isupper():
            continue
        name = " ".join(words[:2]) if " ".join(words[:2]) in FLAGS else words[0]
        group = any(command.startswith(f"{words[0]} ") for command in FLAGS)
        assert name in FLAGS or (group and len(words) == 1), f"{page}: kitctl {inner}"
        for flag in re.findall(r"(?<= )--[a-z-]+", inner):
            assert flag in FLAGS.get(name, set()) | EVERYWHERE, f"{page}: kitctl {inner}"


def test_likeness_forgives_numbers_and_nothing_else():
    assert is_like("job 12 done in 3.5 s\n", "job 7   done in 12 ms\n")
    assert is_like("sha256:0123456789abcdef a\n…\nz\n", "sha256:ffff56789 a\nb\nc\nz\n")
    assert is_like("a … z\n", "a b c z\n")
    assert not is_like("job 12 done\n", "job 12 failed\n")
    assert not is_like("a\n", "a\nb\n")
    assert not is_like("a\n…\nz\n", "a\nb\n")
