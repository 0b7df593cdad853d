"""The header of every page: where it leads, which page is open, and the way past it for keyboards."""

import re

import pytest
from flask import Flask

from tests.support.browser import Browser

PAGES = {"Overview": "/", "Diagnosis": "/diagnosis", "API keys": "/keys", "Audit": "/audit"}


def links(page: str) -> dict[str, str]:
    (nav,) = re.findall(r'<nav class="site-nav".*?</nav>', page, re.S)
    return {words: href for href, words in re.findall(r'<a href="([^"]+)"[^>]*>([^<]+)</a>', nav)}


@pytest.mark.parametrize("path", PAGES.values())
def test_every_page_leads_to_the_others_and_marks_itself(signed_in: Browser, path: str) -> None:
    page = signed_in.get(path).text
    assert PAGES.items() <= links(page).items()
    assert re.findall(r'<a href="([^"]+)" aria-current="page"', page) == [path]


def test_every_entry_leads_to_a_page(signed_in: Browser) -> None:
    for href in links(signed_in.get("/").text).values():
        assert signed_in.get(href).status_code == 200


def test_a_page_that_belongs_to_an_entry_marks_it_as_such(signed_in: Browser) -> None:
    assert '<a href="/" aria-current="true"' in signed_in.get("/connect?account_id=a").text


def test_the_first_link_leads_past_the_header(signed_in: Browser) -> None:
    page = signed_in.get("/").text
    assert re.search(r"<body>\s*<a class=\"skip\" href=\"#main\">", page)
    assert '<main id="main" tabindex="-1">' in page


def test_who_is_not_logged_in_sees_no_navigation(app: Flask) -> None:
    page = Browser(app).get("/login").text
    assert "site-nav" not in page
    assert "site-operator" not in page
