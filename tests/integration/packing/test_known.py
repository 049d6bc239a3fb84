"""What is known is not read again, and what may change without a sign is not known."""

import ctypes
import mmap
import os
import stat
import struct
import threading
import time

import msgspec
import pytest

from kitd.inotify import open_inotify
from kitd.modelkit.errors import KitfileError
from kitd.modelkit.ignore import IgnoreRules
from kitd.modelkit.plan import Selection
from kitd.packing.glance import (
    LARGE,
    Watches,
    take_sight,
)
from kitd.packing.order import (
    Advanced,
    Built,
    Packed,
    PackOrder,
    ParentKit,
    Project,
    Scanned,
    ScanOrder,
    Unchanged,
    Watched,
    WatchedPart,
)
from kitd.packing.recipe import read_recipe
from kitd.packing.scan import (
    COARSE_GRANULE_NS,
    GRANULE_NS,
    InputChangedError,
    Sums,
    glance,
    open_root,
    racy_until,
    scan,
)
from kitd.packing.worker import MAX_WATCHED, run_pack, run_scan

KITFILE = "manifestVersion: 1.0.0\ndatasets:\n" + "".join(
    f"- {{name: d{number}, path: d{number}}}\n" for number in range(10)
)
IN_OPEN = 0x20


class Opened:
    """The kernel's own account of what was opened in some directories."""

    def __init__(self, *directories):
        libc = ctypes.CDLL(None, use_errno=True)
        self.handle = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        for directory in directories:
            libc.inotify_add_watch(self.handle, os.fsencode(directory), IN_OPEN)

    def names(self):
        """Return the names of the files that were opened since it was asked last."""
        try:
            events = os.read(self.handle, 1 << 16)
        except BlockingIOError:
            return set()
        found, start = set(), 0
        while start < len(events):
            length = struct.unpack_from("iIII", events, start)[3]
            found.add(events[start + 16 : start + 16 + length].rstrip(b"\0").decode())
            start += 16 + length
        return found - {""}

    def close(self):
        os.close(self.handle)


@pytest.fixture
def tens(project):
    """A project of ten layers, old enough that a change of any file shows."""
    files = {f"d{number}/data{number}.bin": f"content {number}" for number in range(10)}
    root = project({"Kitfile": KITFILE, **files})
    grow_old(root)
    return root


def grow_old(root):
    """Wait until no file is so new that it could change without showing it."""
    newest_ns = max(path.stat().st_ctime_ns for path in root.rglob("*"))
    deadline = time.monotonic() + 10
    while racy_until(newest_ns) > time.time_ns():
        assert time.monotonic() < deadline


@pytest.fixture
def pack(store, daemon):
    def run(root, **order):
        project = Project(root=str(root))
        answer = run_pack(
            PackOrder(project=project, cache=str(store.root), label="x-", **order), daemon
        )
        for notice in daemon.notices:
            if isinstance(notice, Built) and notice.key is not None:
                daemon.layers[notice.key] = notice.layer
        return answer

    return run


@pytest.fixture
def look(daemon):
    def run(root, *, known=None):
        order = ScanOrder(project=Project(root=str(root)), patience_s=900, known=known)
        return run_scan(order, daemon, None)

    return run


def built(daemon):
    return [notice for notice in daemon.notices if isinstance(notice, Built)]


def test_an_unchanged_project_is_not_even_planned(pack, tens, daemon):
    first = pack(tens)
    assert isinstance(first, Packed)
    daemon.notices.clear()
    opened = Opened(*(tens / f"d{number}" for number in range(10)))
    assert isinstance(pack(tens, known=first.glance), Unchanged)
    assert opened.names() == set()
    assert not built(daemon)
    opened.close()


def test_what_a_parent_has_by_now_belongs_to_the_state(pack, look, project, daemon):
    """A project that did not change is packed anew where its parent has other paths."""
    root = project({"Kitfile": "model: {path: 'base:v1'}\ncode: [{path: .}]", "a/x": "", "b/x": ""})
    grow_old(root)
    daemon.kits["base:v1"] = (ParentKit("base:v1", '{"model": {"path": "a"}}'),)
    first = pack(root)
    assert first.parents == ("base:v1",)
    assert isinstance(pack(root, known=first.glance), Unchanged)
    daemon.kits["base:v1"] = (ParentKit("base:v1", '{"model": {"path": "b"}}'),)
    assert look(root, known=first.glance).fingerprint != first.fingerprint
    assert pack(root, known=first.glance).layers[0].digest != first.layers[0].digest


def test_kits_that_want_one_path_do_not_go_together(pack, project, daemon):
    root = project({"Kitfile": "model: {path: 'base:v1'}\ncode: [{path: a}]", "a/x": ""})
    daemon.kits["base:v1"] = (ParentKit("base:v1", '{"docs": [{"path": "./a/"}]}'),)
    with pytest.raises(KitfileError, match=r"Kitfile with its parents: .* use the same path a"):
        pack(root)


def test_one_changed_layer_of_ten_is_the_only_one_that_is_read(pack, tens, daemon):
    first = pack(tens)
    daemon.notices.clear()
    (tens / "d7/data7.bin").write_text("another content")
    grow_old(tens)
    opened = Opened(*(tens / f"d{number}" for number in range(10)))
    second = pack(tens, known=first.glance)
    assert opened.names() == {"data7.bin"}
    assert len(built(daemon)) == 1
    digests = [layer.digest for layer in second.layers]
    changed = [one for one, layer in enumerate(first.layers) if layer.digest != digests[one]]
    assert changed == [7]
    opened.close()


def test_each_layer_is_told_of_as_it_is_done_with_its_key(pack, tens, daemon):
    packed = pack(tens)
    (keys,) = daemon.asked
    assert {notice.key for notice in built(daemon)} == set(keys)
    assert {notice.layer.digest for notice in built(daemon)} == {
        layer.digest for layer in packed.layers
    }


def test_a_state_that_was_asked_for_and_is_gone_is_not_packed(pack, tens, look, daemon):
    seen = look(tens)
    (tens / "d3/data3.bin").write_text("something else")
    daemon.notices.clear()
    with pytest.raises(InputChangedError, match="changed since it came to rest"):
        pack(tens, expected=seen.fingerprint)
    assert not built(daemon)
    assert isinstance(pack(tens, expected=look(tens).fingerprint), Packed)


def test_a_scan_that_finds_what_is_known_says_so(look, tens):
    seen = look(tens)
    assert isinstance(seen, Scanned)
    assert isinstance(look(tens, known=seen.glance), Unchanged)
    (tens / "d1/new").write_text("x")
    again = look(tens, known=seen.glance)
    assert isinstance(again, Scanned)
    assert again.fingerprint != seen.fingerprint


def test_a_file_that_is_open_for_writing_leaves_nothing_known(pack, tens, daemon):
    with (tens / "d4/data4.bin").open("ab"):
        packed = pack(tens)
    assert packed.glance is None
    assert [notice.key for notice in built(daemon)].count(None) == 1


def test_a_file_that_is_new_leaves_nothing_known(pack, project, daemon):
    root = project({"Kitfile": "code: [{path: .}]", "a": "a"})
    deadline = time.monotonic() + 10
    while True:
        assert time.monotonic() < deadline
        (root / "a").write_text("b")
        daemon.notices.clear()
        packed = pack(root)
        if racy_until((root / "a").stat().st_ctime_ns) > time.time_ns():
            break
    assert packed.glance is None
    assert built(daemon)[0].key is None


@pytest.mark.parametrize(
    ("newest_ns", "looked_ns", "racy"),
    [
        (0, 10**18, False),
        (10**18 + 1, 10**18 + 1 + GRANULE_NS, False),
        (10**18 + 1, 10**18 + GRANULE_NS, True),
        (10**18 + 1, 10**18, True),
        (10**18, 10**18 + COARSE_GRANULE_NS - 1, True),
        (10**18, 10**18 + COARSE_GRANULE_NS, False),
    ],
)
def test_a_change_within_one_step_of_the_clock_may_hide(newest_ns, looked_ns, racy):
    assert (racy_until(newest_ns) > looked_ns) is racy


def no_parents(reference):
    raise AssertionError(f"nothing here refers to {reference}")


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_glance_in_parts_sees_what_a_walk_sees(project, parts):
    files = {f"d{number}/{deep}/f": "x" for number in range(10) for deep in ("a", "b/c")}
    root = project({"Kitfile": KITFILE, **files, "d1/link/x": "y"})
    (root / "d2/l").symlink_to("nowhere")
    handle = open_root(str(root))
    recipe = read_recipe(handle, Project(root=str(root)), no_parents)
    whole = scan(handle, Selection(recipe.plans, IgnoreRules.parse(b""))).sight
    total = Sums()
    shares = [glance(handle, recipe.selection(), part=part, parts=parts) for part in range(parts)]
    for share in shares:
        total.merge(share)
    assert total.sight() == whole
    assert all(share.entries for share in shares)
    os.close(handle)


def test_two_processes_see_what_one_sees(project):
    """Also what changes in either's share of the directories, and what both watch."""
    files = {f"d{n}/x": "" for n in range(20)} | {f"empty{n}/x": "" for n in range(1000)}
    root = project({"Kitfile": "code: [{path: .}]", **files})
    handle = open_root(str(root))
    recipe = read_recipe(handle, Project(root=str(root)), no_parents)
    seen = set()
    for number in (None, *range(20)):
        if number is not None:
            (root / f"d{number}/x").write_text("x")
        inotify = [open_inotify(), open_inotify()]
        alone, shared = [Watches(one) for one in inotify]
        sight = take_sight(handle, recipe, alone, entries=2, large=3)
        assert take_sight(handle, recipe, shared, entries=3, large=3) == sight
        assert len(shared.descriptors) == len(alone.descriptors) == 1021
        seen.add(sight.digest)
        for one in inotify:
            os.close(one)
    os.close(handle)
    assert len(seen) == 21


def test_a_scan_tells_which_directories_it_watches_also_where_it_fails(project, daemon):
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    root = project({"Kitfile": KITFILE, **{f"d{number}/x": "" for number in range(9)}})
    order = ScanOrder(project=Project(root=str(root)), patience_s=900, watch=True)
    with pytest.raises(Exception, match="d9"):
        run_scan(order, daemon, handle)
    (watched,) = [notice for notice in daemon.notices if isinstance(notice, Watched)]
    assert len(watched.descriptors) == 10
    (root / "d9").mkdir()
    assert os.read(handle, 4096)
    daemon.notices.clear()
    run_scan(order, daemon, handle)
    (watched,) = [notice for notice in daemon.notices if isinstance(notice, Watched)]
    assert (len(watched.descriptors), watched.complete, watched.refused) == (11, True, None)
    os.close(handle)


def test_both_processes_of_a_glance_watch_what_they_enter(tens, look, daemon):
    """The other one is gone when its watches are told of, and they are not."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    large = msgspec.structs.replace(look(tens).glance, entries=LARGE)
    order = ScanOrder(project=Project(root=str(tens)), patience_s=900, watch=True, known=large)
    assert isinstance(run_scan(order, daemon, handle), Unchanged)
    (watched,) = [notice for notice in daemon.notices if isinstance(notice, Watched)]
    assert len(watched.descriptors) == 11
    assert (watched.complete, watched.refused) == (True, None)
    for number in range(10):
        (tens / f"d{number}/new").touch()
        assert os.read(handle, 4096)
    os.close(handle)


def test_a_layer_that_cannot_be_built_stops_the_others_and_says_why(pack, tens, store, daemon):
    (tens / "d0/huge").touch()
    os.truncate(tens / "d0/huge", 1 << 30)
    grow_old(tens)
    daemon.on(Advanced, lambda _: os.truncate(tens / "d0/huge", 0))
    with pytest.raises(InputChangedError, match="d0/huge"):
        pack(tens)
    assert list(store.ingest_dir.iterdir()) == []


def test_what_was_packed_unfinished_is_judged_again(pack, look, project, daemon):
    """A person may pack what a gate holds back; that does not open the gate."""
    root = project({"Kitfile": "code: [{path: .}]", "a.safetensors": b"\x10" + bytes(40)})
    grow_old(root)
    packed = pack(root)
    assert any("a.safetensors" in warning for warning in packed.warnings)
    assert packed.glance is None
    assert [notice.key for notice in built(daemon)] == [None]
    assert [(hold.gate, hold.path) for hold in look(root).holds] == [("truncated", "a.safetensors")]


@pytest.mark.parametrize("size", [100, 1 << 20])
def test_what_a_mapping_stores_after_a_pack_shows(pack, look, project, size):
    """The page was dirty already: without a step that writes it back, nothing would stamp it."""
    root = project({"Kitfile": "code: [{path: .}]", "a": bytes(size)})
    with (root / "a").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[0] = 1
        grow_old(root)
        seen = look(root)
        packed = pack(root, expected=seen.fingerprint)
        time.sleep(0.02)  # the clock that stamps files has steps
        mapping[1] = 2
    assert packed.fingerprint == seen.fingerprint
    assert look(root).fingerprint != seen.fingerprint


def test_files_come_and_go_while_a_tree_is_looked_at(look, project):
    root = project({"Kitfile": "model: {path: a}", "a": "a", **{f"x/{n}": "" for n in range(2000)}})
    stopped = threading.Event()

    def churn():
        while not stopped.is_set():
            for number in range(0, 2000, 7):
                (root / f"x/{number}").unlink()
                (root / f"x/{number}").touch()

    churning = threading.Thread(target=churn)
    churning.start()
    try:
        assert len({look(root).fingerprint for _ in range(10)}) == 1
    finally:
        stopped.set()
        churning.join()


def test_every_file_counts_by_the_steps_of_its_own_clock(project):
    """One with whole seconds beside a newer one without: the older is racy for longer."""
    second_ns = 10**9
    coarse = os.stat_result((stat.S_IFREG, *[0] * 9), {"st_ctime_ns": 5 * second_ns})
    fine = os.stat_result((stat.S_IFREG, *[0] * 9), {"st_ctime_ns": 6 * second_ns + 1})
    for order in ([coarse, fine], [fine, coarse]):
        sums = Sums()
        sums.add(b"", [(b"%d" % number, status) for number, status in enumerate(order)])
        assert sums.sight().racy_until_ns == 5 * second_ns + COARSE_GRANULE_NS


def test_many_watches_are_told_in_parts(project, daemon):
    root = project({"Kitfile": "code: [{path: .}]"})
    for number in range(2 * MAX_WATCHED):
        (root / f"{number}").mkdir()
    inotify = open_inotify()
    order = ScanOrder(project=Project(root=str(root)), patience_s=900, watch=True)
    run_scan(order, daemon, inotify)
    os.close(inotify)
    told = [n for n in daemon.notices if isinstance(n, WatchedPart | Watched)]
    assert [len(notice.descriptors) for notice in told] == [MAX_WATCHED, MAX_WATCHED, 1]
    assert len({wd for notice in told for wd in notice.descriptors}) == 2 * MAX_WATCHED + 1
    assert isinstance(told[-1], Watched)


def test_a_file_that_no_layer_takes_makes_no_state_racy(look, project):
    """Else a program that writes its log all the time would keep a project from being packed."""
    root = project({"Kitfile": "model: {path: a}", "a": "a"})
    grow_old(root)
    for _ in range(20):
        (root / "log").write_text("x")
        assert not look(root).is_racy
    for _ in range(1000):
        # Again where the machine was so slow that the look came late.
        (root / "a").write_text("b")
        if look(root).is_racy:
            break
    else:
        pytest.fail("no look came early enough")
    grow_old(root)
    assert not look(root).is_racy
