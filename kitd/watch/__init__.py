"""Noticing that a project came to rest in a state that was not packed yet.

Hints make it fast, scans make it right: `hints` says that something under a root may have changed
and nothing more, `settle` decides from scans and time when a tree rests, and `project_watcher`
runs the two for one project. How a tree is scanned and what a settled tree leads to come in
through ports.
"""
