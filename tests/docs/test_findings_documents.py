"""docs/leads-stopped.md and its twin: every finding is reached from what an operator sees, in its own words."""

import re

import pytest

from dev.checks.findings_document import DOCUMENTS, with_findings
from rdservice.diagnosis.findings.verdict import ORDER
from tests.support.documents import assert_same_structure, headings, prose, read

LANGUAGES = pytest.mark.parametrize("language", ["en", "pt-BR"])


def text_of(language: str) -> str:
    return DOCUMENTS[language].read_text(encoding="utf-8")  # type: ignore[index]


def tree(text: str) -> str:
    """Return the part that leads from what is seen to findings."""
    return text.partition("<!-- findings -->")[0]


@LANGUAGES
def test_every_finding_is_a_leaf_of_the_tree_and_nothing_unknown_is(language: str) -> None:
    leaves = set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", tree(text_of(language))))
    assert leaves - {"this_type", "este_tipo"} == set(ORDER)


@LANGUAGES
def test_the_sentences_are_those_of_the_module(language: str) -> None:
    text = text_of(language)
    made = with_findings(text, language)  # type: ignore[arg-type]
    assert text == made, "run python -m dev.checks.findings_document"
    assert [heading for heading in headings(text) if heading.startswith("### ")] == [
        f"### `{code}`" for code in ORDER
    ]


def test_both_languages_have_the_same_structure() -> None:
    english, portuguese = text_of("en"), text_of("pt-BR")
    assert_same_structure(english, portuguese)

    def outline(text: str) -> list[tuple[int, list[str]]]:
        steps = re.findall(r"^( *)- (.*(?:\n(?! *- |\n|#|\|).*)*)", prose(tree(text)), re.MULTILINE)
        codes = [re.findall(r"`([a-z]+(?:_[a-z]+)*)`", step) for _, step in steps]
        return [(len(indent), found) for (indent, _), found in zip(steps, codes, strict=True)]

    assert outline(english) == outline(portuguese)
    assert len(outline(english)) > 30


@LANGUAGES
def test_its_links_lead_to_headings_that_are_there(language: str) -> None:
    text = text_of(language)
    anchors = {
        re.sub(r"[^\w\- ]", "", heading.lstrip("# ").lower()).replace(" ", "-") for heading in headings(text)
    }
    linked = re.findall(r"\]\(#([^)]+)\)", text)
    assert len(linked) >= 7
    assert set(linked) <= anchors


@LANGUAGES
def test_its_alerts_are_those_of_the_rules(language: str) -> None:
    known = set(re.findall(r"- alert: (\w+)", read("monitoring/rules/rdservice.yml")))
    named = set(re.findall(r"`(RDS\w+[a-z])`", text_of(language)))
    assert named <= known
    assert {name for name in known if name.startswith("RDStation")} <= named


@LANGUAGES
def test_readme_and_runbook_lead_to_it(language: str) -> None:
    suffix = "" if language == "en" else ".pt-BR"
    assert f"](docs/leads-stopped{suffix}.md)" in read(f"README{suffix}.md")
    assert f"](leads-stopped{suffix}.md)" in read(f"docs/runbook{suffix}.md")
