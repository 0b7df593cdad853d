"""What scripts/start says is there in both languages."""

import ast
import string
from pathlib import Path

import pytest

from rdservice.terminal_language import is_portuguese
from scripts.terminal_words import PORTUGUESE, tell

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def told() -> set[str]:
    """Return every text that the scripts hand to `tell`, also those that stand in a name first."""
    found = set()
    for file in SCRIPTS.glob("*.py"):
        tree = ast.parse(file.read_text())
        named = {
            target.id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "tell":
                text = node.args[0]
                if isinstance(text, ast.Name):
                    text = named[text.id]
                assert isinstance(text, ast.Constant), ast.unparse(node)
                found.add(str(text.value))
    return found


def placeholders(text: str) -> set[str | None]:
    return {name for _, name, _, _ in string.Formatter().parse(text)}


def test_every_text_has_a_portuguese_one_and_no_other_is_kept() -> None:
    assert told() == PORTUGUESE.keys()


@pytest.mark.parametrize("english", PORTUGUESE)
def test_both_languages_tell_the_same_values(english: str) -> None:
    assert placeholders(english) == placeholders(PORTUGUESE[english])


@pytest.mark.parametrize(
    ("environment", "portuguese"),
    [
        ({"LANG": "pt_BR.UTF-8"}, True),
        ({"LANG": "pt"}, True),
        ({"LANG": "en_US.UTF-8"}, False),
        ({"LANG": "pt_BR.UTF-8", "LC_ALL": "C.UTF-8"}, False),
        ({"LANG": "C", "LC_MESSAGES": "pt_PT"}, True),
        ({}, False),
    ],
)
def test_the_terminal_s_locale_decides(environment: dict[str, str], portuguese: bool) -> None:
    assert is_portuguese(environment) is portuguese


def test_values_may_hold_braces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    assert tell("Starting PostgreSQL …") == "Starting PostgreSQL …"
    assert tell("{program} failed.", program="{x}") == "{x} failed."
