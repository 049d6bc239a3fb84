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
TITLES = {
    "pack one file of 2 GiB": "cold pack, one file of 2,048 MiB",
    "pack 4 layers of 512 MiB": "cold pack, 4 layers of 512 MiB",
    "pack 20,000 small files": "cold pack, 20,000 files of 4 to 20 KB",
    "pack 1 GiB with gzip": "cold pack of 1,024 MiB of weights and text, gzip",
    "pack 2 GiB again, nothing changed": "pack again, one file of 2,048 MiB",
    "push 1 GiB to Debian's registry": "push, one layer of 1,024 MiB",
    "pull 1 GiB": "pull, one layer of 1,024 MiB",
    "push 1,000 layers of 8 KiB": "push, 1,000 layers of 8 KiB",
    "pull them": "pull, 1,000 layers of 8 KiB",
    "unpack 2 GiB from a registry": "unpack from a registry what kitd packed,"
    " 5,000 files and a model of 2,048 MiB",
    "push 1 GiB to a sink": "push to a sink, one layer of 1,024 MiB",
    "mirror 200 tags": "mirror of 200 tags that share layers, 28 MiB in all, to an empty registry",
    "mirror them again": "mirror of 200 tags that share layers, 28 MiB in all, with nothing new",
}
SECONDS = re.compile(r"(\d+\.\d\d) s")


def test_every_row_has_a_table():
    assert [row[0] for row in ROWS] == list(TITLES)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_is_what_its_table_says(row):
    what, ours, others, ratios = row
    table = TABLES.partition(f"\n{TITLES[what]} (median of ")[2].partition("```")[0]
    first, *rest = re.findall(r"^  \S.*? +(\d+) ms(?:.*?/.*? (\d+\.\d+),)?", table, re.MULTILINE)
    measured = {(f"{int(time) / 1000:.2f}", f"{float(ratio or 0):.2f}") for time, ratio in rest}
    assert SECONDS.findall(ours) == [f"{int(first[0]) / 1000:.2f}"]
    pairs = list(zip(SECONDS.findall(others), ratios.split(", "), strict=True))
    assert pairs
    assert set(pairs) <= measured


def test_a_ratio_above_its_goal_is_called_missed():
    told = re.findall(
        r"/.* (\d+\.\d+), .* by round, goal: ([\d.]+)(, missed)?$", TABLES, re.MULTILINE
    )
    assert len(told) > 15
    assert [line for line in told if (float(line[0]) > float(line[1])) != bool(line[2])] == []
