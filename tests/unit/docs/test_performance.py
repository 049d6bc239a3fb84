"""The short table of docs/performance.md says what the tables below it say."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[3] / "docs" / "performance.md").read_text(encoding="utf-8")
SHORT, _, TABLES = PAGE.partition("## Packing for the first time")
ROWS = [
    line.strip("| ").split(" | ")
    for line in SHORT.splitlines()
    if line.startswith("|") and "---" not in line and "| kitd |" not in line
]
SECONDS = re.compile(r"(\d+\.\d\d) s")
MEASURED_S = {f"{int(number) / 1000:.2f}" for number in re.findall(r"(\d+) ms {2,}\d", TABLES)}
COMPARED = re.findall(r"^  (\S.*?) +(\d+) ms .*/\1 (\d+\.\d+),", TABLES, re.MULTILINE)
RATIOS = {(f"{int(other) / 1000:.2f}", f"{float(ratio):.2f}") for _, other, ratio in COMPARED}


def test_there_is_a_short_table():
    assert len(ROWS) > 10
    assert len(RATIOS) > 20


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_is_measured(row):
    _, ours, others, ratios = row
    assert SECONDS.findall(ours)[0] in MEASURED_S
    pairs = list(zip(SECONDS.findall(others), ratios.split(", "), strict=True))
    assert pairs
    assert set(pairs) <= RATIOS


def test_a_ratio_above_its_goal_is_called_missed():
    told = re.findall(
        r"/.* (\d+\.\d+), .* by round, goal: ([\d.]+)(, missed)?$", TABLES, re.MULTILINE
    )
    assert len(told) > 15
    assert [line for line in told if (float(line[0]) > float(line[1])) != bool(line[2])] == []
