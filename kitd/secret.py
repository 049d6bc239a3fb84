"""The secrets in use, so that none of them is ever repeated: the second line of defence.

The first is that rooms which hold secrets keep them out of messages and reprs. But a registry may
answer with what it was sent, a proxy may quote a header, a library may put a URL in an exception.
Whoever reads a secret has it learned here; whatever is said to others goes through `redact`.
"""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from kitd.errors import KitdError

MIN_CHARS = 4
"""A shorter one would take half of every message with it, and protects nothing."""
MAX_SECRETS = 128
"""Those that were in use last; registries hand out tokens for minutes."""
REDACTED = "[redacted]"


class Secrets:
    """What must not be repeated. Learned on the event loop, redacted in any thread."""

    def __init__(self) -> None:
        self._spellings: dict[tuple[str, str | None], tuple[str, ...]] = {}
        # The longest first: one may be a part of another. Replaced, and never changed.
        self._words: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<{len(self._spellings)} secrets>"

    def learn(self, secret: str, *, username: str | None = None) -> None:
        """Take note of a secret, and of what it looks like in a URL, in JSON and in a header."""
        if len(secret) < MIN_CHARS:
            return
        known = self._spellings.pop((secret, username), None)
        self._spellings[secret, username] = known or _spell(secret, username)
        if known is not None:
            return
        while len(self._spellings) > MAX_SECRETS:
            del self._spellings[next(iter(self._spellings))]
        words = {word for spellings in self._spellings.values() for word in spellings}
        self._words = tuple(sorted(words, key=len, reverse=True))

    def redact(self, text: str) -> str:
        """Return the text without the secrets in it."""
        for word in self._words:
            text = text.replace(word, REDACTED)
        return text

    @contextmanager
    def redacted(self) -> Iterator[None]:
        """Take the secrets out of the message and the hint of an error that passes."""
        try:
            yield
        except KitdError as error:
            error.args = (self.redact(error.message), *error.args[1:])
            if error.hint is not None:
                error.hint = self.redact(error.hint)
            raise


def _spell(secret: str, username: str | None) -> tuple[str, ...]:
    encoded = [secret] if username is None else [secret, f"{username}:{secret}"]
    return (
        secret,
        quote(secret, safe=""),
        json.dumps(secret)[1:-1],
        *(base64.b64encode(each.encode()).decode() for each in encoded),
    )
