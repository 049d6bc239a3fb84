"""Work that takes a job: the request that starts it, and how its end is read.

It is data, as requests are: `Client.run` and `AsyncClient.run` do it.
"""

import os
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from kitd.client import request
from kitd.client.outcome import Moved, PackedKit, read_moved, read_packed
from kitd.client.record import Job
from kitd.client.request import Request

T = TypeVar("T")


class Work(NamedTuple, Generic[T]):
    """A job that is asked for, and what it comes to with those that it asked for in turn."""

    start: Request[Job]
    read: Callable[[Job, Sequence[Job]], T]
    with_followers: bool = False
    """Whether the jobs that follow have to end as well."""


def pack(
    directory: str | os.PathLike[str],
    reference: str,
    *,
    kitfile: str | None = None,
    compression: str | None = None,
    push: bool = False,
) -> Work[PackedKit]:
    """Pack a directory as `reference`, `repository:tag,tag...`, and `push` it where that is said.

    `kitfile` is a path within the directory.
    """

    def read(job: Job, followers: Sequence[Job]) -> PackedKit:
        pushes = [read_moved(each) for each in followers if each.kind == "push"]
        return read_packed(job, pushes[0] if pushes else None)

    path = os.path.abspath(directory)
    start = request.pack(
        path, reference, kitfile=kitfile, compression=compression, push=push or None
    )
    return Work(start, read, with_followers=push)


def push(reference: str, target: str | None = None) -> Work[Moved]:
    """Copy a kit of the cache to its registry, or to `target`."""
    return Work(request.push(reference, target), _moved)


def pull(
    reference: str, filters: Sequence[str] = (), *, parents: bool | None = None
) -> Work[Moved]:
    """Copy a kit from its registry to the cache; with filters only the layers they select.

    The kits it builds on come along unless `parents` is false.
    """
    return Work(request.pull(reference, filters, parents=parents), _moved)


def _moved(job: Job, _followers: Sequence[Job]) -> Moved:
    return read_moved(job)
