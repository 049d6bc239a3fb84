from pathlib import Path

import yaml
from hypothesis import given
from hypothesis import strategies as st

from kitd.config.model import Config
from kitd.config.parse import parse_config
from kitd.config.places import Place, Places
from kitd.config.problem import ConfigError, InvalidValueError
from kitd.config.quantity import format_duration, format_size, parse_duration, parse_size
from kitd.config.schedule import parse_schedule
from kitd.config.show import show_config
from kitd.config.tag_template import TagContext, parse_tag_template, render_tag
from kitd.errors import KitdError
from kitd.mirror.schedule import Cron
from kitd.oci.digest import digest_of
from kitd.oci.reference import check_tag

PLACES = Places(
    config=Place("/etc/kitd/kitd.yaml", is_explicit=False),
    state_dir=Place("/var/lib/kitd", is_explicit=False),
    socket=Place("/run/kitd/kitd.sock", is_explicit=False),
    home="/home/ada",
)
EXAMPLE = (Path(__file__).parents[3] / "config" / "kitd.example.yaml").read_bytes()

WORDS = st.sampled_from(
    ["log", "level", "projects", "path", "/srv/s", "r.example/s", "true", "null", "2s", "*", "{}"]
)
SCALARS = st.one_of(WORDS, st.text(max_size=8), st.none(), st.booleans(), st.integers())
TREES = st.recursive(
    SCALARS,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(WORDS, below, max_size=4),
    max_leaves=20,
)


def parse(content: bytes) -> Config | ConfigError:
    try:
        return parse_config(content, source="f", places=PLACES)
    except ConfigError as error:
        return error


def check(content: bytes) -> None:
    """Fail unless it is a configuration that can be shown, or problems of one line each."""
    found = parse(content)
    if isinstance(found, ConfigError):
        assert found.lines
        assert all(line.splitlines() == [line] for line in (*found.lines, found.message))
        return
    shown = show_config(found)
    again = parse_config(yaml.safe_dump(shown).encode(), source="shown", places=PLACES)
    assert show_config(again) == shown


@given(st.binary(max_size=200))
def test_any_bytes_are_a_configuration_or_a_config_error(content: bytes) -> None:
    check(content)


@given(st.text(alphabet="abl: -[]{}&*!|>'\"%@#\\?,\n\t\r\u2028é\x00~<", max_size=60))
def test_any_text_is_a_configuration_or_a_config_error(text: str) -> None:
    check(text.encode())


@given(TREES)
def test_any_tree_is_a_configuration_or_a_config_error(tree: object) -> None:
    check(yaml.safe_dump(tree).encode())


@given(st.integers(0, len(EXAMPLE) - 1), st.binary(max_size=3), st.integers(0, 12))
def test_a_damaged_example_is_a_configuration_or_a_config_error(
    position: int, inserted: bytes, removed: int
) -> None:
    check(EXAMPLE[:position] + inserted + EXAMPLE[position + removed :])


@given(st.integers(0, 366 * 86_400_000))
def test_durations_come_back(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@given(st.integers(0, 2**63 - 1))
def test_sizes_come_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.text(alphabet="0123456789*/,- ajnsumonh", max_size=30))
def test_any_schedule_is_one_or_an_error(text: str) -> None:
    try:
        schedule = parse_schedule(text)
    except KitdError:
        return
    shown = str(schedule) if isinstance(schedule, Cron) else format_duration(schedule.every_s)
    assert parse_schedule(shown) == schedule


@given(
    st.text(alphabet="{}:%Ymdabc.-_ ", max_size=12)
    | st.lists(
        st.sampled_from(["v", "-", ".", "{project}", "{package.version}", "{digest:9}"]),
        max_size=5,
    ).map("".join),
    st.text(max_size=150),
    st.datetimes(),
)
def test_what_a_template_renders_is_a_tag(text: str, version: str, time) -> None:
    context = TagContext(
        project="p", digest=digest_of(b""), time=time.astimezone(), package_version=version
    )
    try:
        template = parse_tag_template(text)
    except InvalidValueError:
        return
    rendered = render_tag(template, context)
    if isinstance(rendered, str):
        assert check_tag(rendered) == rendered
