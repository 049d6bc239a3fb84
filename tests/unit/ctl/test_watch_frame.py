"""What `kitctl status --watch` draws, for terminals of every size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitd.client.record import Failure, Job, Progress, Project, Status
from kitd.ctl.cells import cells_of
from kitd.ctl.format import timestamp_s
from kitd.ctl.watch_frame import Pace, View, frame_lines

NOW_S = timestamp_s("2026-01-02T03:04:05Z")
LATELY, LONG_AGO = "2026-01-02T03:00:05Z", "2025-12-01T00:00:00Z"


class Plain:
    def paint(self, _colour, text):
        return text

    def paint_state(self, state):
        return state


def job(number, state="running", *, finished=None):
    error = Failure("unpackable", "there is no Kitfile", None) if state == "failed" else None
    return Job(
        number, "pack", state, None, f"team/m-{number}", 1, 5, LATELY, LATELY, finished, None,
        None, None, error, None, (), {},
    )  # fmt: skip


def project(name, state="idle", reason=None):
    return Project(name, "/srv", f"team/{name}", state, reason, None, None, None, {})


def view(*, projects=(), running=(), failed=(), degraded=(), paces=None, away=None):
    daemon = {"version": "1.0", "state": "ready", "uptime_s": 60, "pid": 7}
    status = Status(daemon, tuple(projects), {"running": 1}, {}, tuple(degraded), {})
    return View(status, running, failed, paces or {}, away)


def drawn(shown, columns=80, rows=24):
    return frame_lines(shown, NOW_S, columns, rows, Plain())


def test_trouble_comes_first():
    lines = drawn(
        view(
            projects=[project("a"), project("b", "packing"), project("c", "blocked", "Kitfile:3")],
            running=[job(12), job(13)],
            failed=[job(9, "failed", finished=LATELY), job(8, "failed", finished=LONG_AGO)],
            degraded=["the disk is nearly full"],
            paces={12: Pace(Progress("packing", 1 << 30, 4 << 30), 1 << 20, 3.2)},
        )
    )
    assert lines == [
        "kitd 1.0 is ready, up 1m, pid 7",
        "  degraded: the disk is nearly full",
        "",
        "job 9 (pack team/m-9) failed 4m ago: there is no Kitfile",
        "",
        "   12  team/m-12  packing  [##------]   25%  1.0 of 4.0 GiB  1.0 MiB/s  4s left",
        "   13  team/m-13  pack, for 4m",
        "",
        "PROJECT   STATE     LAST KIT   PACKED   REFERENCE",
        "c         blocked   -          -        team/c",
        "  Kitfile:3",
        "b         packing   -          -        team/b",
        "a         idle      -          -        team/a",
        "",
        "queue   1 running, 0 ready, 0 scheduled, 0 failed",
    ]


def test_what_there_is_no_room_for_is_counted():
    lines = drawn(
        view(
            projects=[project(f"p{number}") for number in range(30)],
            running=[job(number) for number in range(30)],
            degraded=["x"] * 9,
        ),
        rows=20,
    )
    assert len(lines) == 20
    assert lines[5] == "  … and 5 more: kitctl status"
    assert [line for line in lines if line.startswith("  … and")][1:] == [
        "  … and 22 more",
        "  … and 30 more",
    ]


@pytest.mark.parametrize(
    ("recent", "old", "are_all", "line"),
    [
        (5, 0, True, None),
        (5, 90, False, None),
        (6, 0, True, "  … and 1 more"),
        (40, 50, True, "  … and 35 more"),
        (40, 60, False, "  … and at least 35 more"),
        (100, 0, True, "  … and 95 more"),
        (100, 0, False, "  … and at least 95 more"),
    ],
)
def test_jobs_that_failed_lately_are_counted(recent, old, are_all, line):
    failed = [job(900 - number, "failed", finished=LATELY) for number in range(recent)]
    failed += [job(100 - number, "failed", finished=LONG_AGO) for number in range(old)]
    lines = drawn(view(failed=failed)._replace(are_all_failed=are_all))
    shown = [number for number, each in enumerate(lines) if " failed 4m ago: " in each]
    assert len(shown) == 5
    after = lines[shown[-1] + 1]
    assert after == (line or "")
    small = drawn(view(failed=failed)._replace(are_all_failed=are_all), rows=7)
    assert small[-3] == f"  … and {'' if are_all else 'at least '}{recent - 2} more"


def test_a_daemon_that_is_away_is_told_before_all_else():
    assert drawn(view(away="kitd is away: no socket"))[0] == "kitd is away: no socket"


@given(
    st.integers(1, 200),
    st.integers(1, 60),
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(0, 20),
    st.lists(st.text(max_size=300), max_size=12),
)
def test_a_frame_fits(columns, rows, projects, running, failed, reasons):
    shown = view(
        projects=[
            project(f"重み-{number}", "blocked" if number % 3 else "idle", "a reason " * number)
            for number in range(projects)
        ],
        running=[job(number) for number in range(running)],
        failed=[job(number, "failed", finished=LATELY) for number in range(failed)],
        degraded=reasons,
    )
    lines = drawn(shown, columns, rows)
    assert len(lines) <= rows
    assert max(map(cells_of, lines)) <= columns or columns < 2


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_the_smallest_terminal_shows_how_kitd_is(rows):
    shown = view(projects=[project("a")], running=[job(1)], degraded=["x"])
    assert drawn(shown, rows=rows)[0].startswith("kitd 1.0 is ready")
