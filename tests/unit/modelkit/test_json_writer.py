"""JSON as Go writes it."""

import pytest

from kitd.modelkit.json_writer import encode_json


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("<a&b>", r'"\u003ca\u0026b\u003e"'),
        ("\u2028\u2029", r'"\u2028\u2029"'),
        ('\b\f\n\r\t"\\/', r'"\b\f\n\r\t\"\\/"'),
        ("\x00\x1f\x7f", '"\\u0000\\u001f\x7f"'),
        ("é日😀", '"é日😀"'),
        (None, "null"),
        (True, "true"),
        (2**64 - 1, "18446744073709551615"),
        (0.1, "0.1"),
        (-0.0, "-0"),
        (100.0, "100"),
        (123456789.125, "123456789.125"),
        (1e20, "100000000000000000000"),
        (999999999999999900000.0, "999999999999999900000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (1e-6, "0.000001"),
        (9.5e-7, "9.5e-7"),
        (-2.5e-10, "-2.5e-10"),
        ({}, "{}"),
        ([], "[]"),
        ({"b": [1, {"a": ()}], "a": "x"}, '{"b":[1,{"a":[]}],"a":"x"}'),
    ],
)  # fmt: skip
def test_values(value, written):
    assert encode_json(value).decode() == written
