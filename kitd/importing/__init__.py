"""Bringing in what is no kit yet: the requests to a hub, and the files that come of them.

What arrives is believed once its size and hash are those that were listed (`fetch.py`).
"""
