"""The machinery of the queue: what a job is, how it moves, who runs it.

What jobs do is in `kitd.jobs`.
`job`, `transition`, `retry`, `kind` and `effect` are values and plain functions; `executor` runs
attempts on an event loop and knows the ledger only as a protocol.
"""
