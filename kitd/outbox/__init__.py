"""Events for others: what happened here, told to HTTP endpoints that asked for it."""
