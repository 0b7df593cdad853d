"""The diagnosis for pages: a verdict in one sentence, and the findings with buttons that help.

It reads only the database; pages do not call RD Station.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlencode

import psycopg

from rdservice.diagnosis.facts import database_facts
from rdservice.diagnosis.facts.types import Facts
from rdservice.diagnosis.findings.find import find
from rdservice.diagnosis.findings.finding import Finding
from rdservice.diagnosis.findings.guide import Action
from rdservice.diagnosis.sentences import Words
from rdservice.names import account_page
from rdservice.services import Services
from rdservice.tokens.listing import State
from rdservice.web.http.paths import action_path, login_url
from rdservice.web.text.datetimes import number_words
from rdservice.web.text.languages import gettext, ngettext, page_language

MAX_FINDINGS = 10
TONES = {"error": "bad", "warning": "warn", "info": "plain"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Button:
    """An action that helps. `method`: get for a link, post for a form."""

    words: str
    path: str
    method: Literal["get", "post"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownFinding:
    """A cause in the reader's language. `tone`: plain, warn or bad."""

    code: str
    tone: str
    words: Words
    button: Button | None
    account_path: str | None
    consequences: list[tuple[str, str]]
    """Code and observation of the findings that this one causes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The overall status, in one sentence and one more. `tone`: ok, warn or bad."""

    tone: str
    sentence: str
    more: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The findings of a page: causes, the root cause first."""

    findings: list[ShownFinding]
    further: int
    """The number of causes that are not shown."""
    worker_runs: bool
    verdict: Verdict


def diagnose(
    conn: psycopg.Connection[Any],
    services: Services,
    *,
    counts: Mapping[State, int],
    account_id: str | None = None,
) -> Diagnosis:
    """Return the findings that need only the database, with `account_id` only those of that account.

    `counts`: number of accounts in each state, since the findings cover only the first hundred accounts.
    """
    settings = services.settings
    database = database_facts.read(
        conn,
        keys=services.keys,
        fingerprint=services.refresher.fingerprint,
        api_url=settings.api_url,
        scope=settings.scope,
        first=account_id,
    )
    if account_id is not None:
        accounts = [account for account in database.accounts if account.account_id == account_id]
        database = replace(database, accounts=accounts)
    facts = Facts(
        database=database,
        api_url=settings.api_url,
        required_scope=settings.scope,
    )
    # The page itself says that no account is connected, with the button that helps.
    found = [finding for finding in find(facts) if finding.code != "no_account"]
    causes = [finding for finding in found if finding.follows_from is None]
    return Diagnosis(
        findings=[_shown(cause, found) for cause in causes[:MAX_FINDINGS]],
        further=max(0, len(causes) - MAX_FINDINGS),
        worker_runs=all(finding.code != "worker_not_running" for finding in found),
        verdict=_verdict(causes, counts),
    )


def _shown(cause: Finding, found: Iterable[Finding]) -> ShownFinding:
    consequences = [one for one in found if _follows(one, cause)]
    return ShownFinding(
        code=cause.code,
        tone=TONES[cause.severity],
        words=_words(cause),
        button=_button(cause.action, cause.account_id),
        account_path=None if cause.account_id is None else account_page(cause.account_id),
        consequences=[(one.code, _words(one).seen) for one in consequences[:MAX_FINDINGS]],
    )


def _follows(finding: Finding, cause: Finding) -> bool:
    return finding.follows_from == cause.code and (
        cause.account_id is None or finding.account_id in (None, cause.account_id)
    )


def _words(finding: Finding) -> Words:
    return finding.text(page_language())


def _button(action: Action, account_id: str | None) -> Button | None:
    if account_id is None or action == "none":
        return None
    buttons = {
        "connect": Button(words=gettext("Connect again"), path=login_url(account_id), method="get"),
        "refresh": Button(
            words=gettext("Refresh now"), path=action_path(account_id, "refresh"), method="post"
        ),
        "upload": Button(
            words=gettext("Upload tokens"),
            path=f"/upload?{urlencode({'account_id': account_id})}",
            method="get",
        ),
    }
    return buttons[action]


def _verdict(causes: list[Finding], counts: Mapping[State, int]) -> Verdict:
    """Return the verdict on ordered findings. The first cause determines who must act."""
    worst = causes[0] if causes else None
    if worst is None or worst.severity == "info":
        return _all_is_well(sum(counts.values()))
    seen = _words(worst).seen
    if worst.severity == "warning":
        return Verdict(tone="warn", sentence=gettext("It works, but look at this"), more=seen)
    if worst.who == "operator":
        named = {one.account_id for one in causes if one.severity == "error" and one.who == "operator"}
        waiting = max(len(named), counts["reauthorization_required"])
        return Verdict(
            tone="bad",
            sentence=ngettext(
                "One account needs you", "%(count)s accounts need you", waiting, count=number_words(waiting)
            ),
            more=seen,
        )
    if worst.who == "rdstation":
        return Verdict(tone="bad", sentence=gettext("RD Station has a problem"), more=seen)
    return Verdict(tone="bad", sentence=gettext("Your administrator needs to act"), more=seen)


def _all_is_well(accounts: int) -> Verdict:
    if not accounts:
        more = gettext("Connect the first account to begin.")
    else:
        more = ngettext(
            "The account is connected and renewed automatically. You don't need to do anything.",
            "All %(count)s accounts are connected and renewed automatically. You don't need to do anything.",
            accounts,
            count=number_words(accounts),
        )
    return Verdict(tone="ok", sentence=gettext("All is well"), more=more)
