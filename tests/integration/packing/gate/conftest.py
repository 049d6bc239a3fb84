"""Real projects, walked over, and the gates' opinion of them."""

import os
import signal
import time

import pytest

from kitd.modelkit.dialect import Dialect
from kitd.modelkit.ignore import IgnoreRules
from kitd.modelkit.kitfile import parse_kitfile
from kitd.modelkit.plan import Selection, plan_layers
from kitd.packing.gate import file_holds, tree_holds
from kitd.packing.scan import open_root, scan

PATIENCE_S = 900.0


@pytest.fixture(autouse=True)
def _ignore_sigio():
    """As a worker does: a lease that somebody breaks is told with this signal."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGIO, before)


@pytest.fixture
def walk():
    """Return what a walk over all of a directory sees, but for what is ignored."""

    def walk(directory, ignored=b""):
        plans = plan_layers(parse_kitfile(b"code: [{path: .}]"), Dialect.CURRENT)
        root = open_root(str(directory))
        try:
            return scan(root, Selection(plans, IgnoreRules.parse(ignored)))
        finally:
            os.close(root)

    return walk


@pytest.fixture
def holds(walk):
    """Return the gates that hold a directory's files, with the paths: all, or those judged."""

    def holds(directory, judged=None, *, tree=None, later_s=0.0, ignored=b"", detail=False):
        tree = tree or walk(directory, ignored)
        judged = {entry.path for entry in tree.entries} if judged is None else judged
        root = open_root(str(directory))
        try:
            found = file_holds(
                root,
                tree,
                judged,
                now_ns=time.time_ns() + int(later_s * 1e9),
                patience_s=PATIENCE_S,
            )
        finally:
            os.close(root)
        return [
            (hold.gate, hold.path, hold.detail) if detail else (hold.gate, hold.path)
            for hold in found
        ]

    return holds


@pytest.fixture
def at_work():
    """Return who is at work on a directory, and which locks are ignored."""

    def at_work(directory, later_s=0.0):
        root = open_root(str(directory))
        try:
            now_ns = time.time_ns() + int(later_s * 1e9)
            found = tree_holds(root, str(directory), now_ns=now_ns)
        finally:
            os.close(root)
        return [(hold.gate, hold.path) for hold in found.holds], list(found.warnings)

    return at_work
