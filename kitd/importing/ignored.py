"""Which files of a repository its .kitignore leaves out, found in a process of its own.

The patterns are somebody else's, and some take for ever on some names: the interpreter does nothing
else meanwhile, and cannot be interrupted. So they are tried where they can be ended.

`python -m kitd.importing.ignored` takes the patterns and the names on stdin, answers on stdout.
"""

import asyncio
import resource
import sys
from collections.abc import Sequence

import msgspec

from kitd.child import end, spawn
from kitd.errors import UnavailableError
from kitd.hub.error import InvalidHubTreeError
from kitd.modelkit.errors import KitignoreError
from kitd.modelkit.ignore import KITIGNORE_NAME, IgnoreRules

PATIENCE_S = 30.0
MAX_CPU_S = 60
_CHUNK_BYTES = 1 << 16


class NoProcessError(UnavailableError):
    """A process that was to look through a .kitignore cannot be started."""

    code = "no_worker"


class _Question(msgspec.Struct, frozen=True):
    rules: bytes
    paths: tuple[str, ...]


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The places of what is left out in the paths, or why the patterns cannot be read."""

    ignored: tuple[int, ...] = ()
    problem: str = ""
    hint: str | None = None


async def find_ignored(
    rules: bytes, paths: Sequence[str], *, patience_s: float = PATIENCE_S
) -> frozenset[str]:
    """Return those of the paths of files that a .kitignore leaves out.

    Raises `KitignoreError`, `InvalidHubTreeError` where it takes too long, `NoProcessError`.
    """
    question = msgspec.msgpack.encode(_Question(rules, tuple(paths)))
    try:
        async with asyncio.timeout(patience_s):
            content = await _ask(question)
    except TimeoutError as error:
        raise InvalidHubTreeError(
            f"the patterns of {KITIGNORE_NAME} take more than {patience_s:g} seconds",
            hint=f"leave it out with --exclude {KITIGNORE_NAME}",
        ) from error
    try:
        answer = msgspec.msgpack.decode(content, type=_Answer)
    except msgspec.DecodeError as error:
        raise NoProcessError(
            f"the process that looks through {KITIGNORE_NAME} ended in the middle",
            hint="see whether the machine is out of memory",
        ) from error
    if answer.problem:
        raise KitignoreError(answer.problem, hint=answer.hint)
    return frozenset(paths[place] for place in answer.ignored)


async def _ask(question: bytes) -> bytes:
    try:
        process = await spawn(sys.executable, "-I", "-m", "kitd.importing.ignored", cwd="/")
    except OSError as error:
        raise NoProcessError(
            f"cannot start a process: {error.strerror or error}",
            hint="see whether the machine is out of memory, processes or file descriptors",
        ) from error
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(question)
        process.stdin.write_eof()
        return await _whole(process.stdout)
    finally:
        await end(process)


async def _whole(stream: asyncio.StreamReader) -> bytes:
    content = b""
    while chunk := await stream.read(_CHUNK_BYTES):
        content += chunk
    return content


def answer_to(question: bytes) -> bytes:
    """Return the answer of the other process."""
    asked = msgspec.msgpack.decode(question, type=_Question)
    try:
        rules = IgnoreRules.parse(asked.rules)
    except KitignoreError as error:
        return msgspec.msgpack.encode(_Answer(problem=error.message, hint=error.hint))
    found = (n for n, path in enumerate(asked.paths) if rules.matches(path.encode()))
    return msgspec.msgpack.encode(_Answer(ignored=tuple(found)))


if __name__ == "__main__":
    # The daemon may be gone by then, and end nothing any more.
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
    sys.stdout.buffer.write(answer_to(sys.stdin.buffer.read()))
