"""What `mkdocs build` does beside the pages of `docs/`.

README.md, CONTRIBUTING.md and CHANGELOG.md become pages, so that no text exists twice. Links that
leave `docs/`, which lead somewhere in a checkout, become plain text in the site.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:]+)(#[^)]*)?\)")
_BADGES = re.compile(r"^\[!\[.*\n", re.MULTILINE)


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages that lie outside of `docs/`."""
    for page, source in PAGES.items():
        text = _BADGES.sub("", (ROOT / source).read_text(encoding="utf-8"))
        text = text.replace("](docs/", "](")
        for own, other in PAGES.items():
            text = text.replace(f"]({other})", f"]({own})")
        # The first page has no others beside it; its column of links would be empty.
        head = "---\nhide: [navigation]\n---\n" if page == "index.md" else ""
        files.append(File.generated(config, page, content=head + text))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Turn links to files that the site does not have into plain text."""
    folder = Path(page.file.src_uri).parent

    def replaced(link: re.Match[str]) -> str:
        text, target, _ = link.groups()
        place = (folder / target).as_posix()
        return link.group() if files.get_file_from_path(place) else text

    return _LINK.sub(replaced, markdown)
