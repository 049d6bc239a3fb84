"""The methods, one module for each group, listed here.

To add one: a params struct, a result struct, one typed function whose docstring says what it does,
and its line in the group's `METHODS`. The OpenRPC document follows from the types. A method that
changes something has parameters that are `Idempotent`, and a role above `read`.
"""

from kitd.rpc.method import Method
from kitd.rpc.methods import (
    cache,
    config,
    events,
    imports,
    jobs,
    kit_diff,
    kit_drafts,
    kit_layers,
    kit_names,
    kit_shelf,
    kit_tags,
    kits,
    mirrors,
    projects,
    registries,
    system,
    webhooks,
)
from kitd.rpc.methods.discovery import discovery
from kitd.rpc.methods.idempotency import idempotent
from kitd.rpc.methods.services import Services
from kitd.rpc.peer import Role

_GROUPS = (
    *system.METHODS,
    *jobs.METHODS,
    *events.METHODS,
    *projects.METHODS,
    *kits.METHODS,
    *imports.METHODS,
    *kit_drafts.METHODS,
    *kit_shelf.METHODS,
    *kit_tags.METHODS,
    *kit_diff.METHODS,
    *kit_layers.METHODS,
    *kit_names.METHODS,
    *mirrors.METHODS,
    *registries.METHODS,
    *cache.METHODS,
    *config.METHODS,
    *webhooks.METHODS,
)
METHODS: tuple[Method[Services], ...] = (
    *(idempotent(method) if method.role > Role.READ else method for method in _GROUPS),
    discovery(_GROUPS),
)
