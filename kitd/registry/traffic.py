"""What was asked of registries and what came of it, counted since the start. Pure."""

from collections import Counter

MAX_HOSTS = 256
OTHER = "other"
"""Stands for all registries beyond `MAX_HOSTS`."""
NO_ANSWER = "none"


class Traffic:
    """Counts by registry (`host[:port]`); what its storage is asked counts as its own."""

    def __init__(self) -> None:
        self.answers: Counter[tuple[str, str]] = Counter()
        """By registry and class of status, `2xx` to `5xx`, or `none`."""
        self.retries: Counter[str] = Counter()
        """Requests that were sent once more."""
        self.sent_bytes: Counter[str] = Counter()
        """Of bodies."""
        self.received_bytes: Counter[str] = Counter()
        """Of the bodies of blobs."""
        self._hosts: set[str] = set()

    def answered(self, registry: str, status: int | None) -> None:
        """Count an answer, or that there was none."""
        kind = NO_ANSWER if status is None else f"{status // 100}xx"
        self.answers[self._host(registry), kind] += 1

    def retried(self, registry: str) -> None:
        """Count a request that is sent once more."""
        self.retries[self._host(registry)] += 1

    def sent(self, registry: str, count: int) -> None:
        """Count bytes that left."""
        self.sent_bytes[self._host(registry)] += count

    def received(self, registry: str, count: int) -> None:
        """Count bytes that came."""
        self.received_bytes[self._host(registry)] += count

    def _host(self, registry: str) -> str:
        if registry in self._hosts:
            return registry
        if len(self._hosts) >= MAX_HOSTS:
            return OTHER
        self._hosts.add(registry)
        return registry
