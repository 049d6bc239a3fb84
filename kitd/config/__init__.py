"""Typed configuration: from one strict YAML file to frozen values that every room is built from.

`model` says what can be configured and its defaults; `parse` reads bytes, purely; `load` reads the
file; `places` finds the file, the state directory and the socket. This module imports nothing:
the thin client needs `kitd.config.places` and pays for no more.
"""
