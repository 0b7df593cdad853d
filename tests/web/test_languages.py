"""The pages' languages, and whether the translations are complete and compiled."""

from collections.abc import Sequence

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.frontend import parse_mapping_cfg
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po
from flask import Flask

from rdservice.settings import ROOT
from rdservice.web import languages
from tests.web.browser import Browser

MESSAGES = languages.TRANSLATIONS / "pt_BR" / "LC_MESSAGES"


def texts_in_the_code() -> set[str]:
    with (ROOT / "babel.cfg").open(encoding="utf-8") as file:
        methods, options = parse_mapping_cfg(file)  # type: ignore[no-untyped-call]
    found = extract_from_dir(ROOT / "rdservice", methods, options)
    return {singular(message) for _file, _line, message, _comments, _context in found}


def singular(message: str | Sequence[str]) -> str:
    """Return the text by which a message is known; one with a plural is a pair."""
    return message if isinstance(message, str) else message[0]


def strings(message: Message) -> tuple[str, ...]:
    """Return the translations of a message: several where it has a plural."""
    return (message.string,) if isinstance(message.string, str) else tuple(message.string or ())


def read_source() -> Catalog:
    with (MESSAGES / "messages.po").open("rb") as file:
        return read_po(file, locale="pt_BR")


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


def test_all_texts_are_translated() -> None:
    source = read_source()
    texts = texts_in_the_code()
    assert len(texts) > 50
    missing = sorted(text for text in texts if text not in source or not all(strings(source[text])))
    assert missing == [], "translate these as babel.cfg says"
    assert [message.id for message in source if message.fuzzy and message.id] == []


def test_no_translation_is_left_over() -> None:
    texts = texts_in_the_code()
    assert (
        sorted(
            singular(message.id)
            for message in read_source()
            if message.id and singular(message.id) not in texts
        )
        == []
    )


def test_translations_keep_the_placeholders() -> None:
    errors = {str(message.id): [str(error) for error in found] for message, found in read_source().check()}
    assert errors == {}


def test_the_compiled_translations_are_current() -> None:
    with (MESSAGES / "messages.mo").open("rb") as file:
        compiled = read_mo(file)
    expected = {
        singular(message.id): strings(message) for message in read_source() if message.id and message.string
    }
    assert {singular(message.id): strings(message) for message in compiled if message.id} == expected, (
        "run pybabel compile"
    )
