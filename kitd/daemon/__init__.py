"""The daemon: where the rooms are wired to each other, and their life from start to stop.

`compose` is the only place that names implementations; `project_board` runs the watchers.
"""
