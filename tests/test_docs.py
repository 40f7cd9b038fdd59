"""The documentation: each page says first what it is for, and the site shows all of them."""

import re

import pytest
import yaml

from relic.files import PROJECT

DOCS = PROJECT / "docs"
PAGES = [path.relative_to(DOCS).as_posix() for path in sorted(DOCS.rglob("*.md"))]
ADDED = {"index.md", "contributing.md", "changelog.md"}
"""Pages that `docs/tools/site_hooks.py` makes of files outside of `docs/`."""


def named(entry):
    """All pages below an entry of the navigation."""
    if isinstance(entry, str):
        return [entry]
    entries = entry if isinstance(entry, list) else entry.values()
    return [page for each in entries for page in named(each)]


def test_the_site_names_every_page_once():
    nav = yaml.safe_load((PROJECT / "mkdocs.yml").read_text())["nav"]
    assert sorted(named(nav)) == sorted([*PAGES, *ADDED])


@pytest.mark.parametrize("page", [*PAGES, "../CONTRIBUTING.md", "../README.md"])
def test_a_page_begins_with_a_sentence_that_says_what_it_is_for(page):
    title, _, rest = (DOCS / page).read_text().partition("\n\n")
    assert re.fullmatch(r"# .+", title)
    paragraph = " ".join(rest.partition("\n\n")[0].split())
    assert re.match(r"[A-Z`\[*]", paragraph), "a heading, a table or code comes first"
    sentence = re.match(r".+?[.:](?= |$)", paragraph)
    assert sentence
    assert 20 < len(sentence.group()) < 300


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page):
    folder = (DOCS / page).parent
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", (DOCS / page).read_text()):
        assert (folder / target).exists(), target
