import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from kitd.config.model import Config
from kitd.config.parse import parse_config
from kitd.config.places import Places
from kitd.config.show import show_config
from kitd.daemon.translation import mirror_rules
from kitd.mirror.order import Conflicts

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "config" / "kitd.example.yaml"
REFERENCE = ROOT / "docs" / "configuration.md"
PLACES = {"state_dir", "rpc.socket", "cache.dir"}
"""Their defaults are said in a table of their own."""
# One of everything that has a name, with nothing set that has a default.
SPARSE = """
rpc: {access: [{group: ml, role: read}]}
registries: {s.example: {mirrors: [{location: m.example}]}, r.example: {}}
projects: {s: {path: /srv/s, reference: r.example/s}}
mirrors: {m: {source: a.example/x, targets: [b.example/x]}}
webhooks: {sources: {h: {format: harbor, registry: r.example, secret_file: /secret}}}
notifications: {n: {url_file: /secret}}
"""
NAMED = ("registries", "projects", "mirrors", "webhooks.sources", "notifications")


def leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every value with its dotted key; chosen names become `<name>`, list positions `[]`."""
    if isinstance(value, dict):
        for key, item in value.items():
            name = "<host>" if path == "registries" else "<name>" if path in NAMED else key
            yield from leaves(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        yield path, value
        for item in value:
            yield from leaves(item, f"{path}[]")
    else:
        yield path, value


@pytest.fixture
def example(places: Places) -> Config:
    return parse_config(EXAMPLE.read_bytes(), source=EXAMPLE.name, places=places)


def test_the_example_is_valid(example: Config) -> None:
    assert set(example.projects) == {"sentiment"}


def test_the_example_has_every_option(options: dict[str, bool]) -> None:
    shown = {path for path, _ in leaves(yaml.safe_load(EXAMPLE.read_text()))}
    assert shown == set(options)


def test_what_is_shown_means_the_same(example: Config, places: Places) -> None:
    """`kitctl config show` prints a configuration that could be the file, but for URLs."""
    shown = show_config(example)
    ci = shown["notifications"]["ci"]
    assert ci["url"] == "https://ci.example.com/[redacted]"
    ci["url"] = example.notifications["ci"].url.url
    again = parse_config(yaml.safe_dump(shown).encode(), source="shown", places=places)
    assert again == example
    assert show_config(again) == show_config(example)


def test_the_reference_has_every_option_with_its_default(
    options: dict[str, bool], parse: Callable[[str], Config]
) -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (.+?) \| .+ \|$", REFERENCE.read_text(), re.MULTILINE)
    documented = {key: cell for key, cell in rows if "{" not in key}
    assert set(documented) == set(options)

    defaults = dict(leaves(show_config(parse(SPARSE)))) | dict(leaves(show_config(parse(""))))
    # One of two is given, so no configuration shows both defaults.
    defaults |= {"rpc.access[].group": None, "rpc.access[].uid": None}
    defaults |= {"notifications.<name>.url": None, "notifications.<name>.url_file": None}
    for key, cell in documented.items():
        if key in PLACES:
            assert cell == "see Places", key
        elif not options[key]:
            assert cell == "required", key
        else:
            assert yaml.safe_load(cell.strip("`")) == defaults[key], key


def test_the_examples_of_mirrors_are_valid(parse: Callable[[str], Config]) -> None:
    """Each block of docs/mirrors.md is a configuration; rules of one block fit together."""
    page = (ROOT / "docs" / "mirrors.md").read_text()
    examples = re.findall(r"^```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    configs = [parse(example) for example in examples]

    assert all(config.mirrors for config in configs)
    rules = {rule.name: rule for config in configs for rule in mirror_rules(config)}
    assert rules["to-lab"].conflicts is Conflicts.OVERWRITE
    assert rules["from-lab"].conflicts is Conflicts.KEEP
    assert rules["exact"].grace_s == 7200.0
