"""The status page's section "Diagnosis": findings in words, from the database alone, and what was served and called."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import psycopg

from rdservice.diagnosis import database_facts
from rdservice.diagnosis.facts import Facts
from rdservice.diagnosis.finding import Finding, Language
from rdservice.diagnosis.findings import find
from rdservice.diagnosis.words_en import Words
from rdservice.metrics import store as metric_totals
from rdservice.services import Services
from rdservice.web.languages import page_language
from rdservice.web.moments import Moment, moment_of, number_words

MAX_FINDINGS = 10
TONES = {"error": "bad", "warning": "warn", "info": "plain"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownFinding:
    """A finding as the page shows it, in the reader's language. `tone` is plain, warn or bad."""

    code: str
    tone: str
    words: Words


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Numbers of the past day, as texts in the reader's language. `since`: None for since counting began."""

    since: Moment | None
    hit: str
    miss: str
    stale: str
    succeeded: str
    refused: str
    failed: str
    unanswered: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The section as the page shows it."""

    findings: list[ShownFinding]
    further: int
    """How many findings are not shown."""
    worker_runs: bool
    traffic: Traffic

    @property
    def serious(self) -> bool:
        return any(finding.tone == "bad" for finding in self.findings)


def diagnose(conn: psycopg.Connection[Any], services: Services) -> Diagnosis:
    """Return the diagnosis as far as the database tells: RD Station is not asked while a page is made."""
    settings = services.settings
    facts = Facts(
        database=database_facts.read(
            conn,
            keys=services.keys,
            fingerprint=services.refresher.fingerprint,
            api_url=settings.api_url,
            scope=settings.scope,
        ),
        api_url=settings.api_url,
        required_scope=settings.scope,
    )
    # That no account is connected is what the page itself says, with the button that helps.
    found = [finding for finding in find(facts) if finding.code != "no_account"]
    return Diagnosis(
        findings=[_shown(finding) for finding in found[:MAX_FINDINGS]],
        further=max(0, len(found) - MAX_FINDINGS),
        worker_runs=all(finding.code != "worker_not_running" for finding in found),
        traffic=_traffic(conn),
    )


def _shown(finding: Finding) -> ShownFinding:
    language: Language = "pt-BR" if page_language() == "pt-BR" else "en"
    return ShownFinding(code=finding.code, tone=TONES[finding.severity], words=finding.text(language))


def _traffic(conn: psycopg.Connection[Any]) -> Traffic:
    served, calls = Counter[str](), Counter[str]()
    lately = metric_totals.lately(conn)
    for (name, labels), value in lately.counts.items():
        if name == "rdstation_leads_served_total":
            served[dict(labels)["cache"]] += round(value)
        else:
            calls[dict(labels)["status_class"]] += round(value)
    return Traffic(
        since=None if lately.since is None else moment_of(lately.since),
        hit=number_words(served["hit"]),
        miss=number_words(served["miss"]),
        stale=number_words(served["stale"]),
        succeeded=number_words(calls["2xx"]),
        refused=number_words(calls["3xx"] + calls["4xx"]),
        failed=number_words(calls["5xx"]),
        unanswered=number_words(calls["none"]),
    )
