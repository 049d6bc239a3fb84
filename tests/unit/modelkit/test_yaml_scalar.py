"""Scalars mean what they mean to kit's YAML library."""

import pytest

from kitd.modelkit.json_writer import encode_json
from kitd.modelkit.yaml_scalar import ScalarError, is_plain_text, resolve_scalar

PREFIX = "tag:yaml.org,2002:"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("1234567", "1234567"),
        ("12345678901234567890", "12345678901234567890"),
        ("18446744073709551615", "18446744073709551615"),
        ("18446744073709551616", "18446744073709552000"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("-9223372036854775809", "-9223372036854776000"),
        ("+18446744073709551615", "18446744073709552000"),
        ("12345678901234567890123", "1.2345678901234568e+22"),
        ("0xFF", "255"),
        ("0x_FF", "255"),
        ("-0x10", "-16"),
        ("0b11", "3"),
        ("0o17", "15"),
        ("-0O17", "-15"),
        ("017", "15"),
        ("08", "8"),
        ("0o8", '"0o8"'),
        ("0b2", '"0b2"'),
        ("1_000", "1000"),
        ("1_000.5", "1000.5"),
        ("_1", '"_1"'),
        (".5_0", "0.5"),
        (".5_", '".5_"'),
        ("+12", "12"),
        ("-0", "0"),
        ("-0.0", "-0"),
        (".5", "0.5"),
        ("5.", "5"),
        ("12.0", "12"),
        ("1e3", "1000"),
        ("1.2e+3", "1200"),
        ("1e20", "100000000000000000000"),
        ("1e21", "1e+21"),
        ("0.000001", "0.000001"),
        ("-0.0000001", "-1e-7"),
        ("5e-324", "5e-324"),
        ("1e999", '"1e999"'),
        ("0x1p4", '"0x1p4"'),
        ("true", "true"),
        ("FALSE", "false"),
        ("tRUE", '"tRUE"'),
        ("yes", '"yes"'),
        ("off", '"off"'),
        ("", "null"),
        ("~", "null"),
        ("Null", "null"),
        ("nil", '"nil"'),
        ("12:30", '"12:30"'),
        ("2020-01-01", '"2020-01-01T00:00:00Z"'),
        ("2020-1-2", '"2020-01-02T00:00:00Z"'),
        ("0000-02-29", '"0000-02-29T00:00:00Z"'),
        ("2020-02-30", '"2020-02-30"'),
        ("2020-01-01T24:00:00Z", '"2020-01-01T24:00:00Z"'),
        ("2020-01-01 10:11:12", '"2020-01-01T10:11:12Z"'),
        ("2020-01-01T1:2:3Z", '"2020-01-01T01:02:03Z"'),
        ("2001-12-14t21:59:43.10-05:00", '"2001-12-14T21:59:43.1-05:00"'),
        ("2020-01-01T10:11:12.1234567891+02:00", '"2020-01-01T10:11:12.123456789+02:00"'),
        ("2020-01-01T10:11:12-00:00", '"2020-01-01T10:11:12Z"'),
        ("2020-01-01T10:11:12", '"2020-01-01T10:11:12"'),
        ("20200-01-01", '"20200-01-01"'),
        ("٣", '"٣"'),
    ],
)
def test_unquoted_text(text, written):
    assert encode_json(resolve_scalar(text, None, plain=True)).decode() == written


@pytest.mark.parametrize(
    ("text", "tag", "value"),
    [
        ("1", "str", "1"),
        ("1", "float", 1.0),
        ("1_0", "float", 10.0),
        ("1", "int", 1),
        ("2020-01-01", "timestamp", "2020-01-01T00:00:00Z"),
        ("2020-01-01", "str", "2020-01-01"),
        ("aGVsbG8=", "binary", "hello"),
        ("aGVs\n bG8=", "binary", "hello"),
        ("", "binary", ""),
        ("null", "null", None),
    ],
)
@pytest.mark.parametrize("plain", [True, False])
def test_an_explicit_tag_decides_quoted_or_not(text, tag, value, plain):
    assert resolve_scalar(text, PREFIX + tag, plain=plain) == value


@pytest.mark.parametrize(
    ("text", "tag"),
    [("yes", "bool"), ("1.5", "int"), ("x", "null"), ("5", "timestamp"), ("gA==", "binary"),
     ("a", "binary"), ("18446744073709551616", "int")],
)  # fmt: skip
def test_text_that_contradicts_its_tag_is_refused(text, tag):
    with pytest.raises(ScalarError):
        resolve_scalar(text, PREFIX + tag, plain=True)


def test_foreign_tags_leave_text():
    assert resolve_scalar("12", "!metres", plain=True) == "12"
    assert resolve_scalar("12", "!", plain=True) == 12


def test_quoted_text_is_text():
    assert resolve_scalar("12", None, plain=False) == "12"


@pytest.mark.parametrize("text", ["", "12", "yes", "n", "1:30", "~", "<<", "2020-01-01", ".5"])
def test_text_that_would_change_its_type_is_not_written_plain(text):
    assert not is_plain_text(text)
    assert is_plain_text(f"x{text}")
