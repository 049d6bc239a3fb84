"""Measurements against the peers found on PATH: `make bench`, or `python -m benchmarks --help`.

Each benchmark is a function in a module of its own, listed in `__main__`. They print medians,
ratios, how far the runs were apart, and the goals that kitd sets itself, not verdicts: machines are
noisy, and a ratio within one run says more than a time. A peer that is not installed leaves its
line out, with the reason. Nothing talks to another machine; TMPDIR says where the trees are.
"""
