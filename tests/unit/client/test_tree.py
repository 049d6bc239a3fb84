"""What two layers may both say about a name."""

import pytest

from kitd.client.tar_reader import TarError
from kitd.client.tree import StagedFile, Tree

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
