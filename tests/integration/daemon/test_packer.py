"""What is done again and what is not: real workers, a real cache, and a memory in a real file."""

import asyncio
import ctypes
import mmap
import os
import time
import zipfile
from contextlib import asynccontextmanager, contextmanager, suppress

import msgspec
import pytest

from kitd import __version__
from kitd.clock import SystemClock
from kitd.content.store import CollectedError, ContentNotFoundError
from kitd.daemon.author_reach import AuthorReach
from kitd.daemon.layer_relay import LayerRelays
from kitd.daemon.packer import MAX_ASIDES, Packer
from kitd.daemon.parent_finder import ParentFinder
from kitd.errors import Disposition, KitdError
from kitd.inotify import open_inotify, parse_events
from kitd.ledger.catalog import Catalog
from kitd.ledger.database import Database
from kitd.ledger.pack_memory import PackMemory
from kitd.packing.order import Opened, Packed, Planned, Project, Scanned, Unchanged
from kitd.packing.pool import WorkerPool
from kitd.packing.scan import racy_until
from kitd.store.blob_store import BlobStore
from kitd.store.content import CacheContent
from kitd.store.lease import LeaseBook

LAYERS = 10
KITFILE = "manifestVersion: 1.0.0\ndatasets:\n" + "".join(
    f"- {{name: d{number}, path: d{number}}}\n" for number in range(LAYERS)
)
ALL = {f"{number}.bin" for number in range(LAYERS)}
OPEN, IS_DIRECTORY = 0x20, 0x4000_0000


class Listening(WorkerPool):
    """A pool that remembers what its workers said."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.answers = []
        self.notices = []

    async def scan(self, order, hear, scanning):
        self.answers.append(await super().scan(order, self._listen(hear), scanning))
        return self.answers[-1]

    async def pack(self, project, hear, **named):
        self.answers.append(await super().pack(project, self._listen(hear), **named))
        return self.answers[-1]

    def _listen(self, hear):
        async def listen(notice):
            self.notices.append(notice)
            return await hear(notice)

        return listen


async def nothing(_manifest):
    """No kit is summarised here."""


class Life:
    """A packer in one life of kitd; what it was told of the layers it built is in `built`."""

    def __init__(self, database, pool, store):
        self.database = database
        self.pool = pool
        self.store = store
        relays = LayerRelays(no_registry, over_bytes=lambda: None)
        self.catalog = Catalog(database, SystemClock(), nothing)
        self.finder = ParentFinder(self.catalog, CacheContent(store), no_registry)
        memory = PackMemory(database, SystemClock())
        reach = AuthorReach(tuple, daemon_uid=os.geteuid(), nobody=None)
        self.packer = Packer(pool, memory, store, relays, self.finder, reach)
        self.leases = LeaseBook()
        self.held = CacheContent(store, self.leases).hold()
        self.built = []

    async def scan(self, project, watched=None):
        opened = []
        seen = await self.packer.scan(
            project, patience_s=900, opened=opened.append, watched=watched
        )
        status = os.stat(project.root)
        assert opened == [Opened(status.st_dev, status.st_ino)]
        return seen

    async def pack(self, project, expected=None):
        self.built.clear()
        return await self.packer.pack(
            project,
            expected=expected,
            destination=None,
            advanced=lambda _: None,
            built=self.built.append,
            keep=self.held.keep,
        )

    @property
    def answer(self):
        """What a worker answered last."""
        return self.pool.answers[-1]

    @property
    def planned(self):
        """How often workers asked which layers are known."""
        return sum(isinstance(notice, Planned) for notice in self.pool.notices)


async def no_registry(repository):
    raise AssertionError(f"nothing here goes to {repository}")


@pytest.fixture
def new_life(tmp_path):
    """Begin a life of kitd, on what the former ones left."""
    store = BlobStore(tmp_path / "cache")
    store.create()

    @asynccontextmanager
    async def new_life(inotify=None):
        async with (
            Database(tmp_path / "ledger.sqlite3") as database,
            Listening(store.root, inotify=inotify) as pool,
        ):
            yield Life(database, pool, store)

    return new_life


@pytest.fixture
async def life(new_life):
    async with new_life() as life:
        yield life


@pytest.fixture
def root(tmp_path):
    """The directory of a project of ten layers."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "Kitfile").write_text(KITFILE)
    for number in range(LAYERS):
        (root / f"d{number}").mkdir()
        (root / f"d{number}/{number}.bin").write_text(f"content {number}")
    return root


async def grow_old(root):
    """Wait until no file is so new that it could change without showing it."""
    async with asyncio.timeout(10):
        while racy_until(max(path.stat().st_ctime_ns for path in root.rglob("*"))) > time.time_ns():
            await asyncio.sleep(0.005)


@pytest.fixture
async def project(root):
    """The project, at rest."""
    await grow_old(root)
    return Project(root=str(root))


@pytest.fixture
def opened(root):
    """Return the names of the project's files that were opened since this was asked last.

    The kernel's own account: who reads a file has to open it.
    """
    handle = open_inotify()
    libc = ctypes.CDLL(None, use_errno=True)
    for directory in (root, *(path for path in root.rglob("*") if path.is_dir())):
        assert libc.inotify_add_watch(handle, os.fsencode(directory), OPEN) > 0

    def opened():
        try:
            events = list(parse_events(os.read(handle, 1 << 16)))
        except BlockingIOError:
            return set()
        return {event.name.decode() for event in events if not event.mask & IS_DIRECTORY}

    yield opened
    os.close(handle)


def changed(former, latter):
    """Return the numbers of the layers in which two packs differ."""
    pairs = zip(former.layers, latter.layers, strict=True)
    return [number for number, (old, new) in enumerate(pairs) if old.digest != new.digest]


async def test_a_second_scan_of_an_unchanged_project_opens_no_file(life, project, opened):
    first = await life.scan(project)
    assert isinstance(life.answer, Scanned)
    assert opened() >= ALL
    second = await life.scan(project)
    assert isinstance(life.answer, Unchanged)
    assert second == first
    assert opened() == {"Kitfile"}
    assert life.planned == 1


async def test_every_scan_of_an_unchanged_project_is_as_cheap_as_the_second(life, project):
    for _ in range(4):
        await life.scan(project)
    assert [type(answer) for answer in life.pool.answers] == [Scanned, *[Unchanged] * 3]


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "d3/3.bin").write_text("CONTENT 3"),
        lambda root: (root / "d3/3.bin").chmod(0o600),
        lambda root: (root / "d3/3.bin").rename(root / "d3/4.bin"),
        lambda root: (root / "d3/new").touch(),
        lambda root: (root / ".kitignore").write_text("d3/3.bin"),
        lambda root: (root / "Kitfile").write_text(KITFILE.replace("name: d3", "name: x")),
    ],
    ids=["content", "mode", "name", "new file", ".kitignore", "Kitfile"],
)
async def test_a_scan_of_a_changed_project_finds_another_state(life, project, root, change):
    first = await life.scan(project)
    change(root)
    second = await life.scan(project)
    assert isinstance(life.answer, Scanned)
    assert second.fingerprint != first.fingerprint


async def test_times_that_are_put_back_hide_no_change(life, project, root):
    file = root / "d3/3.bin"
    first, status = await life.scan(project), file.stat()
    with file.open("r+") as content:
        content.write("CONTENT 3")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert (await life.scan(project)).fingerprint != first.fingerprint


async def test_a_held_project_is_judged_anew_though_nothing_of_it_changed(life, project, root):
    """A program that closes a file changes none of its times."""
    with (root / "d5/5.bin").open("ab"):
        held = await life.scan(project)
        assert [(hold.gate, hold.path) for hold in held.holds] == [("writer", "d5/5.bin")]
        assert (await life.scan(project)).holds == held.holds
    released = await life.scan(project)
    assert released.holds == ()
    assert released.fingerprint == held.fingerprint


async def test_what_holds_a_whole_tree_is_seen_though_nothing_of_it_changed(
    life, project, root, tmp_path
):
    first = await life.scan(project)
    lock = tmp_path / ".git/index.lock"
    lock.parent.mkdir()
    lock.touch()
    held = await life.scan(project)
    assert isinstance(life.answer, Unchanged)
    assert held.fingerprint == first.fingerprint
    assert [hold.gate for hold in held.holds] == ["git"]
    lock.unlink()
    assert (await life.scan(project)).holds == ()


async def test_a_scan_after_a_pack_finds_what_was_packed(life, project, opened):
    packed = await life.pack(project)
    opened()
    scanned = await life.scan(project)
    assert isinstance(life.answer, Unchanged)
    assert (scanned.fingerprint, scanned.holds) == (packed.fingerprint, ())
    assert opened() == {"Kitfile"}


async def test_a_project_that_is_not_watched_any_more_is_forgotten(life, project):
    await life.scan(project)
    life.packer.forget(project)
    life.packer.forget(project)
    await life.scan(project)
    assert isinstance(life.answer, Scanned)


async def test_an_unchanged_project_is_watched_as_one_that_changed_is(new_life, project):
    inotify = open_inotify()
    told = []
    async with new_life(inotify) as life:
        for _ in range(2):
            await life.scan(project, watched=told.append)
        assert isinstance(life.answer, Unchanged)
    os.close(inotify)
    assert [len(watched.descriptors) for watched in told] == [1 + LAYERS] * 2
    assert set(told[0].descriptors) == set(told[1].descriptors)
    assert [watched.complete for watched in told] == [True, True]


async def test_a_pack_of_an_unchanged_project_opens_no_file(life, project, opened):
    first = await life.pack(project)
    assert len(life.built) == LAYERS
    assert opened() >= ALL
    again = await life.pack(project)
    assert isinstance(life.answer, Unchanged)
    assert opened() == {"Kitfile"}
    assert life.built == []
    assert all(layer.reused for layer in again.layers)
    assert msgspec.structs.replace(again, layers=()) == msgspec.structs.replace(first, layers=())
    assert [layer.digest for layer in again.layers] == [layer.digest for layer in first.layers]


async def test_the_memory_outlives_the_process(new_life, project, opened):
    async with new_life() as life:
        first = await life.pack(project)
    opened()
    async with new_life() as life:
        scanned = await life.scan(project)
        assert isinstance(life.answer, Unchanged)
        again = await life.pack(project)
        assert isinstance(life.answer, Unchanged)
    assert opened() == {"Kitfile"}
    assert first.fingerprint == again.fingerprint == scanned.fingerprint
    assert first.config_digest == again.config_digest


async def test_one_changed_layer_of_ten_is_the_only_one_that_is_read(
    new_life, project, root, opened
):
    """Also where the others were packed in a former life."""
    async with new_life() as life:
        first = await life.pack(project)
    (root / "d7/7.bin").write_text("another content")
    await grow_old(root)
    opened()
    async with new_life() as life:
        second = await life.pack(project)
        (told,) = life.built
    assert opened() == {"Kitfile", "7.bin"}
    assert changed(first, second) == [7]
    assert told == second.layers[7]
    assert [layer.reused for layer in second.layers] == [number != 7 for number in range(LAYERS)]


async def test_a_layer_that_is_not_in_the_cache_any_more_is_built_again(life, project, opened):
    first = await life.pack(project)
    life.store.path_of(first.layers[2].digest).unlink()
    opened()
    again = await life.pack(project)
    assert opened() == {"Kitfile", "2.bin"}
    assert [layer.digest for layer in life.built] == [first.layers[2].digest]
    assert again.config_digest == first.config_digest
    assert all(life.store.size_of(layer.digest) == layer.size for layer in again.layers)


async def test_a_layer_of_another_size_in_the_cache_is_built_again(life, project, opened):
    first = await life.pack(project)
    layer = first.layers[2]
    os.truncate(life.store.path_of(layer.digest), layer.size - 1)
    opened()
    await life.pack(project)
    assert opened() == {"Kitfile", "2.bin"}
    assert life.store.size_of(layer.digest) == layer.size


async def test_a_config_that_is_not_in_the_cache_any_more_is_made_without_reading_a_file(
    life, project, opened
):
    first = await life.pack(project)
    life.store.path_of(first.config_digest).unlink()
    opened()
    again = await life.pack(project)
    assert isinstance(life.answer, Packed)
    assert opened() == {"Kitfile"}
    assert life.built == []
    assert again.config_digest == first.config_digest
    assert life.store.size_of(first.config_digest) == first.config_size


async def test_what_another_version_of_kitd_remembers_is_not_known(new_life, project, opened):
    async with new_life() as life:
        await life.pack(project)
        older = f"UPDATE packed SET key = replace(key, '{__version__}:', '0.0.1:')"
        await life.database.write(lambda connection: connection.execute(older).rowcount)
    opened()
    async with new_life() as life:
        await life.scan(project)
        assert isinstance(life.answer, Scanned)
        await life.pack(project)
        assert len(life.built) == LAYERS
    assert opened() >= ALL


def kind(layer):
    """Return what a layer is, apart from what is in it."""
    return layer.media_type, tuple(layer.annotations.items())


@pytest.mark.parametrize(
    "settings",
    [{"compression": "gzip"}, {"layer_format": "raw"}, {"dialect": "kit-1.7"}],
    ids=["compression", "layer_format", "dialect"],
)
async def test_layers_of_other_settings_are_other_layers(life, root, opened, settings):
    """Going back to the former settings finds what they made."""
    kitfile = KITFILE
    for number in range(LAYERS):
        kitfile = kitfile.replace(f"path: d{number}}}", f"path: d{number}/{number}.bin}}")
    (root / "Kitfile").write_text(kitfile)
    await grow_old(root)
    plain, otherwise = Project(root=str(root)), Project(root=str(root), **settings)
    first = await life.pack(plain)
    opened()
    second = await life.pack(otherwise)
    assert isinstance(life.answer, Packed)
    assert len(life.built) == LAYERS
    assert opened() >= ALL
    assert second.fingerprint != first.fingerprint
    assert not {kind(layer) for layer in first.layers} & {kind(layer) for layer in second.layers}
    for project, packed in ((plain, first), (otherwise, second)):
        again = await life.pack(project)
        assert isinstance(life.answer, Unchanged)
        assert again.config_digest == packed.config_digest
    assert opened() == {"Kitfile"}


async def test_a_commit_since_the_last_pack_is_noted_though_no_file_changed(life, project, root):
    (root / ".git").mkdir()
    for commit in ("a" * 40, "b" * 40):
        (root / ".git/HEAD").write_text(commit)
        assert (await life.pack(project)).git_commit == commit
    assert isinstance(life.answer, Unchanged)


async def changed_a_moment_ago(root, act):
    """Change a file and act, until that was so quick that a change between would not have shown."""
    async with asyncio.timeout(20):
        while True:
            (root / "d4/4.bin").write_text(f"written at {time.time_ns()}")
            found = await act()
            if racy_until((root / "d4/4.bin").stat().st_ctime_ns) > time.time_ns():
                return found


async def test_a_scan_of_a_file_that_changed_a_moment_ago_is_not_relied_on(life, project, root):
    scanned = await changed_a_moment_ago(root, lambda: life.scan(project))
    assert scanned.glance is None
    await grow_old(root)
    assert (await life.scan(project)).fingerprint == scanned.fingerprint
    assert isinstance(life.answer, Scanned)
    await life.scan(project)
    assert isinstance(life.answer, Unchanged)


async def test_a_layer_of_a_file_that_changed_a_moment_ago_is_not_remembered(
    life, project, root, opened
):
    await life.pack(project)
    packed = await changed_a_moment_ago(root, lambda: life.pack(project))
    await grow_old(root)
    opened()
    again = await life.pack(project)
    assert opened() == {"Kitfile", "4.bin"}
    assert again.config_digest == packed.config_digest


@contextmanager
def open_file(path):
    with path.open("ab"):
        yield


@contextmanager
def mapped_file(path):
    """A shared mapping stays writable when every descriptor is closed: Python's keeps one."""
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    with path.open("r+b") as file:
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        address = libc.mmap(None, mmap.PAGESIZE, protection, mmap.MAP_SHARED, file.fileno(), 0)
    yield lambda byte: ctypes.memset(address, byte, 1)
    assert libc.munmap(address, mmap.PAGESIZE) == 0


@pytest.mark.parametrize("writer", [open_file, mapped_file])
async def test_a_file_that_a_program_has_open_for_writing_is_not_remembered(
    life, project, root, opened, writer
):
    with writer(root / "d6/6.bin"):
        packed = await life.pack(project)
        assert len(life.built) == LAYERS
    assert packed.glance is None
    opened()
    again = await life.pack(project)
    assert opened() == {"Kitfile", "6.bin"}
    assert again.config_digest == packed.config_digest
    await life.pack(project)
    assert isinstance(life.answer, Unchanged)


async def test_what_a_mapping_changes_after_it_was_packed_is_packed_next(life, project, root):
    """The page was written to before: writing to it again shows in no time of the file."""
    with mapped_file(root / "d6/6.bin") as write:
        write(ord("!"))
        await grow_old(root)
        first = await life.pack(project)
        write(ord("?"))
    second = await life.pack(project)
    assert changed(first, second) == [6]


async def test_a_pack_that_came_to_no_end_has_not_worked_for_nothing(life, root, opened):
    """The bundle is the smallest of all, and so the last to be begun."""
    (root / "Kitfile").write_text(KITFILE + "mcpServers: [{name: tool, path: tool.mcpb}]\n")
    (root / "tool.mcpb").write_text("none")
    await grow_old(root)
    project = Project(root=str(root))
    with pytest.raises(KitdError, match="not an MCP bundle"):
        await life.pack(project)
    done = {f"{int(layer.annotations['org.cncf.model.filepath'][1:])}.bin" for layer in life.built}
    # What another thread was at may be lost.
    assert len(done) >= LAYERS - (os.cpu_count() or 1)
    with zipfile.ZipFile(root / "tool.mcpb", "w") as archive:
        archive.writestr("manifest.json", "{}")
    await grow_old(root)
    opened()
    await life.pack(project)
    assert opened() == {"Kitfile", "tool.mcpb", *(ALL - done)}


async def test_the_state_that_came_to_rest_is_packed(life, project, root):
    scanned = await life.scan(project)
    packed = await life.pack(project, expected=scanned.fingerprint)
    assert packed.fingerprint == scanned.fingerprint
    again = await life.pack(project, expected=scanned.fingerprint)
    assert isinstance(life.answer, Unchanged)
    assert again.fingerprint == scanned.fingerprint


async def test_a_state_that_is_gone_is_not_packed(life, project, root):
    scanned = await life.scan(project)
    (root / "d1/new").touch()
    with pytest.raises(KitdError, match="changed since it came to rest") as caught:
        await life.pack(project, expected=scanned.fingerprint)
    assert (caught.value.code, caught.value.disposition) == ("input_changed", Disposition.SNOOZE)
    assert life.built == []


async def test_a_state_that_gave_way_to_the_one_packed_before_is_not_packed(life, project, root):
    """What is there is known and has a kit: it must not pass for the state that was asked for."""
    packed = await life.pack(project)
    (root / "d1/new").touch()
    await grow_old(root)
    scanned = await life.scan(project)
    assert scanned.fingerprint != packed.fingerprint
    (root / "d1/new").unlink()
    with pytest.raises(KitdError, match="changed since it came to rest") as caught:
        await life.pack(project, expected=scanned.fingerprint)
    assert (caught.value.code, caught.value.disposition) == ("input_changed", Disposition.SNOOZE)
    assert life.built == []
    assert (await life.scan(project)).fingerprint == packed.fingerprint


async def test_a_pack_whose_layer_a_collection_took_does_not_go_on(life, project):
    """Nothing of it is remembered, and the next attempt builds it again."""

    async def gone(_blobs):
        return False

    with pytest.raises(CollectedError) as caught:
        await life.packer.pack(
            project,
            expected=None,
            destination=None,
            advanced=lambda _: None,
            built=life.built.append,
            keep=gone,
        )
    assert caught.value.disposition is Disposition.SNOOZE
    assert life.built == []
    assert sum(row[0] for row in await life.database.read("SELECT count(*) FROM packed")) == 0


async def test_what_a_pack_counts_on_is_kept(life, project):
    """Whether it was built, known layer by layer, or known whole."""
    for _ in range(2):
        packed = await life.pack(project)
        wanted = {packed.config_digest, *(layer.digest for layer in packed.layers)}
        assert wanted <= life.leases.leased()
        life.held.release()
        life.held = CacheContent(life.store, life.leases).hold()


async def test_a_guests_kitfile_sends_kitd_to_no_registry(life, root):
    """Though its files are kitd's own, as those of an import are."""
    (root / "Kitfile").write_text("manifestVersion: 1.0.0\nmodel: {path: 'r.example.com/b:v1'}\n")
    with pytest.raises(KitdError, match="not in the cache") as caught:
        await life.pack(Project(root=str(root), is_guest=True))
    assert caught.value.hint == "kitctl pull r.example.com/b:v1"


async def test_a_kitfile_that_refers_to_others_all_the_time_is_not_followed_for_ever(life, root):
    """Each time that it is read anew it names another kit."""
    number = 0

    async def rename(repository):
        nonlocal number
        number += 1
        reference = f"r.example.com/b:v{number}"
        (root / "Kitfile").write_text(f"manifestVersion: 1.0.0\nmodel: {{path: '{reference}'}}\n")
        raise ContentNotFoundError("not there")

    life.finder._remote = rename
    with suppress(ContentNotFoundError):
        await rename(None)
    with pytest.raises(KitdError) as caught:
        await life.scan(Project(root=str(root)))
    assert caught.value.code == "parent_unknown"
    assert number == 1 + MAX_ASIDES
