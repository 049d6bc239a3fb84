"""JSON-RPC 2.0 over a Unix socket: how programs talk to the daemon.

`codec`, `error`, `method` and `openrpc` are pure: messages, error codes, typed methods and the
document that describes them. `peer` says who calls and what he may do, `fairness` whose turn it is,
`endpoint` owns the socket file, `inbox`, `outbox`, `subscription`, `connection` and `server` do the
I/O. What the methods do is in `methods/`.
"""
