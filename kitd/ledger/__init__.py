"""The ledger: one SQLite database that says what is to be done, what was done and what exists.

`database` owns the file: one writer thread with group commit, readers that can only read. The
other modules are the queries, by noun; SQL is nowhere else in kitd.
"""
