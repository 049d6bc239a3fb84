"""Datasets that are in no layer: objects of a store, and datasets of other kits."""

from collections.abc import Iterator

import pytest

from tests.e2e.object_store import SECRET_KEY, ObjectStore, serve_objects

KEY = "/data/a b/train.csv"
CONTENT = b"text,label\n" + bytes(range(256)) * 9000


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    with serve_objects() as store:
        yield store


@pytest.fixture
def packed(kitd, store, new_project, tmp_path):
    """A daemon with a kit of which one dataset is in the store; only kitctl knows the store."""
    daemon = kitd().start()
    daemon.environ.update(store.environ)
    hashed = store.put(KEY.replace(" ", "%20"), CONTENT)
    project = new_project(
        tmp_path / "project",
        "manifestVersion: 1.0.0\npackage: {name: demo}\nmodel: {name: m, path: model.bin}\n"
        "code: [{path: .}]\ndatasets:\n  - {name: near, path: data}\n"
        f"  - {{name: far, path: far/train.csv, remotePath: 's3:/{KEY}', remoteHash: {hashed}}}\n",
    )
    # Whoever works with the dataset has it where it belongs; it is in no layer for all that.
    (project / "far").mkdir()
    (project / "far" / "train.csv").write_bytes(CONTENT)
    (project / "lib.py").write_text("code")
    daemon.json("pack", project, "-t", "demo:v1")
    return daemon


def names(root):
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_a_remote_dataset_is_recorded_and_in_no_layer(packed, store, tmp_path):
    """Nobody goes there at pack, and an unpack says once that it is left out."""
    inspected = packed.json("inspect", "demo:v1")
    target = tmp_path / "target"
    done = packed.kitctl("unpack", "demo:v1", "-d", target)

    far = inspected["kitfile"]["datasets"][1]
    assert set(far) == {"name", "path", "remotePath", "remoteHash"}
    assert len(inspected["manifest"]["layers"]) == 3
    assert names(target) == {"Kitfile", "model.bin", "data/a.csv", "lib.py"}
    assert done.err.count("--include-remote") == 1
    assert store.statuses == []


def test_it_is_fetched_where_that_is_asked_for(packed, store, tmp_path):
    """Signed, in one request, and only if it is what it was."""
    target = tmp_path / "target"
    done = packed.kitctl("unpack", "demo:v1", "-d", target, "--include-remote")

    assert (done.code, done.err) == (0, "")
    assert (target / "far" / "train.csv").read_bytes() == CONTENT
    assert store.statuses == [200]


def test_a_filter_that_leaves_it_out_asks_nobody(packed, store, tmp_path):
    """By type and by name, as of any dataset."""
    near, far = tmp_path / "near", tmp_path / "far"
    done = packed.kitctl("unpack", "demo:v1", "-d", near, "-f", "datasets:near", "--include-remote")
    assert (done.err, names(near), store.statuses) == ("", {"data/a.csv"}, [])
    packed.kitctl("unpack", "demo:v1", "-d", far, "-f", "datasets:far", "--include-remote")
    assert names(far) == {"far/train.csv"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda store, environ: store.put(KEY.replace(" ", "%20"), b"other"), "its ETag is not"),
        (lambda store, environ: store.objects.clear(), "answers 404"),
        (lambda store, environ: environ.update(S3_SECRET_KEY="wrong"), "answers 403"),
        (lambda store, environ: environ.pop("S3_SECRET_KEY"), "answers 403"),
        (lambda store, environ: setattr(store, "cut", True), "too early"),
        (lambda store, environ: setattr(store, "redirect", store.url + "/x"), "answers 307"),
        (lambda store, environ: environ.update(S3_API_ENDPOINT="http://127.0.0.1:1"), "refused"),
    ],
    ids=["changed", "gone", "another's key", "no key", "cut", "sent elsewhere", "no store"],
)
def test_what_cannot_be_had_leaves_the_target_as_it_was(packed, store, tmp_path, change, why):
    """Not even the layers are there, which were complete; no secret is told."""
    change(store, packed.environ)
    target = tmp_path / "target"
    refused = packed.kitctl("unpack", "demo:v1", "-d", target, "--include-remote")

    assert refused.code == 1
    assert why in refused.err
    assert "a b/train.csv" in refused.err
    assert SECRET_KEY not in refused.err
    assert not target.exists()


def test_the_daemon_has_no_part_in_it(packed, store, tmp_path):
    """A store that only the daemon was told of is not asked with what it was told."""
    for name in store.environ:
        del packed.environ[name]
    packed.environ["S3_API_ENDPOINT"] = store.url
    packed.kitctl("unpack", "demo:v1", "-d", tmp_path / "target", "--include-remote")

    assert store.statuses == [403]


def test_a_kit_as_a_dataset_gives_its_datasets_to_the_directory(kitd, new_project, tmp_path):
    """And nothing else of it, and that only if it is asked for."""
    daemon = kitd().start()
    daemon.json("pack", new_project(tmp_path / "corpus"), "-t", "corpus:v1")
    project = new_project(
        tmp_path / "project",
        "manifestVersion: 1.0.0\nmodel: {name: m, path: model.bin}\n"
        "datasets: [{name: corpus, path: train/corpus, remotePath: 'corpus:v1'}]\n",
    )
    daemon.json("pack", project, "-t", "demo:v1")
    without, target = tmp_path / "without", tmp_path / "with"
    done = daemon.kitctl("unpack", "demo:v1", "-d", without)
    daemon.json("unpack", "demo:v1", "-d", target, "--include-remote")

    assert "1 remote dataset" in done.err
    assert names(without) == {"Kitfile", "model.bin"}
    assert names(target) == {"Kitfile", "model.bin", "train/corpus/data/a.csv"}


def test_a_kit_as_a_dataset_is_pulled_for_it(kitd, new_project, docker_registry, tmp_path):
    """Only its datasets are: the model stays in the registry."""
    corpus, demo = (f"{docker_registry.host}/{name}:v1" for name in ("corpus", "demo"))
    here = kitd().start()
    here.json("pack", new_project(tmp_path / "corpus"), "-t", corpus, "--push")
    kitfile = f"datasets: [{{name: corpus, path: corpus, remotePath: '{corpus}'}}]\n"
    here.json("pack", new_project(tmp_path / "project", kitfile), "-t", demo, "--push")
    there = kitd().start()
    target = tmp_path / "target"
    there.json("unpack", demo, "-d", target, "--include-remote")

    assert names(target) == {"Kitfile", "corpus/data/a.csv"}
    layers = there.json("inspect", corpus)["manifest"]["layers"]
    held = [
        (there.cache / "blobs" / "sha256" / layer["digest"].removeprefix("sha256:")).exists()
        for layer in layers
    ]
    assert held == [False, True]


def test_kits_that_are_each_others_datasets_are_no_endless_unpack(kitd, new_project, tmp_path):
    """The loop is found when somebody unpacks them: a pack does not follow datasets."""
    daemon = kitd().start()
    for name, other in (("one", "two"), ("two", "one")):
        kitfile = f"datasets: [{{name: d, path: {name}, remotePath: '{other}:v1'}}]\n"
        daemon.json("pack", new_project(tmp_path / name, kitfile), "-t", f"{name}:v1")
    target = tmp_path / "target"
    refused = daemon.kitctl("unpack", "one:v1", "-d", target, "--include-remote", "--json")

    assert refused.json["error"]["code"] == "reference_cycle"
    assert not target.exists()
