"""What operators read about alerts: complete, the same in both languages, and reached by every alert."""

import os
import re
import shlex

import pytest

from dev.alert_drill.__main__ import parser
from dev.monitoring.__main__ import PORTS
from tests.support.documents import LANGUAGES, code_blocks, headings, page, prose, table_with
from tests.support.rule_files import ALERTS, ROOT

CHAPTERS = {"en": "## Alerts", "pt-BR": "## Alertas"}
PARTS = {"en": ["You see", "The service", "You", "Call"], "pt-BR": ["Você vê", "O serviço", "Você", "Chame"]}
in_both_languages = pytest.mark.parametrize("language", LANGUAGES)


def alert_sections(language: str) -> dict[str, str]:
    """Return the sections of a runbook that are about alerts, by the alert's name."""
    text = prose(page(language, "operate/runbook")).partition(f"\n{CHAPTERS[language]}\n")[2]
    text = re.split(r"^## ", text, flags=re.MULTILINE)[0]
    return dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", text, re.MULTILINE | re.DOTALL))


@in_both_languages
def test_every_alert_has_its_section_in_the_runbook_and_nothing_else_has(language: str) -> None:
    sections = alert_sections(language)
    assert list(sections) == list(ALERTS)
    for alert, text in sections.items():
        assert re.findall(r"^- \*\*(.+?)\*\*: \S", text, re.MULTILINE) == PARTS[language], alert


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_names_its_section_of_the_runbook_wherever_that_is(alert: str) -> None:
    url = ALERTS[alert]["annotations"]["runbook_url"]
    base, _, anchor = url.partition("#")
    assert base == '{{ or $externalLabels.rdservice_runbook "docs/en/operate/runbook.md" }}'
    assert anchor == alert.lower()
    assert all(f"### {alert}" in headings(page(language, "operate/runbook")) for language in LANGUAGES)


@in_both_languages
def test_the_ports_are_in_the_document_with_their_defaults(language: str) -> None:
    rows = table_with(page(language, "operate/monitoring"), "PROMETHEUS_PORT")
    assert PORTS.keys() <= rows.keys()
    for variable, port in PORTS.items():
        assert rows[variable][0].startswith(f"`{port}`")


@in_both_languages
def test_the_commands_of_the_document_are_there(language: str) -> None:
    text = page(language, "operate/monitoring")
    lines = [line for _, block in code_blocks(text) for line in block.splitlines()]
    programs = [shlex.split(line)[0] for line in lines if line.startswith("dev/")]
    assert programs == ["dev/monitor", "dev/drill"]
    assert all(os.access(ROOT / program, os.X_OK) for program in programs)
    options = {option for action in parser()._actions for option in action.option_strings}
    named = set(re.findall(r"`(--[a-z]+)", prose(text)))
    assert {"--json", "--minute"} == named & options
