"""Error bodies of registries (OCI distribution spec, section "Error codes"), JSON or not."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kitd.oci.json_reader import InvalidJsonError, read_json

MAX_ERROR_BYTES = 8192


@dataclass(frozen=True, slots=True)
class RegistryMessage:
    """One entry of an error body: the code in upper case ("" if none) and a line of text."""

    code: str
    message: str

    def __str__(self) -> str:
        return (
            f"{self.code}: {self.message}"
            if self.code and self.message
            else (self.code or self.message)
        )


def _line(text: object) -> str:
    printable = "".join(c if c.isprintable() else " " for c in str(text)[:400])
    return " ".join(printable.split())


def parse_error_body(body: bytes, content_type: str) -> tuple[RegistryMessage, ...]:
    """Return what the body says, at most five entries; never raises.

    HTML and other text is reduced to its first words: a person needs to see that a proxy's login
    page answered instead of a registry.
    """
    body = body[:MAX_ERROR_BYTES]
    try:
        document = read_json(body, max_bytes=MAX_ERROR_BYTES)
    except InvalidJsonError:
        text = body.decode("utf-8", "replace")
        if "html" in content_type.lower() or text.lstrip()[:1] == "<":
            title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
            words = _line(title.group(1) if title else re.sub(r"<[^>]*>", " ", text))
            return (
                RegistryMessage("", f"an HTML page ({words[:120]})" if words else "an HTML page"),
            )
        words = _line(text)
        return (RegistryMessage("", words),) if words else ()
    if not isinstance(document, Mapping):
        return ()
    errors = document.get("errors")
    if not isinstance(errors, Sequence) or isinstance(errors, str):
        plain = document.get("error") or document.get("message") or document.get("details")
        return (RegistryMessage("", _line(plain)),) if plain else ()
    entries = [entry for entry in errors[:5] if isinstance(entry, Mapping)]
    return tuple(
        RegistryMessage(_line(entry.get("code", "")).upper(), _line(entry.get("message", "")))
        for entry in entries
    )
