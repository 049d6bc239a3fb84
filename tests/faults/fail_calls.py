"""Lives of a daemon in which the n-th call that changes a file fails, for one n after the other.

`fail_calls.py PLACE --mode MODE [--first N] [--step N] [--seconds S] REGISTRY REGISTRY`, in a
process that `failing_calls.c` is preloaded into. Each n has a life of its own that begins in a
copy of the same state directory and does the same: a start, packs, pushes, a copy, a pull, a
collection, a stop. Then the disk works again, and all that was acknowledged has to be done in the
end. It goes on until a life no longer reaches n. The last line is a summary as JSON.

The modes: `eio`, one call fails with EIO; `enospc`, one call that needs room fails with ENOSPC;
`full`, all from there do, until they no longer do.
"""

import argparse
import ctypes
import json
import mmap
import os
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import aftermath
from forked import Daemon, adopt_orphans, reap_orphans

from kitd.client import Client, request
from kitd.client.record import Job
from kitd.client.request import Request
from kitd.errors import KitdError
from kitd.ledger.audit import audit_ledger

DEADLINE_S = 45.0
FULL_S = 1.0
"""For how long a disk stays full."""
EX_IOERR, EX_TEMPFAIL = 74, 75
SYNCING = ("fsync", "fdatasync")
KITFILE = """\
manifestVersion: 1.0.0
package: {name: demo}
model: {name: weights, path: model.bin}
datasets: [{name: numbers, path: data}]
"""
WATCHED, BY_HAND, ELSEWHERE = "watched", "by-hand", "elsewhere"


class Plan(ctypes.Structure):
    """What the preloaded library is told, and what it tells: see `failing_calls.c`."""

    _fields_ = (
        ("armed", ctypes.c_long),
        ("count", ctypes.c_long),
        ("target", ctypes.c_long),
        ("all_from_there", ctypes.c_long),
        ("full", ctypes.c_long),
        ("hits", ctypes.c_long),
        ("hit", ctypes.c_char * 512),
        ("below", ctypes.c_char * 512),
    )


def mapped_plan() -> Plan:
    """Map the file that the library has mapped."""
    with open(os.environ["FAILING_CALLS"], "r+b") as file:
        return Plan.from_buffer(mmap.mmap(file.fileno(), ctypes.sizeof(Plan)))


def write_project(root: Path, content: bytes) -> None:
    (root / "data").mkdir(parents=True, exist_ok=True)
    (root / "Kitfile").write_text(KITFILE)
    (root / "model.bin").write_bytes(content * 50_000)
    (root / "data" / "version").write_bytes(content)


class Life:
    """One n: a life with the fault, and one after it."""

    def __init__(self, place: Path, registries: list[str], team: str) -> None:
        self.place = place
        self.hosts = registries
        self.team = team
        self.acknowledged: dict[int, str] = {}
        self.refusals: Counter[str] = Counter()
        # SQLite asks for it when it makes its files, and does not look at the answer.
        self.untold = f"fdatasync {place / 'state'}"
        place.mkdir(exist_ok=True)
        self.daemon = Daemon(
            place,
            {
                "log": {"format": "json"},
                "cache": {"leave_free": "1MiB"},
                "projects": {
                    WATCHED: {
                        "path": str(place / WATCHED),
                        "reference": self.reference(WATCHED),
                        "tags": ["latest"],
                        "settle": {"quiet": "10ms"},
                    }
                },
            },
        )

    def reference(self, name: str, host: int = 0) -> str:
        return f"{self.hosts[host]}/{self.team}/{name}"

    def start(self, client: Client, asked: Request[Job]) -> None:
        job = client.call(asked)
        self.acknowledged[job.id] = asked.method

    def ask(self, client: Client) -> None:
        """Ask for everything at once."""
        by_hand = str(self.place / BY_HAND)
        self.start(client, request.pack(by_hand, self.reference(BY_HAND) + ":v2", push=True))
        self.start(client, request.pull(self.reference(ELSEWHERE) + ":v1"))
        copied = self.reference(BY_HAND, host=1) + ":v1"
        self.start(client, request.push(self.reference(BY_HAND) + ":v1", copied))
        self.start(client, request.collect_cache())

    def rest(self, client: Client, deadline_s: float) -> bool:
        """Wait until nothing is to be done; return whether it came to that."""
        end_s = time.monotonic() + deadline_s
        while time.monotonic() < end_s:
            status = client.call(request.status())
            left = [status.queue[state] for state in ("ready", "running", "scheduled")]
            if not any(left) and all(project.state == "idle" for project in status.projects):
                return True
            time.sleep(0.02)
        return False

    def prepare(self) -> None:
        """Make the state that every life begins with: a kit of each project, one elsewhere."""
        for name in (WATCHED, BY_HAND):
            write_project(self.place / name, b"0")
        with self.connected() as client:
            assert self.rest(client, DEADLINE_S), self.daemon.last_words()
            self.pack(client, BY_HAND)
        self.stop()

    def prepare_elsewhere(self) -> None:
        """Push a kit that the state directory knows nothing of."""
        for name in (WATCHED, ELSEWHERE):
            write_project(self.place / name, name.encode())
        with self.connected() as client:
            self.pack(client, ELSEWHERE)
        self.stop()

    def pack(self, client: Client, name: str) -> None:
        asked = request.pack(str(self.place / name), f"{self.reference(name)}:v1", push=True)
        job = client.wait(client.call(asked).id)
        assert job.state == "succeeded", job
        assert self.rest(client, DEADLINE_S), self.daemon.last_words()

    def connected(self) -> Client:
        self.daemon.start()
        client = self.daemon.connect(DEADLINE_S)
        assert client is not None, self.daemon.last_words()
        return client

    def stop(self) -> None:
        self.daemon.signal(signal.SIGTERM)
        code = self.daemon.wait(DEADLINE_S)
        assert code == 0, f"exit code {code}: {self.daemon.last_words()}"
        left = reap_orphans(10.0)
        assert not left, f"processes left behind: {left}"

    def reset(self, template: Path, content: bytes) -> None:
        """Begin anew: the state of the template, and projects that were saved since."""
        shutil.rmtree(self.daemon.state, ignore_errors=True)
        shutil.copytree(template, self.daemon.state)
        self.daemon.log.unlink(missing_ok=True)
        self.acknowledged.clear()
        for name in (WATCHED, BY_HAND):
            write_project(self.place / name, content)

    def suffer(self, plan: Plan) -> int | None:
        """Live with the fault until everything is done; return how the daemon ended by itself."""
        self.daemon.start()
        client = None
        try:
            client = self.daemon.connect(DEADLINE_S)
            if client is not None:
                self.ask(client)
                if plan.all_from_there:
                    self.rest(client, FULL_S)
        except KitdError as error:
            # Refused, or gone: what was acknowledged is noted.
            self.refusals[getattr(error, "code", "gone")] += 1
        plan.armed = 0 if plan.all_from_there else 1
        try:
            if client is not None:
                self.rest(client, DEADLINE_S)
        except KitdError:
            pass
        finally:
            if client is not None:
                client.close()
        return self.daemon.ended()

    def run(self, plan: Plan) -> list[str]:
        """One life with the fault, one after it; return what is wrong."""
        plan.armed = 1
        ended = self.suffer(plan)
        # The checkpoint at the end is a courtesy: all that was acknowledged is in the WAL by then.
        is_closing = ended is None and not plan.hits
        if ended is None:
            self.daemon.signal(signal.SIGTERM)
        code = self.daemon.wait(DEADLINE_S)
        plan.armed = 0
        hit = plan.hit.decode()
        failed_sync = hit.partition(" ")[0] in SYNCING and hit != self.untold
        failed_sync = failed_sync and not (is_closing and ".sqlite3" in hit)
        allowed = (
            {EX_IOERR} if failed_sync else {EX_IOERR, EX_TEMPFAIL, *([0] if ended is None else [])}
        )
        if not plan.hits:
            allowed = {0}
        wrong = []
        if code not in allowed:
            wrong.append(f"ended with {code}: {self.daemon.last_words()}")
        left = reap_orphans(10.0)
        if left:
            wrong.append(f"processes left behind: {left}")
        attempts = 1 if ended is None and plan.full else None
        return wrong + self.recover(attempts)

    def recover(self, attempts: int | None) -> list[str]:
        """Start on a disk that works; return what is wrong with what is found in the end."""
        with self.connected() as client:
            wrong = [] if self.rest(client, DEADLINE_S) else ["does not come to rest"]
            jobs = [client.call(request.get_job(job)) for job in self.acknowledged]
        self.stop()
        for job in jobs:
            if job.state not in ("succeeded", "superseded"):
                wrong.append(f"job {job.id} ({job.kind}) is {job.state}: {job.error}")
            elif attempts is not None and job.attempt > attempts:
                wrong.append(f"job {job.id} ({job.kind}) burned {job.attempt} attempts")
        cache = self.daemon.state / "cache"
        with aftermath.opened(self.daemon.state) as ledger:
            wrong += aftermath.ledger_faults(ledger) + aftermath.rest_faults(ledger)
            wrong += aftermath.cache_faults(ledger, cache)
        wrong += map(str, audit_ledger(self.daemon.state / aftermath.LEDGER))
        wrong += aftermath.leftovers(cache)
        for host in self.hosts:
            names = [f"{self.team}/{name}" for name in (WATCHED, BY_HAND, ELSEWHERE)]
            wrong += aftermath.registry_faults(host, names)
        return wrong


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("place", type=Path)
    parser.add_argument("registries", nargs=2)
    parser.add_argument("--mode", choices=("eio", "enospc", "full"), required=True)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    options = parser.parse_args()
    adopt_orphans()
    plan = mapped_plan()
    plan.armed = 0
    life = Life(options.place / "life", options.registries, f"calls-{options.mode}")
    life.prepare_elsewhere()
    shutil.rmtree(life.daemon.state)
    life.prepare()
    template = options.place / "template"
    life.daemon.state.rename(template)
    plan.below = os.fsencode(life.daemon.state)
    plan.full = options.mode != "eio"
    plan.all_from_there = options.mode == "full"
    began_s = time.monotonic()
    hits: Counter[str] = Counter()
    wrong: list[str] = []
    n, lives, reached = options.first, 0, True
    while reached and time.monotonic() - began_s < options.seconds:
        life.reset(template, str(n).encode())
        plan.count, plan.target, plan.hits, plan.hit = 0, n, 0, b""
        found = life.run(plan)
        call, _, path = plan.hit.decode().partition(" ")
        reached = plan.hits > 0
        if reached:
            place = Path(path).relative_to(life.daemon.state).parts
            hits[f"{call} {place[0] if len(place) == 1 else '/'.join(place[:-1])}"] += 1
        wrong += [f"n = {n}, {call} {path}: {line}" for line in found]
        lives += 1
        n += options.step
        if found:
            print("\n".join(wrong[-len(found) :]), file=sys.stderr, flush=True)
    summary = {
        "mode": options.mode,
        "lives": lives,
        "last": n - options.step,
        "complete": not reached,
        "seconds": round(time.monotonic() - began_s, 1),
        "wrong": wrong,
        "hits": dict(sorted(hits.items())),
        "refusals": dict(life.refusals),
    }
    print(json.dumps(summary))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
