"""A registry of its own for tests, which does everything right until it is told not to.

It speaks the OCI distribution API over a directory and shares no code with kitd, so that it can be
its witness: what it received, sent and was asked is counted in `tally.py`. What it does wrong, and
when, is in `quirks.py`; habits of registries in use are told with these in `habits.py`. In a test's
own loop it is a `FaultRegistry`; as a process of its own, `python -m fault_registry` in `tests/`.
`cutting_proxy.py` stands before any registry, this one or another, and breaks connections.
"""
