"""Building layers: the part of kitd that reads a project's files.

It runs in worker processes (`worker`), which the daemon keeps warm and can kill (`pool`); they
know the blob store and the ModelKit core, never the ledger or a socket. `order` is what the two
sides say to each other.
"""
