"""The language of pages."""

import pytest
from flask import Flask

from tests.support.browser import Browser


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("pt-BR,pt;q=0.9,en;q=0.8", "pt-BR"),
        ("pt-PT", "pt-BR"),
        ("en-US,en;q=0.9,pt-BR;q=0.8", "en"),
        ("en", "en"),
        ("EN-gb", "en"),
        ("pt;q=0.5, en;q=0.9", "en"),
        ("de,en;q=0.5", "en"),
        ("de", "pt-BR"),
        ("en;q=0", "pt-BR"),
        ("*", "pt-BR"),
        ("", "pt-BR"),
        ("x" * 500, "pt-BR"),
        (";;;,,q=", "pt-BR"),
    ],
)
def test_pages_are_in_portuguese_unless_the_browser_prefers_english(
    app: Flask, accepted: str, language: str
) -> None:
    page = Browser(app, language=accepted).get("/login").text
    assert f'<html lang="{language}">' in page
    assert ("Entrar</button>" in page) == (language == "pt-BR")
    assert ("Log in (Entrar)</button>" in page) == (language == "en")
