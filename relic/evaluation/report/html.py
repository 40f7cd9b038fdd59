"""Pieces of HTML that pages share.

A page needs no other file: style, script and pictures are inside.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --faint: #52606d; --paper: #fff;
        --line: #d8dde4; --edge: #9aa5b1; --link: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ee; --faint: #a3aebb; --paper: #161a20; --line: #333b46; --edge: #5c6876;
          --link: #56b4e9; }
}
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 80rem; padding: 1rem;
       color: var(--ink); background: var(--paper); }
h1 { font-size: 1.5rem; margin-bottom: .25rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
p { max-width: 60rem; } a { color: var(--link); }
img { max-width: min(100%, 60rem); height: auto; background: #fff; border-radius: .3rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid var(--line);
         white-space: nowrap; }
tbody th { font-weight: inherit; }
.cards, .numbers { font-size: .95em; }
.cards th, .numbers th { white-space: normal; vertical-align: bottom; }
.cards th, .cards td, .numbers th, .numbers td { padding: .2rem .5rem; }
th:first-child { text-align: left; }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
@media (max-width: 46rem) {
  .cards thead { display: none; }
  .cards, .cards tbody, .cards tr { display: block; }
  .cards tr { border-bottom: 2px solid var(--edge); padding: .4rem 0; }
  .cards td, .cards tbody th { display: flex; justify-content: space-between; gap: 1rem;
                               padding: .1rem 0; border: 0; }
  .cards tbody th { font-weight: 600; }
  .cards td::before { content: attr(data-label); text-align: left; white-space: normal;
                      color: var(--faint); }
  .facts td { padding: .2rem .4rem; }
  .facts th { white-space: normal; }
}
"""


def document(
    title: str,
    sections: Iterable[str],
    *,
    style: str = "",
    script: str = "",
    refresh_s: int | None = None,
) -> str:
    """Return a whole page.

    Args:
        title: Plain text; also the heading.
        sections: HTML, in order.
        style: Further CSS.
        script: JavaScript that runs once the page is there.
        refresh_s: Seconds after which a browser loads the page again. None: never.
    """
    again = f'<meta http-equiv="refresh" content="{refresh_s}">\n' if refresh_s else ""
    end = f"<script>\n{script}</script>\n" if script else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{again}<title>{escape(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n" + "\n".join(sections) + f"\n{end}</body>\n</html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "numbers") -> str:
    """Return a table of plain text.

    Args:
        head: Titles of the columns; empty for none.
        rows: Plain text of the cells, row by row.
        kind: `numbers` scrolls sideways on narrow screens, `cards` shows each row as a list
            there, `facts` is for pairs of a name and a text.
    """
    labels = [f' data-label="{escape(title)}"' for title in head[1:]] if kind == "cards" else []
    body = ""
    for first, *others in rows:
        labelled = zip(labels or [""] * len(others), others, strict=False)
        body += f'<tr><th scope="row">{escape(first)}</th>'
        body += "".join(f"<td{label}>{escape(cell)}</td>" for label, cell in labelled)
        body += "</tr>\n"
    titles = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    top = f"<thead><tr>{titles}</tr></thead>" if titles else ""
    return f'<div class="wide"><table class="{kind}">{top}<tbody>\n{body}</tbody></table></div>'


def picture(path: Path, text: str) -> str:
    """Embed a PNG file; `text` says what it shows."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{data}">'


def details(summary: str, content: str) -> str:
    """Return HTML that is shown when its summary is clicked."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"
