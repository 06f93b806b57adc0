"""What the site makes of the documents' links: those that leave docs/, as to source files, become words."""

import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page without links to files that are not part of the site."""
    return re.sub(r"\[([^\]]+)\]\(\.\./[^)]*\)", r"\1", markdown)
