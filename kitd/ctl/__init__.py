"""`kitctl`, the thin command line over the daemon's socket.

`command` is the table of everything it can do; each group of commands is a module under
`commands`, imported when one of them runs. Standard library and `kitd.client` only.
"""
