"""Patterns of .kitignore."""

import pytest

from kitd.client import staging
from kitd.modelkit.errors import KitignoreError
from kitd.modelkit.ignore import (
    MAX_PATIENT,
    MAX_PATTERNS,
    MAX_WILDCARDS,
    STAGING_PREFIX,
    UNDECIDED,
    IgnoreRules,
)

STAGING = STAGING_PREFIX + "0123456789abcdef"


@pytest.mark.parametrize(
    ("patterns", "ignored", "kept"),
    [
        ("a", ["a", "a/b", "a/b/c"], ["b/a", "ab"]),
        ("/a/", ["a", "a/b"], ["b/a"]),
        ("./a/../b", ["b"], ["a"]),
        ("*.py", ["x.py", ".py", "d.py/x"], ["a/x.py", "x.pyc", "xpy"]),
        ("**/*.py", ["x.py", "a/x.py", "a/b/x.py"], ["x.pyc"]),
        ("**/*é", ["é", "aé", "d/aé", "aé/x"], ["éa", "d/éa"]),
        ("**/*a/b", ["a/b", "xa/b", "d/xa/b"], ["b", "ac/b"]),
        ("**/*", ["a", "a/b"], []),
        ("**/**", ["a", "a/b"], []),
        ("**/**x", ["x", "a/x"], ["ax", "xa"]),
        ("**/foo", ["foo", "a/foo", "a/foo/b"], ["xfoo", "a/xfoo"]),
        ("**foo", ["foo", "xfoo", "a/foo"], ["fooqux"]),
        ("**", ["a", "a/b"], []),
        ("dir/**", ["dir/a", "dir/a/b"], ["dir", "dirx/a"]),
        ("dir**", ["dir", "dirx", "dir/a"], ["di"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["b", "ab"]),
        ("a/*/b", ["a/x/b"], ["a/b", "a/x/y/b"]),
        ("a?c", ["abc", "aéc", "a\udcffc"], ["ac", "a/c", "abbc"]),
        ("[a-c]x", ["ax", "cx"], ["dx"]),
        ("y[^a]x", ["ybx", "y/x"], ["yax"]),
        ("[!a]x", ["!x", "ax"], ["bx"]),
        (r"[\]a]x", ["]x", "ax"], ["bx"]),
        ("[*]x", ["*x"], ["ax"]),
        (r"\#x", ["#x"], ["x"]),
        (r"\!x", ["!x"], ["x"]),
        (r"\*", ["*"], ["a"]),
        ("a.b+(c)|{d}$", ["a.b+(c)|{d}$"], ["aXb+(c)|{d}$"]),
        ("a]*", ["a]", "a]b"], ["ab"]),
        ("x*y*z", ["xyz", "xayyz", "xyayz"], ["xy/z", "xzy"]),
        ("dir1\n!dir1/x", ["dir1", "dir1/y"], ["dir1/x"]),
        ("!a\na", ["a"], []),
        ("a\n!a\na/b", ["a/b"], ["a", "a/c"]),
        ("*\n!keep", ["a", "a/keep"], ["keep", "keep/x"]),
        ("  a  \n! b \nb", ["a", "b"], []),
        ("#a\n #b", ["#b"], ["#a"]),
        ("\ufeff#a\nb\r\n", ["b"], ["#a"]),
        ("é*", ["é", "éa"], ["e"]),
        ("!Kitfile\n!.kitignore", ["Kitfile", ".kitignore", "kitfile", ".kitfile"], ["a/Kitfile"]),
        ("", ["Kitfile", "Kitfile/x"], ["a", "x/.kitignore"]),
        ("x\n.", ["x"], ["a"]),
        (
            f"!**/{STAGING}\n!a",
            [STAGING, f"{STAGING}/2", f"a/{STAGING}", f"a/b/{STAGING}/2", f"\n/{STAGING}/\n"],
            ["a", f"x{STAGING}", f"a/x{STAGING}", f"{STAGING}0", f"{STAGING}\n", f"{STAGING}.md"],
        ),
        ("", [f"{STAGING}/a"], [".kitd-unpack-", ".kitd-unpack-notes.md", STAGING.upper()]),
        (
            "a",
            ["a", STAGING],
            [STAGING[:-1], f"{STAGING[:-1]}g", f"{STAGING}0/a"],
        ),
    ],
)
def test_patterns(patterns, ignored, kept):
    rules = IgnoreRules.parse(patterns.encode())
    assert [path for path in ignored if not rules.matches(as_bytes(path))] == []
    assert [path for path in kept if rules.matches(as_bytes(path))] == []


def test_what_the_client_unpacks_to_is_left_out():
    assert STAGING_PREFIX == staging.STAGING_PREFIX
    assert staging.is_staging_name(STAGING)
    for name in (f"{STAGING}0", STAGING[:-1], f"{STAGING}\n", STAGING.upper(), f"x{STAGING}"):
        assert not staging.is_staging_name(name)


def as_bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def test_patterns_and_paths_need_not_be_utf8():
    rules = IgnoreRules.parse(b"caf\xe9\nx*\xff\n")
    assert rules.matches(b"caf\xe9/a")
    assert rules.matches(b"xyz\xff")
    assert not rules.matches(b"caf\xe8")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ok\n[a-\n", ".kitignore:2: the [ is not closed: '[a-'"),
        (b"[]a]", ".kitignore:1: a character is missing in [ ]: '[]a]'"),
        (b"[-a]", ".kitignore:1: a character is missing in [ ]: '[-a]'"),
        (b"[a-]", ".kitignore:1: a character is missing in [ ]: '[a-]'"),
        (b"[z-a]", ".kitignore:1: a range of characters is the wrong way round: '[z-a]'"),
        (b"a\\", r".kitignore:1: nothing follows the backslash: 'a\\'"),
        (b"[\\", r".kitignore:1: the [ is not closed: '[\\'"),
        (b"a\n\n!", ".kitignore:3: an exception without a pattern: '!'"),
        (b"!/", ".kitignore:1: an exception without a pattern: '!/'"),
        (b"a\0b", ".kitignore:1: the character NUL is in no path: 'a\\x00b'"),
    ],
)
def test_a_malformed_pattern_is_named_by_its_line(content, message):
    with pytest.raises(KitignoreError) as caught:
        IgnoreRules.parse(content)
    assert caught.value.message == message


@pytest.mark.parametrize(
    "content",
    [
        b"a\n" * (MAX_PATTERNS + 1),
        b"x" * 1024 * 1025,
        b"*a" * (MAX_WILDCARDS + 1),
        b"a/**/b/*.c\n" * (MAX_PATIENT + 1),
    ],
    ids=["patterns", "bytes", "wildcards", "wildcards across directories"],
)
def test_bounds(content):
    with pytest.raises(KitignoreError, match="more than"):
        IgnoreRules.parse(content)


@pytest.mark.timeout(5)
def test_a_pattern_of_many_stars_does_not_take_forever_on_a_long_name():
    rules = IgnoreRules.parse(b"*a" * 15 + b"*b")
    assert not rules.matches(b"a" * 255)
    assert rules.matches(b"a" * 254 + b"b")


@pytest.mark.timeout(5)
def test_a_pattern_of_many_directories_does_not_take_forever_on_a_deep_path():
    rules = IgnoreRules.parse(b"**/*a**/*a**/*a**/*a**/*a**/b")
    assert not rules.matches(b"/".join([b"aaaaaaaa"] * 256))
    assert rules.matches(b"/".join([*[b"aaaaaaaa"] * 256, b"b"]))


def test_only_exceptions_make_an_ignored_directory_worth_entering():
    assert not IgnoreRules.parse(b"a\n*/b\n").has_exceptions
    assert IgnoreRules.parse(b"a\n!a/b\n").has_exceptions


def test_a_directorys_verdict_stands_in_for_its_parents():
    rules = IgnoreRules.parse(b"a\n!a/b\na/b/c\n")
    verdict = UNDECIDED
    decisions = []
    for path in (b"a", b"a/b", b"a/b/c", b"a/b/c/d"):
        verdict = rules.judge(path, verdict)
        decisions.append(rules.is_ignored(verdict))
    assert decisions == [True, False, True, True]
