"""How the pages become a site: `make site`.

The pages are Markdown that a forge shows as well; what only the site needs is added here.
"""

from pathlib import Path

import yaml
from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

SITE = Path(__file__).parent
NAVIGATION = yaml.safe_load((SITE / "navigation.yaml").read_text(encoding="utf-8"))
RECORDS = sorted(f"adr/{path.name}" for path in SITE.parent.glob("adr/0*.md"))

project = "kitd"
copyright = "the kitd authors"  # noqa: A001 - the name that Sphinx looks for
extensions = ["myst_parser"]
exclude_patterns = ["site"]
# Anchors are those that forges make of headings.
myst_heading_anchors = 4

html_theme = "furo"
html_title = "kitd"
html_static_path = ["static"]
html_css_files = ["kitd.css"]
html_show_sphinx = False
html_show_sourcelink = False
html_copy_source = False


def add_navigation(_app: Sphinx, page: str, source: list[str]) -> None:
    """Give the two pages that lead to others what would be noise on a forge."""
    trees = {"index": NAVIGATION, "adr/README": {"Decisions": RECORDS}}.get(page, {})
    for caption, pages in trees.items():
        lines = "\n".join(f"/{each}" for each in pages)
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{lines}\n```\n"


def setup(app: Sphinx) -> None:
    """Take part in the build."""
    app.connect("source-read", add_navigation)
    # What is in a console here is more than the shell's words.
    app.add_lexer("console", TextLexer)
