"""What two layers may both say about a name."""

import collections

import pytest

from kitd.client.tar_reader import MAX_ENTRIES, TarError, TooManyEntriesError
from kitd.client.tree import MAX_NAMES_BYTES, StagedFile, Tree

FILE = StagedFile(1, 1, 0)


def tree_of(*names: str) -> Tree:
    """Build a tree; a name that ends in `/` is a directory."""
    tree = Tree()
    for name in names:
        if name.endswith("/"):
            tree.add_directory(name[:-1].encode(), 0o700)
        else:
            tree.check_file(name.encode())
            tree.add_file(name.encode(), FILE)
    return tree


def test_parents_that_no_entry_describes_get_the_usual_mode():
    assert tree_of("a/b/c").directories == {b"a/b": 0o755, b"a": 0o755}


@pytest.mark.parametrize("names", [("a/", "a/f"), ("a/f", "a/")])
def test_an_entry_decides_the_mode_of_a_directory(names):
    assert tree_of(*names).directories == {b"a": 0o700}


def test_a_directory_may_come_twice_and_the_first_decides():
    tree = tree_of("a/", "a/")
    tree.add_directory(b"a", 0o755)
    assert tree.directories == {b"a": 0o700}


@pytest.mark.parametrize(
    "names",
    [
        ("a", "a"),
        ("a", "a/"),
        ("a/", "a"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("a", "a/b/"),
        ("a", "a/b/c"),
    ],
)
def test_any_other_name_may_come_once(names):
    with pytest.raises(TarError, match="'a' twice"):
        tree_of(*names)


def test_directories_that_names_imply_count_like_entries():
    tree = Tree()
    names = (b"%x/" % number + b"d/" * 99 + b"f" for number in range(MAX_ENTRIES // 100 + 1))
    with pytest.raises(TooManyEntriesError, match="more than 1000000 files and directories"):
        collections.deque(map(tree.check_file, names), 0)
    assert len(tree.directories) <= MAX_ENTRIES
    assert tree.remaining_entries <= 0


def test_names_are_bounded_together():
    tree = Tree()
    long = b"/".join([b"x" * 250] * 15)
    names = (b"%x/%b" % (number, long) for number in range(MAX_NAMES_BYTES // len(long) + 1))
    with pytest.raises(TooManyEntriesError, match="128 MiB together"):
        collections.deque(map(tree.check_file, names), 0)
    assert sum(map(len, tree.directories)) <= MAX_NAMES_BYTES
