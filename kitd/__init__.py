"""kitd: an always-on packaging daemon for AI/ML projects.

The package is a set of rooms; `docs/architecture.md` has the map. Importing this module costs
nothing: the thin client depends on that.
"""

__version__ = "0.1.0"
