"""What of a hub's files becomes a Kitfile, and what cannot."""

import msgspec
import pytest

from kitd.hub.error import InvalidHubTreeError
from kitd.hub.tree import HubFile, hub_source
from kitd.jobs.import_kit import IMPORT, ImportArgs, draft_for, needed_by, require_place_for_kitfile
from kitd.modelkit.dialect import Dialect
from kitd.modelkit.generate import CROWD
from kitd.modelkit.kitfile import parse_kitfile

SOURCE = hub_source("Org/Name", None)


def files(*paths):
    return [HubFile(path=path, size=1, blob="a" * 40, sha256="") for path in paths]


def test_a_root_with_more_files_than_a_kitfile_should_name_is_refused():
    many = files(*(f"{number}.json" for number in range(CROWD + 1)))
    with pytest.raises(InvalidHubTreeError, match="1001 files in its root") as caught:
        draft_for(SOURCE, many, "", Dialect.CURRENT)
    assert "-f" in (caught.value.hint or "")
    kitfile, _ = draft_for(SOURCE, many[:CROWD], "", Dialect.CURRENT)
    assert len(kitfile.datasets) == CROWD


@pytest.mark.parametrize("name", ["Kitfile", "kitfile", ".kitfile", ".kitignore"])
def test_a_directory_in_the_place_of_a_kitfile_is_refused(name):
    with pytest.raises(InvalidHubTreeError, match="is a directory") as caught:
        require_place_for_kitfile(files("a.json", f"{name}/a.json"))
    assert f"--exclude '{name}/*'" in (caught.value.hint or "")
    require_place_for_kitfile(files(name, f"d/{name}/a.json", f"{name}s/a.json"))


@pytest.mark.parametrize(
    ("entries", "ignored", "needed"),
    [
        ("data", [], [".kitignore", "data/a", "data/b"]),
        ("data", [".kitignore", "data/a", "x"], [".kitignore", "data/b"]),
        # Its layer is empty, and its path has to be there.
        ("data", [".kitignore", "data/a", "data/b"], [".kitignore", "data/a"]),
        (".", [".kitignore", "data/a", "data/b"], [".kitignore", "x"]),
        ("x", ["x"], [".kitignore", "x"]),
        ("absent", [], [".kitignore"]),
    ],
)
def test_what_is_ignored_is_not_needed(entries, ignored, needed):
    kitfile = parse_kitfile(f"manifestVersion: 1.0.0\ncode: [{{path: {entries}}}]".encode())
    found = needed_by(kitfile, files(".kitignore", "data/a", "data/b", "x"), ignored)
    assert sorted(file.path for file in found) == needed


@pytest.mark.parametrize(
    "other",
    [
        {"push": True},
        {"include": ("*.md",)},
        {"include": (), "exclude": ("src/",)},
        {"kitfile": "manifestVersion: 1.0.0\n"},
        {"kitfile": ""},
        {"asker": 1000},
    ],
)
def test_a_wish_takes_the_place_of_its_equal_only(other):
    """A waiting import with a push would else be one without."""
    wish = ImportArgs(
        source=hub_source("org/name", None),
        include=("src/",),
        exclude=(),
        kitfile=None,
        repository="registry.example.com/org/name",
        tags=("latest",),
    )
    key = IMPORT.request(wish).key
    assert IMPORT.request(msgspec.structs.replace(wish)).key == key
    assert IMPORT.request(msgspec.structs.replace(wish, **other)).key != key
