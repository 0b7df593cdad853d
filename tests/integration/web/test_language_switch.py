"""The switch between the pages' languages."""

import re

import pytest
from flask import Flask

from rdservice.web.text import languages
from tests.support.browser import Browser


def link(page: str) -> str:
    found = re.search(r'<a class="quiet-link" href="(/language[^"]+)" lang="([^"]+)"', page)
    assert found
    return found[1].replace("&amp;", "&")


@pytest.mark.parametrize("path", ["/", "/audit?before=7", "/keys", "/connect?account_id=a%26b"])
def test_the_switch_changes_the_language_and_comes_back(signed_in: Browser, path: str) -> None:
    page = signed_in.get(path).text
    assert '<html lang="en">' in page
    response = signed_in.get(link(page))
    assert (response.status_code, response.location) == (302, path)
    page = signed_in.get(path).text
    assert '<html lang="pt-BR">' in page
    assert '<span aria-current="true" lang="pt-BR">Português</span>' in page
    signed_in.get(link(page))
    assert '<html lang="en">' in signed_in.get(path).text


def test_it_works_before_logging_in_and_survives_it(app: Flask, operator: object) -> None:
    browser = Browser(app, language="en")
    response = browser.get(link(browser.get("/login?next=/audit").text))
    assert response.location == "/login?next=/audit"
    assert "Senha" in browser.get("/login").text
    browser.log_in("ana@example.com", "correct horse battery")
    assert "Auditoria" in browser.get("/audit").text


def test_pages_of_errors_have_it_too_but_do_not_come_back(signed_in: Browser) -> None:
    for path in ("/nowhere?secret=1", "/rd/callback?code=secret&state=wrong"):
        page = signed_in.get(path).text
        assert link(page) == "/language?language=pt-BR"
        assert "secret" not in page


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/%0aevil\n",
        "",
        "x",
    ],
)
def test_it_leads_to_no_other_site(app: Flask, target: str) -> None:
    response = Browser(app).get("/language", query_string={"language": "en", "next": target})
    assert response.status_code == 302
    assert response.location == "/" or (target.startswith("/%") and response.location.startswith("/%"))


@pytest.mark.parametrize("query", ["", "language=de", "language=pt_BR", "language=en&language=pt-BR"])
def test_other_languages_are_refused(app: Flask, query: str) -> None:
    response = Browser(app, accept="*/*").get(f"/language?{query}")
    assert (response.status_code, (response.json or {})["field"]) == (422, "language")


def test_the_cookie_is_no_secret_and_no_scripts_business(app: Flask) -> None:
    (cookie,) = Browser(app).get("/language?language=en").headers.getlist("Set-Cookie")
    assert cookie.startswith(f"{languages.COOKIE}=en; ")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))


@pytest.mark.parametrize("value", ["de", "pt_BR", "en; x", "../en", "é", "x" * 4000])
def test_a_cookie_of_another_value_is_ignored(app: Flask, value: str) -> None:
    browser = Browser(app, language="en")
    page = browser.get("/login", {"Cookie": f"{languages.COOKIE}={value}"}).text
    assert '<html lang="en">' in page
