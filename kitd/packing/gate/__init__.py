"""Gates: what says that a project must not be packed yet, because somebody is still at work on it.

`tree_holds` looks for tools that lock the whole tree, `file_holds` at the files that are to be
packed. Every gate is a module of its own, in a list in `tree` or `judgement`. A gate holds only for
a reason that it can name, with the file; where it cannot tell it keeps quiet.
"""

from kitd.packing.gate.judgement import file_holds
from kitd.packing.gate.tree import TreeFinding, tree_holds
from kitd.packing.gate.writer import has_writer

__all__ = ["TreeFinding", "file_holds", "has_writer", "tree_holds"]
