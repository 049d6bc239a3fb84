"""Calls that may be repeated: the same key and parameters get the same answer.

In one place for all methods that change something. A method that asks for a job hands the key on,
and the ledger keeps it with the job, in one transaction; of the others the answer is kept once it
is known, so that of a call that kitd did not live to answer only the effect may be there.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated
from weakref import WeakValueDictionary

import msgspec

from kitd.ledger.job_ledger import IdempotencyKey
from kitd.oci.json_reader import Json
from kitd.rpc.method import Context, Method, Params, Reply, read_params
from kitd.rpc.methods.services import Services
from kitd.rpc.methods.wire import Queued

MAX_KEY = 200


class Idempotent(Params, frozen=True, kw_only=True):
    """The base of all parameters of methods that change something."""

    idempotency_key: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_KEY)] | None = None


_UNDER_WAY: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()
"""A call waits for the one with its key, which it may have been sent to replace."""


def idempotent(method: Method[Services]) -> Method[Services]:
    """Return a method that answers a repeated call as it did the first."""
    params = method.params
    assert issubclass(params, Idempotent), f"{method.name} takes no idempotency key"

    async def call(context: Context[Services], raw: Json) -> Reply[object]:
        if not (isinstance(raw, Mapping) and "idempotency_key" in raw):
            return await method.call(context, raw)
        key = _key(method.name, context, read_params(method.name, params, raw))
        if key is None:
            return await method.call(context, raw)
        lock = _UNDER_WAY.setdefault((key.uid, key.key), asyncio.Lock())
        async with lock:
            return await _once(method, replace(context, key=key), raw, key)

    return replace(method, call=call)


def _key(name: str, context: Context[Services], params: Idempotent) -> IdempotencyKey | None:
    if params.idempotency_key is None:
        return None
    asked = name.encode() + msgspec.json.encode(params, order="sorted")
    fingerprint = hashlib.sha256(asked).hexdigest()
    return IdempotencyKey(context.peer.uid, params.idempotency_key, fingerprint)


async def _once(
    method: Method[Services], context: Context[Services], raw: Json, key: IdempotencyKey
) -> Reply[object]:
    jobs = context.services.jobs
    answer = await jobs.recall(key)
    if answer is None:
        reply = await method.call(context, raw)
        if isinstance(reply.result, Queued):
            return reply
        answer = await jobs.remember(key, msgspec.json.encode(reply.result))
    return Reply(msgspec.Raw(answer))
