"""Kitfiles as text: the style, and nothing lost."""

import pytest

from kitd.modelkit.kitfile import (
    Code,
    Docs,
    Kitfile,
    Model,
    Package,
    parse_kitfile,
)
from kitd.modelkit.yaml_writer import kitfile_to_yaml
from kitd.oci.digest import digest_of

STYLED = """\
manifestVersion: "1.0"
package:
  name: 'a: b'
  version: "017"
  description: |
    two

    lines
  authors: [Ann, B & <C>, 'x, y']
model:
  name: "n"
  path: ./model
  description: "tab\\there"
  parameters:
    empty: {}
    lists:
      - - 1
        - 2.0
      - a: x
        b: "y"
      - []
      - |-
        one
        two
    none: null
    "yes": "12:30"
code:
  - path: .
docs:
  - path: ""
"""


def test_the_style_is_kits():
    kitfile = parse_kitfile(STYLED.encode())
    assert kitfile.model.parameters["lists"] == ((1, 2.0), {"a": "x", "b": "y"}, (), "one\ntwo")
    assert kitfile_to_yaml(kitfile) == STYLED


def test_an_empty_package_and_digests_are_left_out():
    code = Code(path="a", digest=digest_of(b""), diff_id=digest_of(b""))
    kitfile = Kitfile(manifest_version="1.0.0", code=(code,))
    assert kitfile_to_yaml(kitfile) == "manifestVersion: 1.0.0\ncode:\n  - path: a\n"


@pytest.mark.parametrize(
    "text",
    [
        "- a", "-", "? b", "a #b", "a#b", ": x", "x:", " a", "a ", "'", '"', "%x", "@x", "`x", "!x",
        "&x", "*x", "[x", "{x", "|", ">", "---", "...", "<<", "=", "~", "\t", "\n", "a\n", "\na",
        "a\n\n", "a\n b", " a\nb", "a \nb", "a\nb ", "a\n\nb\n\n\n", "\x00", "\x7f", "\x85",
        "\u2028a\nb", "\ufeff", "😀", "a\r\nb", "#", "a: b\nc", "é", "\\", "a\tb\nc", "'\n'",
    ],
)  # fmt: skip
def test_awkward_text_comes_back(text):
    kitfile = Kitfile(
        package=Package(name=text, authors=(text, "x")),
        model=Model(parameters={text: text, "list": (text,), "x" * 500 + text: {text: (text,)}}),
        docs=(Docs(path=text),),
    )
    assert parse_kitfile(kitfile_to_yaml(kitfile).encode()) == kitfile
