"""The table of events, from which docs/events.md is written, has the types that are emitted."""

import ast
import re
from pathlib import Path

from kitd.ledger.event_type import EVENT_TYPES

PACKAGE = Path(__file__).parents[3] / "kitd"
GROUPS = "|".join(sorted({name.partition(".")[0] for name in EVENT_TYPES}))
TYPE = re.compile(rf"(?:{GROUPS})\.[a-z_]+")
EMITTING = frozenset({"emit", "Emit", "tell", "_tell", "_tell_of_queue"})


def emitted():
    """Return every type that is handed to what writes events, by name or by way of `kind`."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
                    looked_at = node.args if name in EMITTING else []
                case ast.Assign(targets=[ast.Name(id="kind")], value=value):
                    looked_at = [value]
                case _:
                    continue
            for part in looked_at:
                for each in ast.walk(part):
                    if isinstance(each, ast.Constant) and TYPE.fullmatch(str(each.value)):
                        yield each.value


def test_the_table_has_what_is_emitted():
    assert set(emitted()) == set(EVENT_TYPES)


def test_the_types_that_the_audit_knows_are_among_them():
    page = (PACKAGE / "queue" / "audit.py").read_text(encoding="utf-8")
    assert set(re.findall(r'"(job\.[a-z]+)"', page)) <= set(EVENT_TYPES)
