"""Whether a project is still as it was: a walk by two processes, where it is large.

A glance costs one `stat` for each entry and next to nothing else, so that looking at a tree that
did not change takes about as long as `find` takes to list it. The interpreter runs one thread at a
time, and that is what a walk waits for: a second process takes half of the directories.
"""

import os
import signal
from dataclasses import dataclass, field

import msgspec

from kitd.errors import KitdError
from kitd.inotify import add_watch
from kitd.packing.cores import cores
from kitd.packing.order import Glance
from kitd.packing.recipe import Inputs, Recipe
from kitd.packing.scan import COARSE_GRANULE_NS, Sight, Sums, Watch, glance, racy_until

LARGE = 20_000
"""Entries from which a second process pays: forking one costs some milliseconds."""


@dataclass(slots=True)
class Watches:
    """Watches on the directories that a walk enters, or none without `inotify`."""

    inotify: int | None
    descriptors: set[int] = field(default_factory=set)
    refused: int | None = None
    """Why a directory could not be watched; none is tried after that."""

    def add(self, directory: int) -> None:
        """Watch an open directory."""
        if self.inotify is None or self.refused is not None:
            return
        try:
            self.descriptors.add(add_watch(self.inotify, directory))
        except OSError as error:
            self.refused = error.errno


class _Half(msgspec.Struct, frozen=True):
    """What the second process found."""

    total: str
    entries: int
    racy_until_ns: int
    descriptors: tuple[int, ...]
    refused: int | None


def as_glance(recipe: Recipe, inputs: Inputs) -> Glance | None:
    """Return what to compare the next sight with, None if a change may not show in it."""
    sight = inputs.tree.sight
    if sight.racy_until_ns > inputs.looked_ns:
        return None
    return Glance(digest=f"{recipe.digest}:{sight.digest}", entries=sight.entries)


def is_racy(inputs: Inputs) -> bool:
    """Whether a file that a layer takes may have changed since the walk without showing it."""
    looked_ns = inputs.looked_ns
    return inputs.tree.sight.racy_until_ns > looked_ns and any(
        looked_ns < racy_until(entry.ctime_ns) < looked_ns + 2 * COARSE_GRANULE_NS
        for entry in inputs.tree.entries
        if not entry.is_dir
    )


def is_unchanged(root: int, recipe: Recipe, known: Glance, watches: Watches) -> bool:
    """Whether the project still looks as it did. Raises what a walk does."""
    recipe_digest, _, tree_digest = known.digest.partition(":")
    if recipe.digest != recipe_digest:
        return False
    sight = take_sight(root, recipe, watches, entries=known.entries)
    return sight is not None and sight.digest == tree_digest


def take_sight(
    root: int, recipe: Recipe, watches: Watches, *, entries: int, large: int = LARGE
) -> Sight | None:
    """Glance at a tree that had so many entries; None where that came to no end.

    Raises what a walk does.
    """
    if entries >= large and cores() > 1:
        sums = _shared(root, recipe, watches)
    else:
        sums = _part(root, recipe, watches.add, 0, 1)
    return None if sums is None else sums.sight()


def _part(root: int, recipe: Recipe, watch: Watch, part: int, parts: int) -> Sums:
    selection = recipe.selection()
    return glance(root, selection, part=part, parts=parts, watch=watch, reader=recipe.reader)


def _shared(root: int, recipe: Recipe, watches: Watches) -> Sums | None:
    """Return both halves added up, or None if the second process came to no end."""
    first = os.getpid()
    read, write = os.pipe()
    try:
        second = os.fork()
    except OSError:
        # No more processes for this user, or no memory.
        os.close(read)
        os.close(write)
        return _part(root, recipe, watches.add, 0, 1)
    if second == 0:
        os.close(read)
        _report_half(root, recipe, watches, first, write)
    os.close(write)
    try:
        sums = _part(root, recipe, watches.add, 0, 2)
        with os.fdopen(read, "rb", closefd=False) as pipe:
            said = pipe.read()
    finally:
        os.close(read)
        # Whether it ended by itself by now, or what it finds is of no use any more.
        os.kill(second, signal.SIGKILL)
        os.waitpid(second, 0)
    try:
        half = msgspec.json.decode(said, type=_Half)
    except msgspec.DecodeError:
        return None
    sums.merge(Sums(int(half.total, 16), half.entries, half.racy_until_ns))
    watches.descriptors.update(half.descriptors)
    watches.refused = watches.refused or half.refused
    return sums


def _report_half(root: int, recipe: Recipe, watches: Watches, first: int, write: int) -> None:
    """Be the second process; never returns.

    It must not touch what the threads of the first may have held when it was forked: nothing but
    its own walk, the pipe, and the end.
    """

    def watch(directory: int) -> None:
        if os.getppid() != first:
            os._exit(0)
        watches.add(directory)

    try:
        # Anew, because two processes that list one open directory take the entries from each other.
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        sums = _part(os.open(".", flags, dir_fd=root), recipe, watch, 1, 2)
        half = _Half(
            f"{sums.total:x}",
            sums.entries,
            sums.racy_until_ns,
            tuple(watches.descriptors),
            watches.refused,
        )
        with os.fdopen(write, "wb") as pipe:
            pipe.write(msgspec.json.encode(half))
    except (KitdError, OSError):
        # Nothing was said: the first process walks by itself then, and meets the error again.
        pass
    finally:
        os._exit(0)
