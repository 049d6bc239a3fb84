"""A method of the RPC: a name, a role, the types of its parameters and result, and a handler.

    async def get(context: Context[Services], params: JobId) -> Job: ...

    METHODS = (method("jobs.get", Role.READ, JobId, Job, get), ...)

The types are erased in `method` and nowhere else: inside the closure they are known, outside it
all methods are alike.
"""

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from kitd.ledger.job_ledger import IdempotencyKey
from kitd.oci.json_reader import Json
from kitd.rpc.error import InvalidParamsError
from kitd.rpc.fairness import Cost
from kitd.rpc.peer import Access, Peer, Role
from kitd.rpc.subscription import Subscriptions


class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of all parameters: a misspelt one is an error, not a default."""


S = TypeVar("S")
P = TypeVar("P", bound=Params)
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Context(Generic[S]):
    """Who calls, and what the daemon gives its methods to work with."""

    peer: Peer
    access: Access
    subscriptions: Subscriptions
    """Those of the connection that the call came by."""
    services: S
    key: IdempotencyKey | None = None
    """For the job that the call asks for, if the call may be repeated."""
    descriptor: int | None = None
    """What the caller sent along, for methods that take it; closed when the call ends."""


@dataclass(frozen=True, slots=True)
class Reply(Generic[R_co]):
    """A result that takes something along.

    The server owns `descriptors` from the moment the handler returns them: they are closed once
    they are sent, and when sending fails. `after` is called when the response is on its way.
    """

    result: R_co
    descriptors: tuple[int, ...] = ()
    after: Callable[[], None] | None = None


Handler = Callable[[Context[S], P], Awaitable[R | Reply[R]]]


@dataclass(frozen=True, slots=True)
class Method(Generic[S]):
    """A method as the server sees it, its types erased."""

    name: str
    role: Role
    """The lowest role that may call it."""
    params: type[Params]
    result: object
    """The type of the result, for the OpenRPC document."""
    summary: str
    alone: bool
    """Not in a batch: its response carries descriptors, or has to come before notifications."""
    takes_descriptor: bool
    """Whether a file descriptor may come along with the request."""
    cost: Cost | None
    """What it takes more than a moment of, if it does: few such calls run at once."""
    call: Callable[[Context[S], Json], Coroutine[None, None, Reply[object]]]
    """Checks the parameters and runs the handler. Raises `InvalidParamsError`, and what it does."""


def read_params(name: str, params: type[P], raw: Json) -> P:
    """Return the parameters of a call of the method `name`. Raises `InvalidParamsError`."""
    try:
        return msgspec.convert(raw, params)
    except msgspec.ValidationError as error:
        raise InvalidParamsError(
            f"{name}: {error}", hint="system.discover describes the parameters"
        ) from error


def method(
    name: str,
    role: Role,
    params: type[P],
    result: type[R],
    handler: Handler[S, P, R],
    *,
    alone: bool = False,
    takes_descriptor: bool = False,
    cost: Cost | None = None,
) -> Method[S]:
    """Return a method; the first line of the handler's docstring is its summary."""

    async def call(context: Context[S], raw: Json) -> Reply[object]:
        outcome = await handler(context, read_params(name, params, raw))
        return outcome if isinstance(outcome, Reply) else Reply(outcome)

    summary = (inspect.getdoc(handler) or "").partition("\n")[0]
    return Method(
        name,
        role,
        params,
        result,
        summary,
        alone=alone,
        takes_descriptor=takes_descriptor,
        cost=cost,
        call=call,
    )
