"""How the documents become a site (`scripts/docs`): the pages of the repository and of docs/, each as GitHub shows it.

A link to a page leads to the page, one to another file of the repository to a copy of it. A link that leads nowhere
ends the build, and so does a page that is not in NAVIGATION.
"""

from typing import Any

from pygments.lexers.special import TextLexer
from sphinx.highlighting import lexers

NAVIGATION = {
    "Learn": ("docs/tutorial/swarm", "docs/tutorial/swarm.zh", "docs/tutorial/lab"),
    "Do": (
        "docs/how-to/deploy-a-stack",
        "docs/how-to/rotate-a-secret",
        "docs/how-to/canary",
        "docs/how-to/back-up-and-restore",
        "docs/how-to/recover-from-lost-quorum",
        "docs/how-to/move-from-docker-swarm",
    ),
    "Understand": ("docs/explanation/raft", "docs/explanation/tasks-and-slots", "docs/explanation/networks"),
    "Look up": (
        "docs/reference/commands",
        "docs/reference/extensions",
        "docs/reference/differences",
        "docs/reference/compatibility",
        "docs/reference/task-states",
        "CHANGELOG",
        "SECURITY",
    ),
    "Work on it": ("ARCHITECTURE", "CONTRIBUTING", "docs/adr/*"),
}

project = "Shoal"
extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["*.md", "docs/**.md"]
# so that a link to a heading works as it does on GitHub
myst_heading_anchors = 3
highlight_language = "none"
smartquotes = False
html_theme = "alabaster"
html_title = "Shoal"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_theme_options = {
    "body_max_width": "none",
    "page_width": "76rem",
    "sidebar_width": "17rem",
    "show_powered_by": False,
}
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html"]}
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False
html_use_index = False

# GitHub draws these diagrams; here they are text, as the page has its tables, too
lexers["mermaid"] = TextLexer()


def navigation() -> str:
    """Return the navigation as the builder reads it."""
    lines = []
    for caption, pages in NAVIGATION.items():
        lines += ["", "```{toctree}", ":hidden:", ":glob:", ":titlesonly:", f":caption: {caption}", "", *pages, "```"]
    return "\n".join(lines) + "\n"


def setup(application: Any) -> None:
    """Add the navigation to the front page: in README.md itself it would be read on GitHub, too."""

    def add_navigation(_: Any, page: str, text: list[str]) -> None:
        if page == root_doc:
            text[0] += navigation()

    application.connect("source-read", add_navigation)
