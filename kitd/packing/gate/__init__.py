"""Gates: what says that a project must not be packed yet, because somebody is still at work on it.

`tree_holds` looks for tools that lock the whole tree, `file_holds` at the files that are to be
packed. A tool is a module in the list in `tree`, a gate of single files one in the list in
`judgement`, a file format one in the list in `truncated`. A gate holds only for a reason that it
can name, with the file; where it cannot tell it keeps quiet.
"""

from kitd.packing.gate.judgement import file_holds
from kitd.packing.gate.tree import TOOLS, TreeFinding, tree_holds

__all__ = ["TOOLS", "TreeFinding", "file_holds", "tree_holds"]
