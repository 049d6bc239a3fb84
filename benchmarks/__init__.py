"""Measurements against the peers found on PATH: `make bench`.

Each benchmark is a function in a module of its own, listed in `__main__`. They print medians and
ratios, not verdicts: machines are noisy, and a ratio within one run says more than a time. A peer
that is not installed leaves its cell empty, with the reason.
"""
