"""When a daemon has nothing more to do, and what it costs then."""

import time
from collections import Counter

from benchmarks.measure import goal, mebibytes
from benchmarks.process import Meter, memory, use_of
from benchmarks.scene import Scene
from kitd.client import request

POLL_S = 0.5
REST_S = 5.0
"""How long nothing must have happened: longer than the quiet time and any second look."""
BUSY_SHARE = 0.25
"""Of a core: more than these polls cost. A state alone does not tell that nobody looked yet."""
MOST_CPU, MOST_WAKEUPS_PER_S, MOST_BYTES = 0.005, 5.0, 120 << 20


def await_rest(scene: Scene, started_s: float, *, deadline_s: float) -> float:
    """Return how long after `started_s` the last thing happened, once there is rest.

    At rest is a daemon of which every project has a kit and is idle, and whose processes hardly
    run. `started_s` is on the monotonic clock.
    """
    busy_s = time.monotonic()
    with scene.connect() as client:
        meter, before = Meter(scene.pid), 0.0
        while time.monotonic() - busy_s < REST_S:
            polled_s = time.monotonic()
            time.sleep(POLL_S)
            projects = client.call(request.list_projects())
            unfinished = Counter(
                project.state
                for project in projects
                if project.state != "idle" or project.last_digest is None
            )
            now_s, cpu_s = time.monotonic(), meter.read().cpu_s
            if unfinished or cpu_s - before > BUSY_SHARE * (now_s - polled_s):
                busy_s = now_s
            before = cpu_s
            assert now_s - started_s < deadline_s, f"no rest after {deadline_s:g} s: {unfinished}"
    return busy_s - started_s


def cost(scene: Scene, span_s: float) -> str:
    """Look on for some time; return what the daemon and its workers used, and hold."""
    usage, held = use_of(scene.pid, span_s), memory(scene.pid)
    resident = " + ".join(f"{part / 2**20:.0f}" for part in held.resident_bytes)
    cpu, wakeups_per_s = usage.cpu_s / usage.span_s, usage.wakeups / usage.span_s
    held_bytes = sum(held.proportional_bytes)
    is_met = cpu <= MOST_CPU and wakeups_per_s <= MOST_WAKEUPS_PER_S and held_bytes <= MOST_BYTES
    most = f"at most {MOST_CPU:.1%}, {MOST_WAKEUPS_PER_S:g}/s, PSS {mebibytes(MOST_BYTES)}"
    return (
        f"  over {usage.span_s:.0f} s: CPU {cpu:.2%} of a core,"
        f" {wakeups_per_s:.2f} wake-ups/s,"
        f" {usage.written_bytes / usage.span_s / 1024:.2f} KiB/s written to disk\n"
        f"  memory: PSS {mebibytes(held_bytes)},"
        f" RSS {mebibytes(sum(held.resident_bytes))} ({resident})\n"
        f"  {goal(most, is_met=is_met)}"
    )
