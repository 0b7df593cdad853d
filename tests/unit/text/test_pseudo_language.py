"""No sentence gets around the catalogue: in a language of ⟦marked⟧ texts, no letter is outside of the marks."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dev.documents import findings
from rdservice.diagnosis.account_advice import of_account
from rdservice.diagnosis.findings.find import find
from rdservice.diagnosis.report import summary
from rdservice.notifications import messages
from rdservice.notifications.incidents import Kind, Told
from rdservice.notifications.messages import BEGUN, BETWEEN
from scripts.local.ready_message import ready_message
from tests.support.facts import all_facts, all_findings
from tests.support.pseudo_language import spoken, unmarked

LETTER = re.compile(r"[^\W\d_]")
ORIGIN = "https://service.example"


def test_findings() -> None:
    with spoken():
        for finding in all_findings():
            for part in finding.text("pt-BR"):
                assert not LETTER.search(unmarked(part)), finding.words


def test_the_summary_on_the_terminal() -> None:
    many = [finding for finding in all_findings() if finding.follows_from is None]
    with spoken():
        for found in [*map(find, all_facts()), many]:
            text = "\n".join(summary.lines(found, "pt-BR", coloured=False))
            assert not LETTER.search(re.sub(r"\[\w+(: [\w, ]+)?\]", "", unmarked(text)))


def test_the_advice_for_an_account() -> None:
    with spoken():
        finding = of_account("shop", "reauthorization_required", "answer_lost")
        assert finding is not None
        assert not LETTER.search(unmarked(finding.advice("pt-BR")))


@pytest.mark.parametrize("recovered", [False, True])
def test_notifications(recovered: bool) -> None:
    kinds: tuple[Kind, ...] = ("reauthorization_required", "expiring", "credentials_refused")
    assert set(kinds) == set(BEGUN)
    told = [
        Told(
            recovered=recovered,
            kind=kind,
            account_id=None if kind == "credentials_refused" else account_id,
            name=None,
            of_its_kind=12,
            expires_at=datetime(2026, 11, 30, tzinfo=UTC),
        )
        for kind in kinds
        for account_id in ("1", "someone@example.com")
    ]
    with spoken():
        made = messages.of_incidents(told, ORIGIN)
        tested = messages.test(ORIGIN)
    for message in (made, tested):
        portuguese = message.body.partition(BETWEEN)[0]
        assert "⟦" in portuguese
        assert not LETTER.search(re.sub(re.escape(ORIGIN) + r"\S*", "", unmarked(portuguese)))
        title = message.title.removeprefix("RD Station: ").partition(" · ")[0]
        assert not LETTER.search(unmarked(title))


@pytest.mark.parametrize("is_first", [True, False])
def test_what_scripts_start_says_when_it_is_ready(
    is_first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "pt_BR.UTF-8")
    with spoken():
        text = ready_message(ORIGIN, tmp_path, {}, None, is_first=is_first)
    commands = re.compile(r"^    .*\n?(?:         .*\n)?", re.MULTILINE)
    assert "⟦" in text
    assert not LETTER.search(unmarked(commands.sub("", text)))


def test_the_findings_in_the_document() -> None:
    with spoken():
        text = "\n".join(findings.findings("pt-BR"))
    assert not LETTER.search(re.sub(r"### `\w+`", "", unmarked(text)))
