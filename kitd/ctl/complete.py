"""`kitctl __complete`: what the scripts of `kitctl completion` ask at each press of Tab.

Silent whatever happens: somebody is in the middle of a line. One line for each word that may come
next, a tab and what it is after it; the last line says whether the shell adds names of files.
"""

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence

from kitd.client import Client, request
from kitd.client.record import Job
from kitd.ctl.command import Values
from kitd.ctl.format import age, plural, printable, short_digest, size
from kitd.ctl.suggestion import Suggestion, constant_values, split_line, wanted
from kitd.errors import KitdError

PATIENCE_S = 1.0
"""After this nobody waits for the daemon any longer."""
MAX_WORDS = 500

_FILES: Mapping[Values | None, str] = {"file": ":files", "directory": ":directories"}
_OPEN_STATES = ("running", "ready", "scheduled")
_ENDED_STATES = ("failed", "cancelled")


def complete(arguments: Sequence[str], now_s: float) -> str:
    """Return what to print for `line LINE CURRENT`, which bash asks, or for `words WORD...`.

    CURRENT is what bash puts the completed word in place of: the end of LINE, less than a word
    where that has a colon, say. The last WORD is as it was typed, with its quotes.
    """
    # Also what has no deadline of its own, as connecting to a socket whose daemon hangs.
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    form, *given = arguments or ("",)
    if form == "line" and len(given) == 2 and given[0].endswith(given[1]):
        line, current = given
        kept = split_line(line.removesuffix(current))[-1]
        return _complete(split_line(line)[1:], now_s, len(kept))
    if form != "words" or not given:
        return ""
    return _complete([*given[:-1], split_line(given[-1])[-1]], now_s, 0)


def _complete(words: Sequence[str], now_s: float, cut: int) -> str:
    asked = wanted(words)
    found = list(asked.known)
    directive = ":none"
    if asked.argument is not None:
        found += constant_values(asked.argument)
        directive = _FILES.get(asked.argument.values, directive)
        found += live_values(asked.socket, asked.argument.values, asked.typed, now_s)
    lines = [
        f"{(asked.before + each.word)[cut:]}\t{each.summary}"
        for each in found
        if each.word.startswith(asked.typed) and _is_plain(each.word)
    ]
    return "\n".join([*dict.fromkeys(lines[:MAX_WORDS]), directive])


def _is_plain(word: str) -> bool:
    """Whether a word means itself in every shell; others a person quotes better."""
    return word.isprintable() and not set(word) & set(" \t'\"\\$`;&|<>()*?[]{}!#~")


def live_values(
    socket: str | None, values: Values | None, typed: str, now_s: float
) -> list[Suggestion]:
    """Return what the daemon knows, and nothing where it does not answer at once."""
    if (ask := _LIVE.get(values)) is None:
        return []
    try:
        with Client.connect(socket) as client:
            return [
                each._replace(summary=printable(each.summary)) for each in ask(client, typed, now_s)
            ]
    except KitdError:
        return []


def _kits(client: Client, typed: str, _now_s: float) -> Iterator[Suggestion]:
    # Of a repository that is typed already only that one's.
    head, colon, tail = typed.rpartition(":")
    repository = head if colon and "/" in head and "/" not in tail else None
    for kit in client.call(request.list_kits(repository), timeout_s=PATIENCE_S):
        summary = f"{short_digest(kit.digest)}, {size(kit.size)}"
        for tag in kit.tags:
            yield Suggestion(f"{kit.repository}:{tag}", summary)


def _repositories(client: Client, _typed: str, _now_s: float) -> Iterator[Suggestion]:
    counts: dict[str, int] = {}
    for kit in client.call(request.list_kits(None), timeout_s=PATIENCE_S):
        counts[kit.repository] = counts.get(kit.repository, 0) + 1
    for repository, count in counts.items():
        yield Suggestion(repository, plural(count, "kit"))


def _job(job: Job, now_s: float) -> Suggestion:
    subject = job.project or job.reference or ""
    return Suggestion(str(job.id), f"{job.kind} {subject}, {job.state}, {age(job.created, now_s)}")


def _jobs(client: Client, _typed: str, now_s: float) -> Iterator[Suggestion]:
    for job in client.call(request.list_jobs(), timeout_s=PATIENCE_S):
        yield _job(job, now_s)


def _jobs_in(*states: str) -> Callable[[Client, str, float], Iterator[Suggestion]]:
    def ask(client: Client, _typed: str, now_s: float) -> Iterator[Suggestion]:
        for state in states:
            for job in client.call(request.list_jobs(state=state), timeout_s=PATIENCE_S):
                yield _job(job, now_s)

    return ask


def _projects(client: Client, _typed: str, _now_s: float) -> Iterator[Suggestion]:
    for project in client.call(request.list_projects(), timeout_s=PATIENCE_S):
        yield Suggestion(project.name, f"{project.state}, {project.reference}")


def _mirrors(client: Client, _typed: str, _now_s: float) -> Iterator[Suggestion]:
    for mirror in client.call(request.list_mirrors(), timeout_s=PATIENCE_S):
        yield Suggestion(mirror.name, f"of {mirror.source}")


def _subjects(client: Client, typed: str, now_s: float) -> Iterator[Suggestion]:
    yield from _projects(client, typed, now_s)
    yield from _jobs(client, typed, now_s)


def _sources(client: Client, _typed: str, _now_s: float) -> Iterator[Suggestion]:
    page = client.call(request.list_deliveries(limit=1), timeout_s=PATIENCE_S)
    for source in page.get("sources") or ():
        yield Suggestion(str(source["name"]), str(source["registry"]))


def _deliveries(client: Client, _typed: str, now_s: float) -> Iterator[Suggestion]:
    page = client.call(request.list_deliveries(), timeout_s=PATIENCE_S)
    for each in page.get("deliveries") or ():
        summary = f"{each['source']}, {each['state']}, {age(each['received'], now_s)}"
        yield Suggestion(str(each["id"]), summary)


_LIVE: Mapping[Values | None, Callable[[Client, str, float], Iterator[Suggestion]]] = {
    "kit": _kits,
    "compared kit": _kits,
    "repository": _repositories,
    "job": _jobs,
    "open job": _jobs_in(*_OPEN_STATES),
    "failed job": _jobs_in(*_ENDED_STATES),
    "project": _projects,
    "mirror": _mirrors,
    "subject": _subjects,
    "source": _sources,
    "delivery": _deliveries,
}
