"""Lexical rules for the slash-separated paths of Kitfiles and .kitignore files."""

import posixpath


def clean_path(path: str) -> str:
    """Return the shortest path that names the same place; "" becomes `.` (Go's filepath.Clean)."""
    cleaned = posixpath.normpath(path)
    # POSIX lets exactly two leading slashes mean something else; here they do not.
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def escapes(path: str) -> bool:
    """Whether a relative path leads out of the directory it is relative to."""
    return clean_path(path).partition("/")[0] == ".."


def is_within(path: str, directory: str) -> bool:
    """Whether a cleaned path is a cleaned directory or lies beneath it, by whole elements."""
    return directory in {".", path} or path.startswith(directory + "/")
