"""Which licence a text is: see docs/adr/0024-licences-are-recognized-not-guessed.md."""

import re
import tempfile

MAX_LICENCE_BYTES = 64 << 10
"""The longest licence that is known has 35 KiB."""

_TAG = re.compile(r"SPDX-License-Identifier:[ \t]{0,8}([A-Za-z0-9.+-]{1,64})[ \t]*$", re.MULTILINE)


def recognize_licence(text: str) -> str:
    """Return the SPDX identifier of a licence's text, or "" where it is none that is known. Blocks.

    What a line `SPDX-License-Identifier: ID` says is believed, unless several say different things.
    """
    tagged = set(_TAG.findall(text))
    if tagged:
        return tagged.pop() if len(tagged) == 1 else ""
    # The texts are a third of a megabyte, and few ask for them.
    from identify.identify import license_id  # noqa: PLC0415

    # Empty lines mean nothing to the library, and many of them take its expressions minutes.
    lines = (" ".join(line.split()) for line in text.splitlines())
    content = "\n".join(filter(None, lines)).encode("utf-8", "replace")
    if not content or len(content) > MAX_LICENCE_BYTES:
        return ""
    # The library reads files only.
    with tempfile.NamedTemporaryFile(prefix="kitd-licence-") as file:
        file.write(content)
        file.flush()
        return license_id(file.name) or ""
