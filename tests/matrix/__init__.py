"""The quirk matrix: kits of every shape to registries of every habit, and back again.

`python -m matrix` in `tests/` prints it as a table, `test_matrix.py` is its test.
"""
