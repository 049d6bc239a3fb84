"""Asking for a job on behalf of the person who calls."""

from dataclasses import replace

from kitd.queue.fact import Fact
from kitd.rpc.method import Context
from kitd.rpc.methods.services import Services
from kitd.rpc.methods.wire import Queued, wire_job
from kitd.triggers import requests_for


async def ask(context: Context[Services], fact: Fact) -> Queued:
    """Enqueue what a person's wish asks for."""
    (request,) = requests_for(fact)
    asked = replace(request, asked_by=context.peer.uid)
    return Queued(wire_job(await context.services.jobs.enqueue(asked, context.key)))
