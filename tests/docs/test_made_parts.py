"""The parts of the documents that are made from the code are what the code yields."""

from pathlib import Path

import pytest

from dev.checks import documents
from dev.documents import tables
from dev.documents.tables import DocumentsError
from tests.support.documents import ROOT


def test_the_made_parts_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert documents.main(["--check"]) == 0, capsys.readouterr()


def test_every_part_is_in_the_documents_of_both_languages() -> None:
    for language in ("en", "pt-BR"):
        texts = [file.read_text() for file in (ROOT / "docs" / language).rglob("*.md")]
        for name in documents.PARTS:
            assert sum(text.count(f"<!-- made by scripts/fix: {name} -->") for text in texts) == 1, name


def test_a_part_that_differs_is_named_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "docs" / "en" / "settings.md"
    (page.parent / "pictures").mkdir(parents=True)
    (tmp_path / "docs" / "pt-BR" / "pictures").mkdir(parents=True)
    page.write_text("Before.\n\n<!-- made by scripts/fix: states -->\nold\n<!-- end -->\n\nAfter.\n")
    monkeypatch.setattr(documents, "ROOT", tmp_path)
    monkeypatch.setattr(documents, "DOCS", tmp_path / "docs")
    assert documents.main(["--check"]) == 1
    assert "docs/en/settings.md is out of date" in capsys.readouterr().out
    assert "old" in page.read_text()
    assert documents.main([]) == 0
    text = page.read_text()
    assert text.startswith("Before.\n\n<!-- made by scripts/fix: states -->\n\n| state | what it means |\n")
    assert text.endswith(" |\n\n<!-- end -->\n\nAfter.\n")
    assert documents.main(["--check"]) == 0


def test_a_part_of_an_unknown_name_is_refused() -> None:
    with pytest.raises(DocumentsError, match="no part is called moods"):
        documents.with_made_parts("<!-- made by scripts/fix: moods -->\n<!-- end -->\n", "en")


def test_a_row_without_a_sentence_and_a_sentence_without_a_row_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(tables.SENTENCES, "states", {"connected": tables.SENTENCES["states"]["connected"]})
    with pytest.raises(DocumentsError, match="reauthorization_required"):
        tables.states("en")
    monkeypatch.setitem(tables.SENTENCES, "last_errors", tables.SENTENCES["last_errors"] | {"mood": {}})
    with pytest.raises(DocumentsError, match="mood"):
        tables.last_errors("en")
