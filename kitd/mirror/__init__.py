"""Mirrors, decided: which tags are copied, where to, and what follows from how both ends stand.

Pure: requests to registries are the job's (`kitd.jobs.mirror`), memory is the ledger's.
"""
