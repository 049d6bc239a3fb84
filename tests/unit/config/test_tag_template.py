from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from kitd.config.problem import InvalidValueError
from kitd.config.tag_template import Omission, TagContext, parse_tag_template, render_tag
from kitd.oci.digest import Digest

CONTEXT = TagContext(
    project="sentiment",
    digest=Digest("sha256:" + "0123456789abcdef" * 4),
    time=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    package_version="1.0+cu121",
    git_commit="f" * 40,
)


@pytest.mark.parametrize(
    ("template", "tag"),
    [
        ("latest", "latest"),
        ("{package.version}", "1.0-cu121"),
        ("v{package.version}-{project}", "v1.0-cu121-sentiment"),
        ("{time:%Y%m%d-%H%M%S}", "20260102-030405"),
        ("{time}", "20260102-030405"),
        ("{time:week-%G.%V}", "week-2026.01"),
        ("{digest:8}", "01234567"),
        ("{digest}", "0123456789ab"),
        ("{git.commit:7}", "fffffff"),
        ("{git.commit}", "ffffffffffff"),
    ],
)
def test_placeholders_are_filled_in(template: str, tag: str) -> None:
    parsed = parse_tag_template(template)
    assert str(parsed) == template
    assert render_tag(parsed, CONTEXT) == tag


def test_times_are_utc() -> None:
    there = CONTEXT.time.astimezone(timezone(timedelta(hours=9)))
    tag = render_tag(parse_tag_template("{time:%H}"), replace(CONTEXT, time=there))
    assert tag == "03"


@pytest.mark.parametrize(
    ("version", "tag"),
    [("+1", "1"), (".1", "1"), ("1/2 3", "1-2-3"), ("ü1", "1"), ("x" * 200, "x" * 128)],
)
def test_a_value_is_made_a_valid_tag(version: str, tag: str) -> None:
    context = replace(CONTEXT, package_version=version)
    assert render_tag(parse_tag_template("{package.version}"), context) == tag


@pytest.mark.parametrize(
    ("template", "changes", "reason"),
    [
        ("v{package.version}", {"package_version": None}, "the kit has no package.version"),
        ("v{package.version}", {"package_version": ""}, "the kit has no package.version"),
        ("{git.commit}", {"git_commit": None}, "the kit has no git.commit"),
        ("{package.version}", {"package_version": "+"}, "'-' is not a tag"),
    ],
)
def test_a_template_without_a_value_is_left_out_with_the_reason(
    template: str, changes: dict[str, str | None], reason: str
) -> None:
    parsed = parse_tag_template(template)
    assert render_tag(parsed, replace(CONTEXT, **changes)) == Omission(parsed, reason)


@pytest.mark.parametrize(
    "template",
    [
        "",
        "-v1",
        ".v1",
        "a b",
        "team/v1",
        "x" * 129,
        "{",
        "{digest",
        "digest}",
        "{{digest}}",
        "{}",
        "{commit}",
        "{digest:}",
        "{digest:0}",
        "{digest:100}",
        "{digest:x}",
        "{project:3}",
        "{time:%A}",
        "{time:%}",
        "{time:%H:%M}",
    ],
)
def test_templates_that_can_give_no_tag_are_refused(template: str) -> None:
    with pytest.raises(InvalidValueError):
        parse_tag_template(template)
