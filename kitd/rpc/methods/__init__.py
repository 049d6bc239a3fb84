"""The methods, one module for each group, listed here.

To add one: a params struct, a result struct, one typed function whose docstring says what it does,
and its line in the group's `METHODS`. The OpenRPC document follows from the types.
"""

from kitd.rpc.method import Method
from kitd.rpc.methods import cache, config, events, jobs, kits, projects, system
from kitd.rpc.methods.discovery import discovery
from kitd.rpc.methods.services import Services

_GROUPS = (
    *system.METHODS,
    *jobs.METHODS,
    *events.METHODS,
    *projects.METHODS,
    *kits.METHODS,
    *cache.METHODS,
    *config.METHODS,
)
METHODS: tuple[Method[Services], ...] = (*_GROUPS, discovery(_GROUPS))
