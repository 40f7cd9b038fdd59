"""The documentation: each page says first what it is for, and the site shows all of them."""

import re

import pytest
import yaml

from relic.files import PROJECT

DOCS = PROJECT / "docs"
PAGES = [path.relative_to(DOCS).as_posix() for path in sorted(DOCS.rglob("*.md"))]
TEXTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "pretrained/*.md", ".github/**/*.md")
    for path in PROJECT.glob(pattern)
)
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


def anchors(path):
    """What GitHub names the headings of a page."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        yield re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in link or link.startswith("../../actions/"):  # pages of GitHub's own
            continue
        target, _, anchor = link.partition("#")
        page = path.parent / target if target else path
        assert page.exists(), link
        assert not anchor or anchor in anchors(page), link


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_named_files_and_folders_are_there(path):
    folders = "relic|envs|configs|benchmarks|tests|docker|notebooks|examples|pretrained|docs"
    for name in re.findall(
        rf"`((?:{folders})/(?:[a-z0-9_./-]*/|[a-z0-9_./-]+\.\w+))`", path.read_text()
    ):
        assert (PROJECT / name).exists(), name
