"""What operators read about alerts: complete, the same in both languages, and reached by every alert."""

import os
import re
import shlex
from pathlib import Path

import pytest

from dev.alert_drill.__main__ import parser
from dev.monitoring.__main__ import PORTS
from tests.support.documents import assert_same_structure, code_blocks, headings, prose, read, table_with
from tests.support.rule_files import ALERTS, ROOT

PAIRS = [
    ("docs/monitoring.md", "docs/monitoring.pt-BR.md"),
    ("docs/runbook.md", "docs/runbook.pt-BR.md"),
]
DOCUMENTS = [name for pair in PAIRS for name in pair]
MONITORING, RUNBOOKS = PAIRS
LANGUAGES = {"docs/runbook.md": "## Alerts", "docs/runbook.pt-BR.md": "## Alertas"}
PARTS = {
    "docs/runbook.md": ["You see", "The service", "You", "Call"],
    "docs/runbook.pt-BR.md": ["Você vê", "O serviço", "Você", "Chame"],
}


def alert_sections(name: str) -> dict[str, str]:
    """Return the sections of a runbook that are about alerts, by the alert's name."""
    text = prose(read(name)).partition(f"\n{LANGUAGES[name]}\n")[2]
    text = re.split(r"^## ", text, flags=re.MULTILINE)[0]
    return dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", text, re.MULTILINE | re.DOTALL))


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub and GitLab make of a document's headings."""
    plain = [re.sub(r"[^\w\- ]", "", heading.lstrip("# ").lower()) for heading in headings(path.read_text())]
    return {words.replace(" ", "-") for words in plain}


@pytest.mark.parametrize("pair", PAIRS, ids=["monitoring", "runbook"])
def test_both_languages_have_the_same_structure(pair: tuple[str, str]) -> None:
    assert_same_structure(*map(read, pair))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_to_files_and_to_headings_in_them(name: str) -> None:
    links = re.findall(r"\]\(([^)]+)\)", prose(read(name)))
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("name", RUNBOOKS)
def test_every_alert_has_its_section_in_the_runbook_and_nothing_else_has(name: str) -> None:
    sections = alert_sections(name)
    assert list(sections) == list(ALERTS)
    for alert, text in sections.items():
        assert re.findall(r"^- \*\*(.+?)\*\*: \S", text, re.MULTILINE) == PARTS[name], alert


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_names_its_section_of_the_runbook_wherever_that_is(alert: str) -> None:
    url = ALERTS[alert]["annotations"]["runbook_url"]
    base, _, anchor = url.partition("#")
    assert base == '{{ or $externalLabels.rdservice_runbook "docs/runbook.md" }}'
    assert all(anchor in anchors(ROOT / name) for name in RUNBOOKS)


@pytest.mark.parametrize("name", MONITORING)
def test_every_alert_is_in_the_table_with_its_severity_and_no_other(name: str) -> None:
    rows = table_with(read(name), "RDStationTokenExpired")
    severities = {alert: rule["labels"]["severity"] for alert, rule in ALERTS.items()}
    assert list(rows) == list(ALERTS)
    assert {alert: row[0] for alert, row in rows.items()} == severities


@pytest.mark.parametrize("name", MONITORING)
def test_the_ports_are_in_the_document_with_their_defaults(name: str) -> None:
    rows = table_with(read(name), "PROMETHEUS_PORT")
    assert PORTS.keys() <= rows.keys()
    for variable, port in PORTS.items():
        assert rows[variable][0].startswith(f"`{port}`")


@pytest.mark.parametrize("name", MONITORING)
def test_the_commands_of_the_document_are_there(name: str) -> None:
    lines = [line for _, block in code_blocks(read(name)) for line in block.splitlines()]
    scripts = [line for line in lines if line.startswith("scripts/")]
    assert [shlex.split(line)[0] for line in scripts] == ["dev/monitor", "dev/drill"]
    assert all(os.access(ROOT / line, os.X_OK) for line in scripts)
    options = {option for action in parser()._actions for option in action.option_strings}
    named = set(re.findall(r"`(--[a-z]+)", prose(read(name))))
    assert {"--json", "--minute"} == named & options
