"""Asking for a job on behalf of the person who calls."""

from dataclasses import replace

from kitd.ledger.job_ledger import IdempotencyKey
from kitd.queue.fact import Fact
from kitd.queue.job import Job, JobRequest
from kitd.rpc.method import Context
from kitd.rpc.methods.services import Services
from kitd.rpc.methods.wire import Queued, wire_job
from kitd.triggers import requests_for


async def ask(context: Context[Services], fact: Fact) -> Queued:
    """Enqueue what a person's wish asks for."""
    (request,) = requests_for(fact)
    return Queued(wire_job(await enqueue(context, request, context.key)))


async def enqueue(
    context: Context[Services], request: JobRequest, key: IdempotencyKey | None = None
) -> Job:
    """Enqueue a wish as that of the person who calls."""
    asked = replace(request, asked_by=context.peer.uid)
    return await context.services.jobs.enqueue(asked, key)
