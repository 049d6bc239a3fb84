"""The gate for names that programs give to what they have not finished.

Only while the file is young: what a program left behind must not hold a project for ever. Names
that tell of an open editor but never become the file (`.a.swp`, `~$a.docx`, `a~`) are none of them.
"""

import re

from kitd.packing.gate.subject import Gate, Moment, Subject
from kitd.packing.scan import Entry

_NAME = re.compile(
    rb"""
    (?:^|/)
    (?:
        # Downloads and copies: browsers, curl, wget, aria2, WinSCP, Hugging Face.
        [^/]+\.(?:tmp|temp|part|partial|filepart|incomplete|crdownload|download|aria2)
        # The same with what makes a name unique: a.tmp.4711, a.tmp-x7Gk, a.tmp12.
      | [^/]+\.te?mp[-._]?(?=[a-z]*[0-9A-Z])[A-Za-z0-9]+
      | \.tmp[-._][^/]+
        # rsync and mkstemp in its manner: .name.XXXXXX, not all of it lower case as in .env.sample.
      | \.[^/]+\.(?=[a-z]{0,5}[A-Z0-9])[A-Za-z0-9]{6}
      | \.goutputstream-[A-Z0-9]{6}
        # Directories that are renamed when the checkpoint in them is complete.
      | tmp-checkpoint-[^/]+
      | [^/]+\.orbax-checkpoint-tmp(?:-[^/]+)?
        # Deleted files that a program has still open, as file systems keep them.
      | \.nfs[0-9a-f]{16,}
      | \.fuse_hidden[0-9a-f]+
    )
    (?:/|$)
    """,
    re.VERBOSE,
)


def is_temporary(path: bytes) -> bool:
    """Whether a file, or a directory it is in, has the name of something unfinished."""
    return _NAME.search(path) is not None


def _concerns(entry: Entry, moment: Moment) -> bool:
    return moment.is_young(entry) and is_temporary(entry.path)


def _finding(_subject: Subject) -> str | None:
    return "its name is that of a file that is not finished"


GATE = Gate("temporary", _concerns, _finding)
