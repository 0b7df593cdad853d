"""The words for mistakes in the settings."""

import re
from typing import get_args

from rdservice.config.problems import Code, Problem
from rdservice.text.settings_problems import SENTENCES, example, report
from tests.support.facts import problem
from tests.support.pseudo_language import spoken, unmarked


def test_every_mistake_has_a_sentence() -> None:
    assert set(SENTENCES) == set(get_args(Code))


def test_what_has_no_example_is_told_without_one() -> None:
    unreadable = Problem(variable=None, code="file_not_utf8", facts={"file": ".env"})
    assert example("pt-BR", unreadable) == ""
    assert report("en", [unreadable]).splitlines()[1:] == [
        "  - .env cannot be read: save it in the encoding UTF-8."
    ]


def test_no_sentence_gets_around_the_catalogue() -> None:
    with spoken():
        told = report("pt-BR", [problem(code) for code in SENTENCES])
    assert not re.search(r"[^\W\d_]", unmarked(told))
