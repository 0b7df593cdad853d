"""The documents as a site: one strict build, search in both languages, nothing from another host."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.documents import LANGUAGES, ROOT, prose

LOADED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data"}
"""The elements that make a browser fetch something, with the attribute that says what."""


class Page(HTMLParser):
    """What a page loads, and how many entries its lists have."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: set[str] = set()
        self.entries = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.entries += tag == "li"
        found = dict(attrs)
        # A canonical or alternate link is only followed by a person or a search engine.
        if tag in LOADED and found.get("rel") not in ("canonical", "alternate", "next", "prev"):
            self.loaded.add(found.get(LOADED[tag]) or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def html_of(site: Path, language: str, page: Path) -> str:
    folder = site if language == "en" else site / language
    at = page.relative_to(ROOT / "docs" / language).with_suffix("")
    return (folder / (at.parent if at.name == "index" else at) / "index.html").read_text()


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    for file in pages:
        foreign = {link for link in Page(file.read_text()).loaded if urlsplit(link).netloc}
        assert not foreign, file
    for file in site.rglob("*.css"):
        assert not re.findall(r"url\(\s*[\"']?(?:https?:)?//[^)]*|@import[^;]*//[^;]*", file.read_text()), (
            file
        )


def test_no_page_makes_the_theme_s_script_load_a_drawing_program(site: Path) -> None:
    # Material's script takes Mermaid from a foreign host as soon as a page has a drawing of it.
    for file in site.rglob("*.html"):
        assert not re.search(r'class="[^"]*\bmermaid\b', file.read_text()), file


def test_the_search_knows_the_pages_and_the_words_of_both_languages(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())
    assert index["config"]["lang"] == ["en", "pt"]
    found = {entry["location"] for entry in index["docs"]}
    assert {"reference/http-api/#read-leads", "pt-BR/reference/http-api/#ler-leads"} <= found


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_page_is_in_the_navigation_in_its_language(site: Path, language: str) -> None:
    pages = [page for page in (ROOT / "docs" / language).rglob("*.md") if "decisions" not in page.parts]
    for page in pages:
        text = html_of(site, language, page)
        assert f'<html lang="{language[:2]}"' in text
        for word in ("Runbook", "Settings") if language == "en" else ("Guia de operação", "Configurações"):
            assert word in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_entry_of_a_list_is_one_on_its_page(site: Path, language: str) -> None:
    # GitHub takes entries that are indented by two spaces; the site wants four.
    for page in (ROOT / "docs" / language).rglob("*.md"):
        written = len(re.findall(r"^ *(?:[-*]|\d+\.) ", prose(page.read_text()), re.MULTILINE))
        article = html_of(site, language, page).partition("<article")[2].partition("</article>")[0]
        assert Page(article).entries == written, page
