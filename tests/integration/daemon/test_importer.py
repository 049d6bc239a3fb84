"""What imports have fetched: there as long as the job is, and gone afterwards."""

from types import SimpleNamespace

import pytest

from kitd.daemon.importer import DIRECTORY, Importer
from kitd.errors import NotFoundError
from kitd.hub.tree import HubFile
from kitd.queue.job import JobState
from kitd.store.blob_store import BlobStore

FILES = [
    HubFile(path="a.txt", size=1, blob="a" * 40, sha256=""),
    HubFile(path="deep/er/a.txt", size=1, blob="a" * 40, sha256=""),
    HubFile(path="kitfile", size=1, blob="a" * 40, sha256=""),
]


class Jobs:
    """Jobs by number; what is not there is over."""

    def __init__(self, **states):
        self.states = states

    async def job(self, number):
        try:
            return SimpleNamespace(state=self.states[f"job{number}"])
        except KeyError:
            raise NotFoundError(f"there is no job {number}") from None


@pytest.fixture
def store(tmp_path):
    store = BlobStore(tmp_path / "cache")
    store.create()
    return store


async def test_only_what_belongs_to_a_job_that_goes_on_stays(store):
    jobs = Jobs(job1=JobState.RUNNING, job2=JobState.FAILED, job3=JobState.SCHEDULED)
    importer = Importer(None, None, store, jobs)
    for number in (1, 2, 3, 4):
        (importer.place(number) / "blobs" / "x").write_text("x")
    # A removal that was cut short.
    (importer.place(2).with_suffix(".gone") / "blobs").mkdir(parents=True)
    importer.job_ended(SimpleNamespace(id=2))
    importer.job_ended(SimpleNamespace(id=4))
    await importer.sweep()
    assert sorted(path.name for path in (store.root / DIRECTORY).iterdir()) == ["1", "3"]
    assert (importer.place(1) / "blobs" / "x").read_text() == "x"


async def test_what_cannot_be_removed_keeps_nothing_else(store):
    importer = Importer(None, None, store, Jobs())
    for number in (1, 2, 3):
        importer.place(number)
        importer.job_ended(SimpleNamespace(id=number))
    # A removal that was cut short, of which a file is what a directory should be.
    (store.root / DIRECTORY / "2.gone").write_text("x")
    await importer.sweep()
    assert sorted(path.name for path in (store.root / DIRECTORY).iterdir()) == ["2", "2.gone"]


async def test_a_job_that_is_retried_meanwhile_keeps_its_directory(store):
    class Retried(Jobs):
        """Is retried, and begins, right after it was said to be over."""

        async def job(self, number):
            importer.place(number)
            return SimpleNamespace(state=JobState.FAILED)

    importer = Importer(None, None, store, Retried())
    (importer.place(5) / "blobs" / "x").write_text("x")
    importer.job_ended(SimpleNamespace(id=5))
    await importer.sweep()
    assert (store.root / DIRECTORY / "5" / "blobs" / "x").read_text() == "x"


def test_files_are_laid_out_under_their_names_with_one_kitfile(store):
    importer = Importer(None, None, store, Jobs())
    place = importer.place(7)
    (place / "blobs" / ("a" * 40)).write_text("x")
    for text in ("first", "second"):
        tree = importer.lay_out(place, FILES, text)
        found = {str(p.relative_to(tree)): p.read_text() for p in tree.rglob("*") if p.is_file()}
        assert found == {"a.txt": "x", "deep/er/a.txt": "x", "Kitfile": text}


def test_room_is_for_what_is_missing_and_for_the_kit(store):
    importer = Importer(None, None, store, Jobs())
    place, free = importer.place(7), store.free_bytes()
    large = HubFile(path="l", size=free * 2 // 3, blob="", sha256="b" * 64)
    assert importer.has_room_for(place, FILES)
    assert not importer.has_room_for(place, [large])
    (place / "blobs" / large.identity).touch()
    assert importer.has_room_for(place, [large])
