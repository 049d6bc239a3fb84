"""Work that takes a job: the request that starts it, and how its end is read.

It is data, as requests are: `Client.run` and `AsyncClient.run` do it.
"""

import os
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar, Unpack

from kitd.client import request
from kitd.client.outcome import Moved, PackedKit, read_moved, read_packed
from kitd.client.record import Job
from kitd.client.request import PackOptions, Request

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
    **options: Unpack[PackOptions],
) -> Work[PackedKit]:
    """Pack a directory as `reference`, `repository:tag,tag...`."""

    def read(job: Job, followers: Sequence[Job]) -> PackedKit:
        pushes = [read_moved(each) for each in followers if each.kind == "push"]
        return read_packed(job, pushes[0] if pushes else None)

    start = request.pack(os.path.abspath(directory), reference, **options)
    return Work(start, read, with_followers=bool(options.get("push")))


def push(
    reference: str, target: str | None = None, *, with_parents: bool | None = None
) -> Work[Moved]:
    """Copy a kit of the cache to its registry, or to `target`, and what it builds on if asked."""
    return Work(request.push(reference, target, with_parents=with_parents), _moved)


def pull(
    reference: str, filters: Sequence[str] = (), *, parents: bool | None = None
) -> Work[Moved]:
    """Copy a kit from its registry to the cache; with filters only the layers they select.

    The kits it builds on come along unless `parents` is false.
    """
    return Work(request.pull(reference, filters, parents=parents), _moved)


def _moved(job: Job, _followers: Sequence[Job]) -> Moved:
    return read_moved(job)
