"""Registries' events: what each sender says, and whether it is the sender who says it.

A body is a hint that something may have changed in a repository and nothing more: whatever follows
is found out at the registry that the configuration names.
"""
