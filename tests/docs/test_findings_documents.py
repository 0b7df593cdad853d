"""The page about leads that stopped: every finding is reached from what an operator sees, in its own words."""

import re

import pytest

from rdservice.diagnosis.findings.verdict import ORDER
from tests.support.documents import LANGUAGES, headings, page, prose, read

PAGE = "operate/leads-stopped"
in_both_languages = pytest.mark.parametrize("language", LANGUAGES)


@in_both_languages
def test_every_finding_is_a_leaf_of_the_tree_and_leads_to_its_explanation(language: str) -> None:
    text = page(language, PAGE)
    leaves = set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", text))
    assert leaves - {"this_type", "este_tipo"} == set(ORDER)
    linked = re.findall(r"\[`([a-z_]+)`\]\(\.\./reference/states\.md#([a-z_]+)\)", text)
    assert {code for code, _ in linked} == set(ORDER)
    assert all(code == anchor for code, anchor in linked)
    explained = [
        heading for heading in headings(page(language, "reference/states")) if heading.startswith("### ")
    ]
    assert explained == [f"### `{code}`" for code in ORDER]


def test_the_tree_leads_to_the_same_findings_in_both_languages() -> None:
    def outline(text: str) -> list[tuple[int, list[str]]]:
        steps = re.findall(r"^( *)- (.*(?:\n(?! *- |\n|#|\|).*)*)", prose(text), re.MULTILINE)
        codes = [re.findall(r"`([a-z]+(?:_[a-z]+)*)`", step) for _, step in steps]
        return [(len(indent), found) for (indent, _), found in zip(steps, codes, strict=True)]

    english, portuguese = (outline(page(language, PAGE)) for language in LANGUAGES)
    assert english == portuguese
    assert len(english) > 30


@in_both_languages
def test_its_alerts_are_those_of_the_rules(language: str) -> None:
    known = set(re.findall(r"- alert: (\w+)", read("monitoring/rules/rdservice.yml")))
    named = set(re.findall(r"`(RDS\w+[a-z])`", page(language, PAGE)))
    assert named <= known
    assert {name for name in known if name.startswith("RDStation")} <= named


@in_both_languages
def test_the_runbook_leads_to_it(language: str) -> None:
    assert "](leads-stopped.md)" in page(language, "operate/runbook")
