"""What git lists, and the pointers of LFS."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitd.hub.error import InvalidHubTreeError
from kitd.hub.git_tree import notes_of, parse_pointer, parse_tree, with_pointers
from kitd.hub.tree import MAX_FILES, Choice

OID = "ab" * 32
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{OID}\nsize 12345\n".encode()


def entry(path, mode="100644", kind="blob", size="12"):
    return f"{mode} {kind} {'a' * 40} {size:>7}\t{path}\0".encode()


def test_files_links_and_other_repositories_are_told_apart():
    tree = parse_tree(
        entry("README.md")
        + entry("bin/run", mode="100755")
        + entry("link", mode="120000")
        + entry("sub", mode="160000", kind="commit", size="-")
        + entry("deep/.gitattributes")
        + entry("odd\tname\nü")
    )
    assert [(file.path, file.is_executable, file.size) for file in tree.files] == [
        ("README.md", False, 12),
        ("bin/run", True, 12),
        ("odd\tname\nü", False, 12),
    ]
    assert (tree.links, tree.submodules) == (("link",), ("sub",))
    assert len(notes_of(tree)) == 2
    assert notes_of(parse_tree(entry("x"))) == ()


@pytest.mark.parametrize(
    "content", [b"nonsense\0", entry("x", size="-"), entry("x").replace(b"x\0", b"\xff\0")]
)
def test_what_cannot_be_read_is_refused(content):
    with pytest.raises(InvalidHubTreeError):
        parse_tree(content)


def test_files_are_counted_once_they_were_chosen():
    """A few of very many can be had."""
    many = b"".join(entry(f"images/{number}.png") for number in range(MAX_FILES + 1))
    tree = parse_tree(many + entry("m.bin") + entry("l", mode="120000"), Choice(("*.bin",)))
    assert ([file.path for file in tree.files], tree.links) == (["m.bin"], ())
    with pytest.raises(InvalidHubTreeError) as caught:
        parse_tree(many)
    assert "--include" in (caught.value.hint or "")


@given(st.binary())
def test_whatever_is_listed_is_read_or_refused(content):
    try:
        parse_tree(content)
    except InvalidHubTreeError:
        return


def test_a_pointer_is_read_and_takes_the_files_place():
    assert parse_pointer(POINTER) == (OID, 12345)
    extended = POINTER.replace(b"oid", b"ext-0-foo sha256:" + b"c" * 64 + b"\noid")
    assert parse_pointer(extended) == (OID, 12345)
    (file,) = with_pointers(parse_tree(entry("m")).files, {"a" * 40: (OID, 12345)})
    assert (file.identity, file.size, file.blob) == (OID, 12345, "")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version https://git-lfs.github.com/spec/v1\n",
        POINTER.replace(b"sha256", b"md5"),
        POINTER.replace(b"size 12345", b"size -1"),
        POINTER.replace(b"size 12345", b"size 9\nsize 12345"),
        POINTER.replace(b"v1", b"v2"),
        b"\n" + POINTER,
        POINTER + b"x" * 1024,
    ],
)
def test_what_is_no_pointer_is_a_file_like_any_other(content):
    assert parse_pointer(content) is None
