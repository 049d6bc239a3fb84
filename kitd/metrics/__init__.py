"""Numbers and health for those who watch over kitd: Prometheus, and whoever restarts services.

`catalogue` says what there is, `snapshot` makes it of readings, `exposition` writes it; these are
pure. `sampler` and `gather` take the readings, `server` answers.
"""
