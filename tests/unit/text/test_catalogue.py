"""Sentences in the reader's language."""

import ast
from gettext import NullTranslations

import pytest

from dev.checks.catalogue import KEYWORDS, ROOT, mistakes
from rdservice.text import catalogue
from rdservice.text.catalogue import Language, translated, translated_plural
from rdservice.text.terminal import language, tell

NEEDS = ("One account needs you", "%(count)s accounts need you")


def test_the_catalogue_is_current_and_complete() -> None:
    assert mistakes() == []


@pytest.mark.parametrize(
    ("language", "expected"), [("en", "API key website"), ("pt-BR", "Chave de API website")]
)
def test_a_text_is_translated_and_filled(language: Language, expected: str) -> None:
    assert translated(language, "API key %(name)s", name="website") == expected


def test_a_text_without_a_translation_stays_english() -> None:
    assert translated("pt-BR", "never said anywhere") == "never said anywhere"


def test_the_empty_text_is_not_the_head_of_the_catalogue() -> None:
    assert translated("pt-BR", "") == ""


def test_a_percent_sign_stands_for_itself_without_values() -> None:
    assert translated("en", "100 %") == "100 %"


@pytest.mark.parametrize(
    ("language", "count", "expected"),
    [
        ("en", 1, "One account needs you"),
        ("en", 2, "2 accounts need you"),
        ("pt-BR", 1, "Uma conta precisa de você"),
        ("pt-BR", 2, "2 contas precisam de você"),
    ],
)
def test_the_number_chooses_the_form(language: Language, count: int, expected: str) -> None:
    assert translated_plural(language, *NEEDS, count) == expected


def test_the_number_can_be_told_in_other_words() -> None:
    assert translated_plural("en", *NEEDS, 100, count="100+") == "100+ accounts need you"


def test_values_may_hold_percent_signs_and_braces() -> None:
    assert translated("en", "API key %(name)s", name="%(x)s {x} 100%") == "API key %(x)s {x} 100%"


def test_another_catalogue_can_stand_in_for_portuguese_alone() -> None:
    class Marked(NullTranslations):
        def gettext(self, message: str) -> str:
            return f"⟦{message}⟧"

    with catalogue.use(Marked()):
        assert translated("pt-BR", "Overview") == "⟦Overview⟧"
        assert translated("en", "Overview") == "Overview"
    assert translated("pt-BR", "Overview") == "Visão geral"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"LANG": "pt_BR.UTF-8"}, "pt-BR"),
        ({"LANG": "pt"}, "pt-BR"),
        ({"LANG": "en_US.UTF-8"}, "en"),
        ({"LANG": "pt_BR.UTF-8", "LC_ALL": "C.UTF-8"}, "en"),
        ({"LANG": "C", "LC_MESSAGES": "pt_PT"}, "pt-BR"),
        ({}, "en"),
    ],
)
def test_the_terminal_s_locale_decides(environment: dict[str, str], expected: Language) -> None:
    assert language(environment) == expected


def test_the_terminal_is_told_in_its_language(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "pt_BR.UTF-8")
    assert tell("Overview") == "Visão geral"
    monkeypatch.setenv("LC_ALL", "C")
    assert tell("Overview") == "Overview"


def test_no_text_is_marked_within_an_f_string_where_it_is_not_found() -> None:
    hidden = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for folder in ("rdservice", "worker", "scripts")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for outer in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(outer, ast.JoinedStr)
        for call in ast.walk(outer)
        if isinstance(call, ast.Call)
        and getattr(call.func, "id", None) in KEYWORDS
        and any(isinstance(argument, ast.Constant) for argument in call.args)
    ]
    assert hidden == []
