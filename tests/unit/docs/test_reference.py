"""The reference pages say what the code says."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import yaml

from kitd.hold import HOLD_FILE
from kitd.packing.gate import incomplete
from kitd.packing.gate.judgement import GATES
from kitd.packing.gate.tree import TOOLS
from kitd.secret_file import MIN_SHARED_BYTES
from kitd.webhooks.formats import FORMATS
from kitd.webhooks.receiver import UNKNOWN_MAX_BYTES
from kitd.webhooks.server import BOUNDS, BodyBounds

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def reference():
    """The program that writes the pages."""
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    module = importlib.util.module_from_spec(spec)
    # Where its dataclasses look for their annotations.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize(
    "name", ["errors.md", "rpc.md", "commands.md", "events.md", "logs.md", "metrics.md"]
)
def test_a_page_is_what_the_code_gives(reference, name):
    """`make docs` would change nothing."""
    assert (DOCS / name).read_text(encoding="utf-8") == reference.PAGES[name]()


def test_every_event_of_the_log_is_explained(reference):
    """docs/log-events.yaml has a meaning for each event that the code logs, and for no other."""
    meanings = yaml.safe_load((DOCS / "log-events.yaml").read_text(encoding="utf-8"))
    logged = reference.log_events()

    assert set(meanings) == set(logged)
    assert all(isinstance(meaning, str) and meaning for meaning in meanings.values())
    assert all(re.fullmatch(r"[a-z]+\.[a-z_]+", event) for event in logged)
    # Those that get their names from a caller, from one of two, and from an exception.
    assert {"ledger.not_swept", "queue.stalled", "webhook.not_kept"} <= set(logged)
    assert {"project.blocked", "project.unblocked", "feed.left", "upload.lost"} <= set(logged)
    assert logged["upload.lost"].fields == {"repository", "digest", "received", "error"}


def test_the_code_map_names_every_room():
    """docs/architecture.md has a row for each package and module of kitd."""
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    package = DOCS.parent / "kitd"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    modules = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    named = set(re.findall(r"`(?:kitd/)?([a-z_]+(?:\.py)?)`", page))

    assert rooms - named == set()
    assert modules - named == set()


def test_links_between_pages_lead_somewhere():
    """Every relative link of every page names a file."""
    for page in [*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_gate_is_explained():
    """docs/settling.md has a row for each reason that can hold a project back."""
    page = (DOCS / "settling.md").read_text(encoding="utf-8")
    table = page[page.index("| gate | holds while |") : page.index("*Young*")]
    gates = [*(gate.name for gate in GATES), *(tool for tool, _ in TOOLS)]

    explained = re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE)
    assert sorted(explained) == sorted([HOLD_FILE, incomplete.NAME, *gates])


def test_every_webhook_format_is_explained():
    """docs/webhooks.md has a row and a section for each format."""
    page = (DOCS / "webhooks.md").read_text(encoding="utf-8")

    rows = re.findall(r"^\| `([a-z]+)` \|", page, re.MULTILINE)
    assert rows == re.findall(r"^### ([a-z]+)$", page, re.MULTILINE)
    assert sorted(rows) == sorted(FORMATS)
    guide = (DOCS / "how-to" / "webhooks.md").read_text(encoding="utf-8")
    led_to = re.findall(r"\(\.\./webhooks\.md#([a-z]+)\)", guide)
    assert sorted({*led_to, "distribution"}) == sorted(FORMATS)


def test_the_bounds_of_webhooks_are_those_that_are_kept():
    """docs/webhooks.md says what strangers can take, and each format's largest body."""
    page = (DOCS / "webhooks.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"What a stranger can take is bounded: (.*?)\.\n", page, re.DOTALL)
    bodies, mib = BodyBounds(), 1 << 20

    assert list(map(int, re.findall(r"\d+", said))) == [
        BOUNDS.connections,
        BOUNDS.keepalive_s,
        bodies.idle_s,
        bodies.total_s,
        BOUNDS.unread_s,
        UNKNOWN_MAX_BYTES // mib,
        bodies.held_bytes // mib,
        2 * BOUNDS.read_bytes // 1024,
    ]
    rows = re.findall(r"^\| `([a-z]+)` \|.*\| (\d+) MiB \|$", page, re.MULTILINE)
    assert {name: int(size) * mib for name, size in rows} == {
        name: form.max_bytes for name, form in FORMATS.items()
    }
    assert f"has fewer than {MIN_SHARED_BYTES} bytes" in page
