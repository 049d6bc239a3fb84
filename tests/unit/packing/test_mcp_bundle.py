"""An MCP bundle is a ZIP archive with a manifest.json at its root."""

import os
import zipfile

import pytest

from kitd.packing.mcp_bundle import MAX_DIRECTORY_BYTES, bundle_problem


def problem(path):
    file = os.open(path, os.O_RDONLY)
    try:
        found = bundle_problem(file)
        os.fstat(file)
    finally:
        os.close(file)
    return found


@pytest.fixture
def bundle(tmp_path):
    """Write an archive with empty files of the given names."""

    def write(*names, before=b""):
        path = tmp_path / "tool.mcpb"
        path.write_bytes(before)
        with zipfile.ZipFile(path, "a" if before else "w") as archive:
            for name in names:
                archive.writestr(name, "")
        return path

    return write


def test_a_bundle_with_a_manifest_has_no_problem(bundle):
    assert problem(bundle("server/main.py", "manifest.json")) is None


def test_what_stands_before_the_archive_does_not_matter(bundle):
    assert problem(bundle("manifest.json", before=b"#!/bin/sh\n")) is None


@pytest.mark.parametrize("names", [[], ["a.json"], ["x/manifest.json"], ["Manifest.json"]])
def test_without_a_manifest_at_the_root_it_is_none(bundle, names):
    assert problem(bundle(*names)) == "it has no manifest.json at its root"


@pytest.mark.parametrize(
    "content",
    [b"", b"text", b"PK\x05\x06", b"PK\x05\x06" + b"\xff" * 18, b"PK\x05\x06" + b"\xff" * 4096],
)
def test_what_is_no_archive_is_no_bundle(tmp_path, content):
    path = tmp_path / "tool.mcpb"
    path.write_bytes(content)
    assert problem(path).startswith("it is not a readable ZIP archive: ")


def test_every_cut_and_every_changed_byte_is_judged_without_an_error(bundle, tmp_path):
    whole = bundle("manifest.json", "é").read_bytes()
    path = tmp_path / "damaged.mcpb"
    for position in range(len(whole)):
        for damaged in (
            whole[:position],
            whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :],
        ):
            path.write_bytes(damaged)
            problem(path)


def test_an_archive_with_a_huge_directory_is_refused_unread(bundle):
    names = [f"{number:05}{'x' * 60_000}" for number in range(MAX_DIRECTORY_BYTES // 60_000 + 1)]
    assert "its directory has more than" in problem(bundle("manifest.json", *names))


def test_the_size_of_the_files_does_not_matter(tmp_path):
    path = tmp_path / "tool.mcpb"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights", bytes(2 * MAX_DIRECTORY_BYTES))
        archive.writestr("manifest.json", "{}")
    assert problem(path) is None
