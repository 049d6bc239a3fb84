"""Command lines, and the table that they are read by."""

import inspect
import re

import pytest

from kitd.client.reference import has_registry, split_tags
from kitd.ctl import help as texts
from kitd.ctl.command import COMMANDS
from kitd.ctl.command_line import (
    Options,
    build_parser,
    find_command,
    parse_arguments,
    split_options,
)
from kitd.ctl.error import UsageError


def test_options_of_every_command_may_stand_anywhere():
    options, rest = split_options(["--socket", "/s", "jobs", "--json", "list", "-q"])
    assert options == Options("/s", json=True, quiet=True)
    assert rest == ["jobs", "list"]
    assert split_options(["--socket=/s"])[0].socket == "/s"


def test_words_after_two_dashes_are_left_alone():
    assert split_options(["why", "--", "--json"]) == (Options(), ["why", "--", "--json"])


def test_what_other_programs_take_for_help_and_version_is_taken():
    assert split_options(["--json", "--version"]) == (Options(json=True), ["version"])
    assert split_options(["help"]) == (Options(help=True), [])
    assert split_options(["help", "jobs", "wait"]) == (Options(help=True), ["jobs", "wait"])


@pytest.mark.parametrize("words", [["--socket"], ["--socket", ""], ["--socket="]])
def test_an_option_without_its_value_is_refused(words):
    with pytest.raises(UsageError, match="--socket"):
        split_options(words)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["stauts"], "did you mean status?"),
        (["jobs", "lst"], "did you mean list?"),
        (["jobs"], "one of: list, show, wait, cancel, retry, log"),
        (["mirror"], "one of: run, list, edges"),
        (["mirror", "rnu", "prod"], "did you mean run?"),
        (["xyzzy"], "see: kitctl --help"),
    ],
)
def test_an_unknown_command_is_refused_with_the_nearest(words, hint):
    with pytest.raises(UsageError) as caught:
        find_command(words)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("status", {"watch": False}),
        ("status -w", {"watch": True}),
        ("jobs wait 12 --timeout 2m", {"job": 12, "timeout": 120.0}),
        (
            "pack . -t r:v1 --push",
            {
                "directory": ".",
                "tag": "r:v1",
                "kitfile": None,
                "compression": None,
                "layer_format": None,
                "model_pack": False,
                "push": True,
                "detach": False,
            },
        ),
        ("push a", {"reference": "a", "target": None, "with_parents": False, "detach": False}),
        (
            "unpack r -f model -f docs:x -i",
            {
                "reference": "r",
                "dir": None,
                "filter": ["model", "docs:x"],
                "overwrite": False,
                "ignore_existing": True,
                "include_remote": False,
            },
        ),
        (
            "mirror run prod --thorough",
            {
                "name": "prod",
                "dry_run": False,
                "thorough": True,
                "allow_deletes": False,
                "detach": False,
            },
        ),
        (
            "mirror a.example.com/m b.example.com/m --tags v* --tags latest --dry-run",
            {
                "source": "a.example.com/m",
                "target": "b.example.com/m",
                "tags": ["v*", "latest"],
                "dry_run": True,
                "detach": False,
            },
        ),
        (
            "mirror --detach a.example.com/run b.example.com/m",
            {
                "source": "a.example.com/run",
                "target": "b.example.com/m",
                "tags": [],
                "dry_run": False,
                "detach": True,
            },
        ),
        ("events --since 5", {"follow": False, "since": 5}),
        (
            "webhooks replay 3 1 2",
            {"deliveries": [3, 1, 2], "since": None, "source": None},
        ),
        (
            "webhooks replay --since 2h --source a",
            {"deliveries": [], "since": 7200.0, "source": "a"},
        ),
        (
            "webhooks replay --since 2026-11-20T08:00:00Z",
            {"deliveries": [], "since": "2026-11-20T08:00:00Z", "source": None},
        ),
    ],
)
def test_arguments_are_read(line, expected):
    command, rest = find_command(line.split())
    assert parse_arguments(command, rest) == expected


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_command_to_which_nothing_is_said_has_what_its_parser_says(command):
    try:
        parsed = vars(build_parser(command).parse_args([]))
    except UsageError:
        with pytest.raises(UsageError):
            parse_arguments(command, [])
    else:
        assert parse_arguments(command, []) == parsed


@pytest.mark.parametrize(
    "line",
    [
        "status now",
        "pack .",
        "pack -t r",
        "pack . -t r --pus",
        "pack . -t r --compression lzma",
        "jobs show x",
        "jobs wait 12 --timeout soon",
        "jobs list --state done",
        "jobs list --kind pakc",
        "push a b c",
        "mirror a.example.com/m",
        "mirror run",
        "mirror list prod",
        "completion tcsh",
        "webhooks replay one",
        "webhooks replay --since yesterday",
        "webhooks list --state lost",
        "events --nonsense",
    ],
)
def test_what_a_command_does_not_take_is_refused(line):
    command, rest = find_command(line.split())
    with pytest.raises(UsageError):
        parse_arguments(command, rest)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_a_function_that_takes_its_arguments(command):
    parameters = inspect.signature(command.load()).parameters
    assert next(iter(parameters)) == "session"
    assert {*parameters} - {"session"} == {argument.parameter for argument in command.arguments}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_help_with_an_example_that_parses(command):
    assert f"example: kitctl {command.example}" in texts.command_help(command)
    found, rest = find_command(command.example.partition(" >")[0].split())
    assert found is command
    parse_arguments(found, rest)


@pytest.mark.parametrize(
    ("line", "words", "hint"),
    [
        ("status --wacth", "status takes no option '--wacth'", "did you mean --watch?"),
        ("pack . -t r --pus", "pack takes no option '--pus'", "did you mean --push?"),
        ("status now", "status takes no argument 'now'", "kitctl status --help"),
        ("jobs show x", "'x' is not a number", "kitctl jobs show --help"),
        ("jobs show 0", "'0' is not a number from 1 up", "kitctl jobs show --help"),
        ("jobs show ١", "'١' is not a number", "kitctl jobs show --help"),
        ("jobs show 9223372036854775808", "is more than 9223372036854775807", None),
        (f"jobs show {'9' * 5000}", "is more than 9223372036854775807", None),
        ("jobs list -n 0", "-n/--limit: '0' is not a number from 1 up", None),
        ("jobs list -n -5", "'-5' is not a number from 1 up", None),
        ("webhooks list -n 0", "'0' is not a number from 1 up", None),
        ("webhooks replay 1 0", "ID: '0' is not a number from 1 up", None),
        ("mirror edges prod -n 1001", "1001 is more than 1000", None),
        ("events --since -1", "'-1' is not a number from 0 up", None),
        (
            "jobs wait 12 --timeout soon",
            "--timeout: 'soon' is not a duration",
            "write it like 500ms, 2s, 15m or 1h30m",
        ),
    ],
)
def test_a_mistake_is_told_with_what_to_type(line, words, hint):
    command, rest = find_command(line.split())
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        parse_arguments(command, rest)
    assert caught.value.hint == (hint or f"kitctl {command.name} --help")


def test_the_help_of_a_word_that_is_a_command_and_begins_others_has_all_of_them():
    shown = texts.overview("mirror")
    assert "mirror run " in shown
    assert "--tags GLOB" in shown


@pytest.mark.parametrize("line", ["pack . -t r", "import a/b", "projects add s . -t r"])
@pytest.mark.parametrize("name", ["-f", "--file", "--kitfile"])
def test_a_kitfile_is_named_alike_everywhere(line, name):
    command, rest = find_command([*line.split(), name, "Kitfile.prod"])
    assert parse_arguments(command, rest)["kitfile"] == "Kitfile.prod"


def test_the_overview_names_every_command():
    assert all(f"  {command.name} " in texts.overview() for command in COMMANDS)
    assert "jobs wait" in texts.overview("jobs")
    assert "projects" not in texts.overview("jobs")


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("team/m", ("team/m", ())),
        ("team/m:v1", ("team/m", ("v1",))),
        ("host:5000/m", ("host:5000/m", ())),
        ("host:5000/m:v1,latest", ("host:5000/m", ("v1", "latest"))),
    ],
)
def test_tags_are_split_from_the_repository(text, split):
    assert split_tags(text) == split


@pytest.mark.parametrize(
    ("text", "remote"),
    [
        ("m:v1", False),
        ("team/m:v1", False),
        ("localhost/m", False),
        ("localhost:5000/m", True),
        ("r.example.com/m", True),
    ],
)
def test_only_references_with_a_registry_can_be_pulled(text, remote):
    assert has_registry(text) is remote
