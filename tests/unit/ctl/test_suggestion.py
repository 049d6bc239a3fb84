"""What shells are told may come next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitd.ctl.command import COMMANDS, JOB_KINDS
from kitd.ctl.suggestion import constant_values, split_line, wanted
from kitd.jobs.collect import COLLECT
from kitd.jobs.import_kit import IMPORT
from kitd.jobs.mirror.kind import MIRROR
from kitd.jobs.pack import PACK
from kitd.jobs.pull import PULL
from kitd.jobs.push import PUSH
from kitd.jobs.survey import SURVEY
from kitd.jobs.verify import VERIFY


def offered(line):
    found = wanted(split_line(line))
    words = [*found.known, *(constant_values(found.argument) if found.argument else ())]
    return [found.before + each.word for each in words if each.word.startswith(found.typed)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sta", ["status"]),
        ("jobs w", ["wait"]),
        ("--json jobs --quiet re", ["retry"]),
        ("pack --comp", ["--compression"]),
        ("pack . -t x --compression gz", ["gzip", "gzip-fastest"]),
        ("jobs list --state=f", ["--state=failed"]),
        ("jobs list --kind p", ["pack", "push", "pull"]),
        ("mirror ed", ["edges"]),
        ("mirror --ta", ["--tags"]),
        ("mirror a/b --ta", ["--tags"]),
        ("mirror a/b c/d --tags x --ta", ["--tags"]),
        ("mirror run --th", ["--thorough"]),
        ("pack . --push --pu", []),
        ("unpack team/m:v1 -f mo", ["model"]),
        ("completion z", ["zsh"]),
        ("nonsense ", []),
        ("status -- --js", []),
        ("jobs nonsense l", []),
        ("--so", ["--socket"]),
        ("--v", ["--version"]),
        ("he", ["help"]),
        ("help jobs w", ["wait"]),
        ("help sta", ["status"]),
        ("jobs --v", []),
    ],
)
def test_commands_options_and_constant_values_are_offered(line, words):
    assert offered(line) == words


@pytest.mark.parametrize(
    ("line", "values", "typed"),
    [
        ("jobs show ", "job", ""),
        ("diff a:v1 te", "compared kit", "te"),
        ("diff local://te", "compared kit", "te"),
        ("push local://te", "kit", "local://te"),
        ("jobs cancel 1", "open job", "1"),
        ("projects hold s", "project", "s"),
        ("projects add s ", "directory", ""),
        ("jobs list --project se", "project", "se"),
        ("mirror run ", "mirror", ""),
        ("push --with-parents team/", "kit", "team/"),
        ("webhooks replay 1 2 ", "delivery", ""),
        ("pack . -f ", "file", ""),
        ("--socket /run/", "file", "/run/"),
        ("why -- -x", "subject", "-x"),
    ],
)
def test_what_the_daemon_or_the_shell_knows_is_named(line, values, typed):
    found = wanted(split_line(line))
    assert (found.argument.values, found.typed) == (values, typed)


def test_the_daemon_that_is_named_on_the_way_is_asked():
    assert wanted(split_line("--socket /a jobs show ")).socket == "/a"
    assert wanted(split_line("jobs show --socket=/b ")).socket == "/b"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", [""]),
        ("a b ", ["a", "b", ""]),
        ("a 'b c", ["a", "b c"]),
        ("a b\\ c", ["a", "b c"]),
        ('a "b\\"c" ""', ["a", 'b"c', ""]),
        ("a '\\n'", ["a", "\\n"]),
    ],
)
def test_a_line_is_read_as_a_shell_does(line, words):
    assert split_line(line) == words


def test_the_kinds_of_jobs_are_those_of_the_daemon():
    kinds = (PACK, PUSH, PULL, MIRROR, SURVEY, IMPORT, COLLECT, VERIFY)
    assert tuple(kind.name for kind in kinds) == JOB_KINDS


@given(st.text(max_size=80))
def test_whatever_is_typed_is_no_error(line):
    wanted(split_line(line))


@given(st.lists(st.sampled_from([*(w for c in COMMANDS for w in c.words), "--", "-f", "x"])))
def test_any_order_of_words_is_no_error(words):
    wanted(words)
