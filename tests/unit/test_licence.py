"""Licences: those of real texts, those that a line names, and those that nobody knows."""

from pathlib import Path

import pytest

from kitd.licence import recognize_licence

OWN = Path(__file__).parents[2] / "LICENSE"
MIT = """\
MIT License

Copyright (c) 2026 Ada Lovelace

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


def test_whole_texts_are_recognized_however_they_are_wrapped():
    assert recognize_licence(OWN.read_text()) == "Apache-2.0"
    assert recognize_licence(MIT) == "MIT"
    assert recognize_licence(" ".join(MIT.split())) == "MIT"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\ud800",
        "Licensed under a licence of our own.",
        MIT + OWN.read_text(),
        MIT.replace("free of charge", "for a fee") + "Only for non-commercial use. " * 10,
        "x" * 100_000,
        "a" + "\n" * 60_000 + "b",
        "a" + " \n" * 30_000 + "Copyright " * 500,
        "SPDX-License-Identifier:" + " " * 60_000,
        "SPDX-License-Identifier: " * 2_500,
    ],
)
def test_nothing_is_guessed(text):
    """Two licences are not one, and a licence with a rider is another one."""
    assert recognize_licence(text) == ""


def test_a_line_that_names_it_is_believed():
    assert recognize_licence("# SPDX-License-Identifier: BSD-3-Clause\n") == "BSD-3-Clause"
    two = "SPDX-License-Identifier: MIT\nSPDX-License-Identifier: Apache-2.0\n"
    assert recognize_licence(two) == ""
