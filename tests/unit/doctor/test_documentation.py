"""docs/doctor.md explains what the doctor looks at."""

import re
from pathlib import Path

from kitd.doctor.examination import AUDIT, STEPS
from kitd.doctor.symptom import SYMPTOMS

PAGE = (Path(__file__).parents[3] / "docs" / "doctor.md").read_text(encoding="utf-8")
OF_THE_CLIENT = {"connection", "socket", "service", "kitctl"}


def explained() -> set[str]:
    """The names in the first column of the table of checks."""
    table = PAGE[PAGE.index("| check | looks at |") : PAGE.index("Those from `ledger writes`")]
    cells = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_check_is_explained():
    names = {step.name for step in (*STEPS, AUDIT)} - {"registries"}
    assert explained() == names | OF_THE_CLIENT | {"registry <host>", "clock"}


def test_what_status_tells_stands_together():
    assert "Those from `ledger writes` to `damaged kits`" in PAGE
    names = [symptom.name for symptom in SYMPTOMS]
    assert (names[0], names[-1]) == ("ledger writes", "damaged kits")
    assert sorted(names, key=lambda name: PAGE.index(f"| `{name}`")) == names
