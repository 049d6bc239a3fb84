"""Lives of a daemon that end by SIGKILL, at random points of a mix of everything that it does.

`kill_lives.py PLACE --seed N --kills N REGISTRY REGISTRY` saves files of two watched projects, asks
for packs, pushes, copies to the second registry, pulls, collections, cancels and retries, and kills
the daemon meanwhile, sometimes while it starts or stops, and sometimes a worker first. It notes
what was acknowledged, and checks it with `aftermath.py`. The last line is a summary as JSON; what
is wrong is in it.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tarfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aftermath
from forked import Daemon, adopt_orphans, reap_orphans

from kitd.client import Client, request
from kitd.client.error import DaemonUnreachableError, ProtocolError, RpcError
from kitd.client.record import Job
from kitd.client.request import Request
from kitd.ledger.audit import audit_ledger

DEADLINE_S = 60.0
LIFE_S = 0.9
"""The longest life."""
CHECKED_EVERY = 25
"""Kills between two checks that let everything come to rest and look at every blob and tag."""
FRESH_EVERY = 200
"""Kills before a new state directory: ledgers of any age get their share."""
USE_AT_MOST = ("0B", "200KiB", "3MiB", "30MiB")
KITFILE = """\
manifestVersion: 1.0.0
package: {name: demo}
model: {name: weights, path: model.bin}
datasets: [{name: numbers, path: data}]
"""
WATCHED = ("ada", "bob")
BY_HAND = 3
WISHES = (
    *("save", "pack", "push", "copy", "pull") * 3,
    *("save", "pack", "cancel", "look") * 2,
    *("collect", "verify", "pin", "retry", "reload"),
)
"""What is done, as often as it stands here."""
EXPECTED = {"not_found", "conflict", "stopping", "unavailable"}
"""Reasons to refuse a request that are no fault: the kit was collected, the job has just ended."""


class Lives:
    """One state directory, what was acknowledged in it, and how to check it."""

    def __init__(self, place: Path, draw: random.Random, registries: list[str]) -> None:
        place.mkdir()
        self.place = place
        self.draw = draw
        self.hosts = registries
        self.team = place.name
        self.acknowledged: dict[int, str] = {}
        self.cancelled: set[int] = set()
        self.ended_well: set[int] = set()
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.version = 0
        for name in (*WATCHED, *map(self.by_hand, range(BY_HAND))):
            (place / name / "data").mkdir(parents=True)
            (place / name / "Kitfile").write_text(KITFILE)
            self.save(name)
        projects = {
            name: {
                "path": str(place / name),
                "reference": f"{registries[0]}/{self.team}/{name}",
                "tags": ["latest", "{digest:12}"],
                "settle": {"quiet": "50ms"},
            }
            for name in WATCHED
        }
        self.config = {"log": {"format": "json"}, "projects": projects}
        self.daemon = Daemon(place, self.limited())

    def limited(self) -> dict[str, Any]:
        """Return a configuration with one of several limits of the cache."""
        limits = {
            "use_at_most": self.draw.choice(USE_AT_MOST),
            "leave_free": "1MiB",
            # Else nothing that was used within minutes would ever be collected.
            "keep_recent": self.draw.choice(("0s", "0s", "10m")),
        }
        return {**self.config, "cache": limits}

    def by_hand(self, number: int) -> str:
        return f"hand-{number}"

    def save(self, name: str) -> None:
        """Write a version of a project, one layer of it new."""
        self.version += 1
        root = self.place / name
        if not (root / "model.bin").exists() or self.draw.random() < 0.3:
            content = self.draw.randbytes(self.draw.randrange(1, 300_000))
            (root / "model.bin").write_bytes(content)
        (root / "data" / "version").write_text(str(self.version))

    def references(self) -> list[str]:
        names = [f"{name}:latest" for name in WATCHED]
        names += [f"{self.by_hand(n)}:v{v}" for n in range(BY_HAND) for v in range(4)]
        return [f"{self.hosts[0]}/{self.team}/{name}" for name in names]

    def ask_something(self, client: Client) -> None:
        """One thing that somebody may do at any time."""
        draw = self.draw
        reference = draw.choice(self.references())
        match draw.choice(WISHES):
            case "save":
                self.save(draw.choice(WATCHED))
            case "pack":
                name = self.by_hand(draw.randrange(BY_HAND))
                self.save(name)
                tagged = f"{self.hosts[0]}/{self.team}/{name}:v{draw.randrange(4)}"
                root = str(self.place / name)
                self.start(client, request.pack(root, tagged, push=draw.random() < 0.5))
            case "push":
                self.start(client, request.push(reference))
            case "copy":
                target = f"{self.hosts[1]}/{reference.partition('/')[2]}"
                self.start(client, request.push(reference, target))
            case "pull":
                self.start(client, request.pull(reference))
            case "collect":
                self.start(client, request.collect_cache())
            case "verify":
                self.start(client, request.verify_cache(repair=True))
            case "pin":
                client.call(draw.choice((request.pin_kit, request.unpin_kit))(reference))
            case "reload":
                self.daemon.configure(self.limited())
                answer = client.call(request.reload_config())
                if not answer["applied"]:
                    self.wrong.append(f"not reloaded: {answer}")
            case "cancel" if self.acknowledged:
                job = draw.choice(list(self.acknowledged)[-5:])
                # Whether or not there will be an answer.
                self.cancelled.add(job)
                client.call(request.cancel_job(job))
            case "retry" if self.acknowledged:
                client.call(request.retry_job(draw.choice(list(self.acknowledged)[-20:])))
            case _:
                for job in client.call(request.list_jobs(limit=50)):
                    if job.state == "succeeded":
                        self.ended_well.add(job.id)

    def start(self, client: Client, asked: Request[Job]) -> None:
        """Ask for a job and note that it was acknowledged."""
        answer = client.call(asked)
        self.counts[asked.method] += 1
        self.acknowledged[answer.id] = asked.method

    def live(self) -> None:
        """One life, from the start to the kill."""
        draw = self.draw
        self.daemon.start()
        kind = draw.choices(("working", "starting", "stopping", "stopped"), (70, 15, 12, 3))[0]
        self.counts[kind] += 1
        after_s = draw.uniform(0, 0.08) if kind == "starting" else draw.uniform(0.05, LIFE_S)
        if kind == "starting":
            time.sleep(after_s)
        else:
            number = signal.SIGKILL if kind == "working" else signal.SIGTERM
            timer = threading.Timer(after_s, self.daemon.signal, [number])
            timer.start()
            self.work()
            timer.join()
        if kind == "stopping":
            time.sleep(draw.uniform(0, 0.2))
        if kind != "stopped":
            self.daemon.signal(signal.SIGKILL)
        code = self.daemon.wait(DEADLINE_S)
        # It may have been too early for it to hear of the signal: then that kills it.
        by_signal = -signal.SIGTERM if kind.startswith("stop") else -signal.SIGKILL
        expected = {"stopped": {0}, "stopping": {0, -signal.SIGKILL}}.get(kind, set())
        if code not in {*expected, by_signal}:
            self.wrong.append(f"exit code {code}: {self.daemon.last_words()}")
        # A successor may start beside a worker that has not noticed yet.
        if draw.random() < 0.7:
            self.require_alone()

    def work(self) -> None:
        """Ask for one thing after the other until the daemon is gone."""
        try:
            client = self.daemon.connect(DEADLINE_S)
            if client is None:
                return
            with client:
                while True:
                    try:
                        self.ask_something(client)
                    except RpcError as refused:
                        self.counts[f"refused: {refused.code}"] += 1
                        if refused.code not in EXPECTED:
                            self.wrong.append(f"refused: {refused.code}: {refused}")
                    if self.draw.random() < 0.02:
                        self.kill_worker()
                    time.sleep(self.draw.expovariate(40))
        except (DaemonUnreachableError, ProtocolError):
            return

    def kill_worker(self) -> None:
        if workers := list(self.daemon.workers()):
            self.counts["workers killed"] += 1
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.draw.choice(workers), signal.SIGKILL)

    def require_alone(self) -> None:
        left = reap_orphans(10.0)
        assert not left, f"processes left behind: {left}"

    def check_quickly(self) -> list[str]:
        """Look at the ledger as the kill left it."""
        if not (self.daemon.state / aftermath.LEDGER).exists():
            return []
        with aftermath.opened(self.daemon.state) as ledger:
            wrong = aftermath.ledger_faults(ledger)
            if not self.acknowledged:
                return wrong
            states = dict(ledger.execute("SELECT id, state FROM jobs"))
        wrong += [f"job {job} is lost" for job in self.acknowledged.keys() - states.keys()]
        undone = [job for job in self.ended_well if states.get(job) != "succeeded"]
        return wrong + [f"job {job} had succeeded, is {states.get(job)}" for job in undone]

    def check(self) -> list[str]:
        """Let everything come to rest, stop, and look at everything."""
        self.require_alone()
        self.daemon.start()
        client = self.daemon.connect(DEADLINE_S)
        assert client is not None, self.daemon.last_words()
        wrong = []
        with client:
            wrong += self.come_to_rest(client)
            digests = {p.name: p.last_digest for p in client.call(request.list_projects())}
            outcomes = [outcome(client, job) for job in self.acknowledged]
        self.daemon.signal(signal.SIGTERM)
        code = self.daemon.wait(DEADLINE_S)
        self.require_alone()
        if code != 0:
            wrong.append(f"exit code {code}: {self.daemon.last_words()}")
        for job in outcomes:
            wrong += self.outcome_faults(job)
        cache = self.daemon.state / "cache"
        with aftermath.opened(self.daemon.state) as ledger:
            wrong += aftermath.ledger_faults(ledger) + aftermath.rest_faults(ledger)
            wrong += aftermath.cache_faults(ledger, cache)
        wrong += map(str, audit_ledger(self.daemon.state / aftermath.LEDGER))
        wrong += aftermath.leftovers(cache)
        for name in WATCHED:
            if (found := packed_version(cache, digests[name])) != self.saved_version(name):
                told = aftermath.last_events(self.daemon.state, name)
                saved = self.saved_version(name)
                wrong.append(f"{name} was saved as {saved}, packed is {found}; {told}")
        repositories = [
            f"{self.team}/{name}" for name in (*WATCHED, *map(self.by_hand, range(BY_HAND)))
        ]
        for host in self.hosts:
            wrong += aftermath.registry_faults(host, repositories)
        return wrong

    def saved_version(self, name: str) -> str:
        return (self.place / name / "data" / "version").read_text()

    def come_to_rest(self, client: Client) -> list[str]:
        """Wait until nothing is to be done; what was set aside is asked for again."""
        end_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < end_s:
            failed = client.call(request.list_jobs(state="failed", limit=500))
            for job in failed:
                if job.error is not None and job.error.code == "poison":
                    # There may be another that waits for the same by now.
                    with contextlib.suppress(RpcError):
                        client.call(request.retry_job(job.id))
                        self.counts["set aside"] += 1
            queue = client.call(request.status())
            waiting = [queue.queue[state] for state in ("ready", "running", "scheduled")]
            busy = [p.name for p in queue.projects if p.state != "idle"]
            if not any(waiting) and not busy:
                return []
            time.sleep(0.05)
        left = [
            f"job {job.id} ({job.kind}) is {job.state}: {job.error}"
            for job in client.call(request.list_jobs(limit=500))
            if not job.is_terminal
        ]
        return [*left, f"does not come to rest: {waiting}, {busy}"]

    def outcome_faults(self, job: Job) -> list[str]:
        self.counts[f"{job.kind} {job.state}" + (f" {job.error.code}" if job.error else "")] += 1
        match job.state:
            case "succeeded" | "superseded":
                return []
            case "cancelled" if job.id in self.cancelled:
                return []
            case "failed" if job.error is not None and job.error.code in FAILS_WELL.get(
                job.kind, ()
            ):
                return []
        return [f"job {job.id} ({job.kind}) ended {job.state}: {job.error}"]


FAILS_WELL = {
    # What was asked for was never pushed to the registry, or collected before the push began.
    "pull": {"not_found", "manifest_unknown", "name_unknown"},
    "push": {"not_found"},
}


def outcome(client: Client, job: int) -> Job:
    """Return a job, or the one that was asked for in its place."""
    found = client.call(request.get_job(job))
    return found if found.superseded_by is None else outcome(client, found.superseded_by)


def packed_version(cache: Path, digest: str | None) -> str | None:
    """Return what a project's last kit holds."""
    if digest is None:
        return None
    manifest = json.loads((cache / "blobs" / digest.replace(":", "/")).read_bytes())
    for layer in manifest["layers"]:
        with tarfile.open(cache / "blobs" / layer["digest"].replace(":", "/")) as tar:
            for member in tar:
                if member.name.endswith("data/version"):
                    file = tar.extractfile(member)
                    assert file is not None
                    return file.read().decode()
    return None


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("place", type=Path)
    parser.add_argument("registries", nargs=2)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--kills", type=int, required=True)
    options = parser.parse_args()
    adopt_orphans()
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    draw = random.Random(options.seed)
    began_s = time.monotonic()
    lives = None
    kills = 0
    while kills < options.kills and not wrong:
        if lives is None or kills % FRESH_EVERY == 0:
            lives = Lives(options.place / f"lives-{options.seed}-{kills}", draw, options.registries)
            lives.counts = counts
        lives.live()
        kills += 1
        wrong += lives.wrong + lives.check_quickly()
        if not wrong and (kills % CHECKED_EVERY == 0 or kills == options.kills):
            wrong += lives.check()
        if not wrong and kills % FRESH_EVERY == 0:
            shutil.rmtree(lives.place)
    summary = {
        "seed": options.seed,
        "kills": kills,
        "seconds": round(time.monotonic() - began_s, 1),
        "wrong": wrong,
        "counts": dict(sorted(counts.items())),
    }
    print(json.dumps(summary))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
