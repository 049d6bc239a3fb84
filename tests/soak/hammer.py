"""A project that is used as badly as file systems allow.

`hammer.py ROOT --seed S --seconds N` lays out a project if there is none and works on it; when it
ends, the project is whole and nobody has a file of it open. `--list N` prints the first operations
that follow from a seed, and does nothing.

Two rules make every kit of such a project checkable by itself:

- Every file is empty or ends with the digest of what comes before (`stamped`), except while a
  program has it open for writing.
- `TOGETHER` are changed together: all are open before the first is written, and until the last is.
  All name the same transaction.
"""

import argparse
import contextlib
import enum
import hashlib
import itertools
import mmap
import os
import random
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO

MAX_FILES = 300
MAX_DEPTH = 6
SLOW_WRITERS = 3
TOGETHER = (b"model.bin", b"data/together", b"code/together", b"together")
KEPT = (b"Kitfile", b".kitignore", b".git", b"data", b"code", *TOGETHER)
"""What is always there: it is changed, never moved."""

KITFILE = """\
manifestVersion: 1.0.0
package: {{name: hammered, version: 0.0.{version}}}
model: {{name: weights, path: model.bin}}
datasets: [{{name: table, path: data}}]
{code}"""
CODE = "code: [{path: .}]\n"
IGNORE_LINES = ("scratch", "**/*.log")

NAMES = (
    b"plain.txt",
    b"other.csv",
    b"train.log",
    b"scratch",
    b"\xff\xfe not UTF-8 \x80",
    b"two\nlines",
    b"-rf",
    b"--",
    b" spaces ",
    b"tab\there",
    b"back\\slash",
    b"quo'te\"",
    b"star*?[a]",
    b"$HOME",
    b"trailing.",
    b"...",
    b".hidden",
    "é composed".encode(),
    "é decomposed".encode(),
    "模型-🧨".encode(),
    b"\x01control\x7f",
    b"l" * 251,
)


class Kind(enum.StrEnum):
    """What is done. The methods of `Hammer` have the same names."""

    CREATE = "create"
    CREATE_NESTED = "create_nested"
    REWRITE = "rewrite"
    REPLACE = "replace"
    TRUNCATE = "truncate"
    MAP = "map"
    SPARSE = "sparse"
    SLOW_APPEND = "slow_append"
    SLOW_MAP = "slow_map"
    TRANSACTION = "transaction"
    RENAME = "rename"
    MOVE_OUT = "move_out"
    MOVE_IN = "move_in"
    DELETE = "delete"
    LINK = "link"
    FLIP = "flip"
    CHMOD = "chmod"
    PIPE = "pipe"
    COMMIT = "commit"
    CHECKOUT = "checkout"
    IGNORE = "ignore"
    KITFILE = "kitfile"
    REPLACE_ROOT = "replace_root"
    REMOVE_ROOT = "remove_root"


WEIGHTS = {
    Kind.CREATE: 12,
    Kind.CREATE_NESTED: 4,
    Kind.DELETE: 6,
    Kind.COMMIT: 2,
    Kind.CHECKOUT: 2,
    Kind.IGNORE: 1,
    Kind.KITFILE: 1,
    Kind.REPLACE_ROOT: 0.3,
    Kind.REMOVE_ROOT: 0.3,
}
"""How often what is done; 3 for what is not named."""


TAKING_TIME = {Kind.SLOW_APPEND, Kind.SLOW_MAP, Kind.TRANSACTION}
"""What is done in a thread, if one is free."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing to do. `first` and `second` choose among what is there, as shares of its list."""

    kind: Kind
    first: float
    second: float
    name: bytes
    seed: int
    size: int
    stall_s: float
    """How long a slow one stops, again and again."""
    rest_s: float
    """How long to wait before the next."""


def operations(seed: int) -> Iterator[Operation]:
    """Yield operations without end; they depend on nothing but the seed."""
    rng = random.Random(seed)
    kinds = list(Kind)
    weights = [WEIGHTS.get(kind, 3) for kind in kinds]
    while True:
        (kind,) = rng.choices(kinds, weights)
        name = rng.choice(NAMES)
        yield Operation(
            kind=kind,
            first=rng.random(),
            second=rng.random(),
            # Numbers make room for many; a name that is as long as it may be has none for them.
            name=name if len(name) > 250 else name + b"%d" % rng.randrange(4) * rng.randrange(2),
            seed=rng.randrange(1 << 32),
            size=round(2 ** rng.uniform(0, 18)),
            stall_s=rng.uniform(0.2, 2.0),
            # Mostly bursts, now and then long enough to look like rest, or to be it.
            rest_s=rng.choices([0.0, 0.02, 0.3, 2.0], [20, 10, 2, 2])[0],
        )


def stamped(payload: bytes) -> bytes:
    return payload + hashlib.sha256(payload).hexdigest().encode()


def content(operation: Operation) -> bytes:
    return stamped(random.Random(operation.seed).randbytes(operation.size))


def chosen(candidates: list[bytes], share: float) -> bytes:
    """Return one of the candidates. Raises `FileNotFoundError` if there are none."""
    if not candidates:
        raise FileNotFoundError
    return candidates[int(share * len(candidates))]


class Hammer:
    """Works on one project, and in a directory beside it on the same file system."""

    def __init__(self, root: bytes, threads: ThreadPoolExecutor) -> None:
        self._root = root
        self._beside = root + b".beside"
        self._threads = threads
        self._slow: list[Future[None]] = []
        # The inodes of files that are written in threads.
        self._busy: set[int] = set()
        self._transacting = threading.Lock()
        self._numbers = itertools.count(time.time_ns())
        os.makedirs(self._beside, exist_ok=True)
        if not os.path.exists(self._path(b"Kitfile")):
            os.makedirs(root, exist_ok=True)
            self._lay(root)

    def apply(self, operation: Operation) -> None:
        """Do one operation; one that the tree does not allow now is none."""
        if operation.kind in TAKING_TIME:
            self._slow = [future for future in self._slow if not future.done()]
            if len(self._slow) == SLOW_WRITERS:
                return
        act: Callable[[Operation], None] = getattr(self, operation.kind)
        with contextlib.suppress(OSError):
            act(operation)

    def rest(self) -> None:
        """Return when nobody writes any more."""
        while self._slow:
            self._slow.pop().result()

    # What is there to choose from.

    def _path(self, name: bytes) -> bytes:
        return os.path.join(self._root, name)

    def _fresh(self) -> bytes:
        """Return a path beside the project that nothing has."""
        return os.path.join(self._beside, b"%d" % next(self._numbers))

    def _entries(self, want: Callable[[os.stat_result], bool]) -> list[bytes]:
        """Return the paths of entries that may be moved and deleted, in order."""
        found = []
        for directory, directories, files in os.walk(self._root):
            if directory == self._root and b".git" in directories:
                directories.remove(b".git")
            for name in sorted([*directories, *files]):
                path = os.path.join(directory, name)
                kept = os.path.relpath(path, self._root) in KEPT
                if not kept and want(os.lstat(path)):
                    found.append(path)
            directories.sort()
        return found

    def _files(self) -> list[bytes]:
        """Return the files that nobody writes into."""
        return self._entries(
            lambda status: stat.S_ISREG(status.st_mode) and status.st_ino not in self._busy
        )

    def _directories(self) -> list[bytes]:
        """Return the directories, the project's own and `data` among them."""
        found = self._entries(lambda status: stat.S_ISDIR(status.st_mode))
        depth = self._root.count(b"/") + MAX_DEPTH
        shallow = [path for path in found if path.count(b"/") < depth]
        return [self._root, self._path(b"data"), self._path(b"code"), *shallow]

    def _anything(self) -> list[bytes]:
        return self._entries(lambda _: True)

    def _new(self, operation: Operation) -> bytes:
        """Return where to put something new. Raises `OSError` if something is there."""
        path = os.path.join(chosen(self._directories(), operation.first), operation.name)
        if os.path.lexists(path) or len(self._anything()) > MAX_FILES:
            raise FileExistsError
        return path

    # Files.

    def create(self, operation: Operation) -> None:
        with open(self._new(operation), "xb") as file:
            file.write(content(operation))

    def create_nested(self, operation: Operation) -> None:
        directory = os.path.join(self._new(operation), b"a", b"b")
        os.makedirs(directory)
        with open(os.path.join(directory, operation.name), "xb") as file:
            file.write(content(operation))

    def rewrite(self, operation: Operation) -> None:
        with open(chosen(self._files(), operation.first), "r+b") as file:
            file.write(content(operation))
            file.truncate()

    def replace(self, operation: Operation) -> None:
        path = chosen(self._files(), operation.first)
        other = path + b".tmp"
        try:
            with open(other, "xb") as file:
                file.write(content(operation))
            os.replace(other, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(other)

    def truncate(self, operation: Operation) -> None:
        with open(chosen(self._files(), operation.first), "r+b") as file:
            kept = file.read(int(operation.second * os.fstat(file.fileno()).st_size))
            file.truncate(len(kept))
            if operation.size % 2:
                file.write(stamped(kept)[len(kept) :])
            else:
                file.truncate(0)

    def map(self, operation: Operation) -> None:
        """Change a file through memory, without a change of its size."""
        with open(chosen(self._files(), operation.first), "r+b") as file:
            size = os.fstat(file.fileno()).st_size
            memory = mmap.mmap(file.fileno(), size) if size > 64 else None
        if memory is not None:
            with memory:
                memory.write(stamped(random.Random(operation.seed).randbytes(size - 64)))

    def sparse(self, operation: Operation) -> None:
        island = random.Random(operation.seed).randbytes(100)
        with open(self._new(operation), "xb") as file:
            file.truncate(operation.size + 100)
            file.seek(operation.size)
            file.write(stamped(bytes(operation.size) + island)[operation.size :])

    def link(self, operation: Operation) -> None:
        os.link(chosen(self._files(), operation.second), self._new(operation))

    def chmod(self, operation: Operation) -> None:
        files = self._entries(lambda status: not stat.S_ISLNK(status.st_mode))
        path = chosen(files, operation.first)
        modes = (0o700, 0o755, 0o750) if os.path.isdir(path) else (0o600, 0o644, 0o755, 0o444)
        os.chmod(path, modes[operation.size % len(modes)])

    def pipe(self, operation: Operation) -> None:
        os.mkfifo(self._new(operation))

    # What takes its time, in threads.

    def slow_append(self, operation: Operation) -> None:
        self._begin_file(self._append, operation)

    def slow_map(self, operation: Operation) -> None:
        self._begin_file(self._fill_map, operation)

    def transaction(self, operation: Operation) -> None:
        self._begin(self._transact, operation)

    def _begin_file(
        self, write: Callable[[BinaryIO, Operation], None], operation: Operation
    ) -> None:
        file = open(self._new(operation), "x+b", buffering=0)  # noqa: SIM115 - a thread closes it
        inode = os.fstat(file.fileno()).st_ino
        self._busy.add(inode)

        def run(operation: Operation) -> None:
            with file:
                write(file, operation)
            self._busy.discard(inode)

        self._begin(run, operation)

    def _begin(self, run: Callable[[Operation], None], operation: Operation) -> None:
        self._slow.append(self._threads.submit(run, operation))

    def _append(self, file: BinaryIO, operation: Operation) -> None:
        for part in thirds(content(operation)):
            file.write(part)
            time.sleep(operation.stall_s)

    def _fill_map(self, file: BinaryIO, operation: Operation) -> None:
        whole = content(operation)
        file.truncate(len(whole))
        with mmap.mmap(file.fileno(), len(whole)) as memory:
            file.close()
            for part in thirds(whole):
                memory.write(part)
                time.sleep(operation.stall_s)

    def _transact(self, operation: Operation) -> None:
        with self._transacting, contextlib.ExitStack() as stack:
            number = next(self._numbers)
            files = [stack.enter_context(open(self._path(name), "r+b", 0)) for name in TOGETHER]
            for file in files:
                file.write(transaction(number))
                time.sleep(operation.stall_s)

    # Names.

    def rename(self, operation: Operation) -> None:
        source = chosen(self._anything(), operation.first)
        os.rename(
            source, os.path.join(chosen(self._directories(), operation.second), operation.name)
        )

    def move_out(self, operation: Operation) -> None:
        os.rename(chosen(self._anything(), operation.first), self._fresh())

    def move_in(self, operation: Operation) -> None:
        outside = sorted(os.path.join(self._beside, name) for name in os.listdir(self._beside))
        os.rename(chosen(outside, operation.second), self._new(operation))

    def delete(self, operation: Operation) -> None:
        path = chosen(self._anything(), operation.first)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)

    def flip(self, operation: Operation) -> None:
        """Put a link in the place of what it leads to, or the other way round."""
        path = chosen(self._anything(), operation.first)
        if os.path.islink(path):
            target = os.readlink(path)
            os.unlink(path)
            os.rename(target, path)
        else:
            target = self._fresh()
            os.rename(path, target)
            os.symlink(target, path)

    # Tools.

    def _git(self, *arguments: bytes | str) -> None:
        author = ("-c", "user.name=A", "-c", "user.email=a@example.com")
        subprocess.run(
            ["git", "-C", self._root, "-c", "gc.auto=0", *author, *arguments],
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
        )

    def commit(self, operation: Operation) -> None:
        if not os.path.exists(self._path(b".git")):
            self._git("init", "--quiet")
        names = [b"code/tracked/%d.py" % (operation.seed % 7 + n) for n in range(5)]
        os.makedirs(self._path(b"code/tracked"), exist_ok=True)
        self._git("checkout", "--quiet", "--force", "-B", f"branch-{operation.seed % 3}")
        for name in names:
            with open(self._path(name), "wb") as file:
                file.write(content(operation))
        self._git("add", "--force", "--", *names)
        self._git("commit", "--quiet", "--message", "more")

    def checkout(self, operation: Operation) -> None:
        self._git("checkout", "--quiet", "--force", f"branch-{operation.seed % 3}")

    # The project as a whole.

    def ignore(self, operation: Operation) -> None:
        taken = [line for bit, line in enumerate(IGNORE_LINES) if operation.size >> bit & 1]
        write_over(self._path(b".kitignore"), "\n".join([".git", *taken, ""]))

    def kitfile(self, operation: Operation) -> None:
        text = KITFILE.format(version=operation.size, code=CODE if operation.size % 3 else "")
        write_over(self._path(b"Kitfile"), text)

    def replace_root(self, operation: Operation) -> None:
        """Put another directory in the project's place."""
        self.rest()
        fresh, old = self._fresh(), self._fresh()
        os.mkdir(fresh)
        self._lay(fresh)
        os.rename(self._root, old)
        os.rename(fresh, self._root)
        shutil.rmtree(old)

    def remove_root(self, operation: Operation) -> None:
        """Delete the project, wait, and begin it anew."""
        self.rest()
        # Without it what is still there is no project.
        os.unlink(self._path(b"Kitfile"))
        shutil.rmtree(self._root)
        time.sleep(operation.stall_s)
        os.mkdir(self._root)
        self._lay(self._root)

    def _lay(self, root: bytes) -> None:
        number = next(self._numbers)
        for name in (b"data", b"code"):
            os.mkdir(os.path.join(root, name))
        for name in TOGETHER:
            with open(os.path.join(root, name), "xb") as file:
                file.write(transaction(number))
        write_over(os.path.join(root, b".kitignore"), ".git\n")
        # Last: before it is there, nothing is a project.
        write_over(os.path.join(root, b"Kitfile"), KITFILE.format(version=0, code=CODE))


def thirds(whole: bytes) -> Iterator[bytes]:
    for start in range(0, len(whole), len(whole) // 3):
        yield whole[start : start + len(whole) // 3]


def transaction(number: int) -> bytes:
    """Return what the files that change together hold; always as long."""
    return stamped(b"transaction %020d\n" % number)


def write_over(path: bytes, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root", nargs="?")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--list", type=int, metavar="N")
    options = parser.parse_args()
    if options.list is not None:
        for operation in itertools.islice(operations(options.seed), options.list):
            print(operation)
        return
    os.umask(0o022)
    with ThreadPoolExecutor(SLOW_WRITERS) as threads:
        hammer = Hammer(os.fsencode(os.path.abspath(options.root)), threads)
        end_s = time.monotonic() + options.seconds
        for operation in operations(options.seed):
            if time.monotonic() >= end_s:
                break
            hammer.apply(operation)
            time.sleep(operation.rest_s)
        hammer.rest()
    sys.stdout.flush()


if __name__ == "__main__":
    main()
