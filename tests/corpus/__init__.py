"""Hostile kits: manifests, configs and Kitfiles that a registry may serve, each with its refusal.

The archives inside of layers are in `tests/integration/client/test_extract.py`.
"""
