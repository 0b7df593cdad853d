"""The whole diagnosis: looks at the settings and the database, tries RD Station, and puts it all into one report.

Every step is bounded in time, whatever hangs: the database, RD Station, or both.
"""

import json
import platform
import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, TypeVar

import psycopg

from rdservice import audit
from rdservice.audit import Author
from rdservice.diagnosis import database_check, known_settings, masking, probes
from rdservice.diagnosis.database_check import DatabaseCheck
from rdservice.diagnosis.facts import Account, Facts, Probe
from rdservice.diagnosis.finding import Finding
from rdservice.diagnosis.findings import find
from rdservice.diagnosis.known_settings import KnownSettings
from rdservice.redaction import redactor
from rdservice.services import Services
from rdservice.settings import ROOT
from rdservice.tokens.attempts import Attempt
from rdservice.tokens.store import DEFAULT_ACCOUNT

T = TypeVar("T")

BY_COMMAND = audit.command_line("debug_rdstation_integration.py")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Points on the clock of a run, in seconds from its start.

    An exchange takes up to 21 s and must not be cut off, or its answer, which may hold the only valid refresh token, is
    lost: so nothing that could begin one begins late.
    """

    database_until_s: float
    refresh_within_s: float
    begin_leads_until_s: float
    leads_until_s: float
    exchanges_until_s: float
    given_up_until_s: float
    second_look_within_s: float


OF_A_COMMAND = Schedule(
    database_until_s=12.0,
    refresh_within_s=20.0,
    begin_leads_until_s=20.0,
    leads_until_s=45.0,
    exchanges_until_s=50.0,
    given_up_until_s=54.0,
    second_look_within_s=5.0,
)
# Heroku's router gives a request up after 30 s. Exchanges that take longer go on in the process.
OF_A_REQUEST = Schedule(
    database_until_s=6.0,
    refresh_within_s=12.0,
    begin_leads_until_s=15.0,
    leads_until_s=22.0,
    exchanges_until_s=0.0,
    given_up_until_s=0.0,
    second_look_within_s=3.0,
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """`content` is JSON without secrets; `findings` are those in it."""

    content: dict[str, Any]
    findings: list[Finding]

    @property
    def needs_a_person(self) -> bool:
        return any(finding.severity == "error" for finding in self.findings)

    def to_bytes(self) -> bytes:
        """Return the content of `rdstation_debug_info.json`: JSON in UTF-8."""
        text = json.dumps(self.content, indent=2, ensure_ascii=False) + "\n"
        return text.encode("utf-8", "backslashreplace")


def diagnose(environ: Mapping[str, str], *, account: str | None, try_refresh: bool) -> Report:
    """Make the diagnosis of a command, with settings that may be broken.

    RD Station is tried with `account`, or else with `default`, or else with the only account. It may leave threads
    behind that hang: the process should then end by `os._exit`.
    """
    known = known_settings.collect(environ)
    run = _Run(known, OF_A_COMMAND, account=account, try_refresh=try_refresh, by=BY_COMMAND)
    run.look()
    run.try_rdstation()
    return run.report()


def diagnose_running(
    services: Services, *, by: Author, account: str | None = None, try_refresh: bool = False
) -> Report:
    """Make the diagnosis from within a running process, such as a web process that answers a request.

    It ends within 26 s, writes no file, asks RD Station with what `services` has, and never raises for a database or an
    RD Station that cannot be reached. `account` is chosen as by `diagnose`; the refresh is one of `by`, bound by claim
    and back-off as any other. `Report.to_bytes` is what a download holds, `Report.findings` what a page shows; in both,
    names of accounts that are e-mail addresses are masked.
    """
    run = _Run(
        known_settings.of_running(services.settings),
        OF_A_REQUEST,
        account=account,
        try_refresh=try_refresh,
        by=by,
        services=services,
    )
    run.look()
    run.try_rdstation()
    return run.report()


class _Run:
    """One diagnosis, step by step."""

    def __init__(
        self,
        known: KnownSettings,
        schedule: Schedule,
        *,
        account: str | None,
        try_refresh: bool,
        by: Author,
        services: Services | None = None,
    ) -> None:
        self._known = known
        self._schedule = schedule
        self._asked = account
        self._try_refresh = try_refresh
        self._by = by
        self._running = services
        self._started = time.monotonic()
        self._database = DatabaseCheck()
        self._probed: Account | None = None
        self._refresh = self._leads = probes.skipped("not tried")

    def look(self) -> None:
        """Look at the database."""
        if self._known.usable("DATABASE_URL"):
            self._database = self._check_database(self._schedule.database_until_s)

    def try_rdstation(self) -> None:
        """Try a refresh and a call, with what can be used; then look at the database once more."""
        reason = self._why_not()
        if reason is not None or self._probed is None:
            self._refresh = self._leads = probes.skipped(reason or "no account")
            return
        account = self._probed
        known_claims = [attempt.claim_no for attempt in self._database.attempts[account.account_id]]
        services = self._running or Services.start(self._known.settings, name="diagnosis", pool_size=3)
        try:
            self._refresh = self._tried_refresh(services, account)
            self._leads = self._tried_leads(services, account)
        finally:
            if self._running is None:
                self._let_exchanges_end(services)
        again = self._check_database(self._schedule.second_look_within_s)
        if again.facts is not None:
            self._database = again
        self._refresh = probes.with_outcome(
            self._refresh,
            self._database.attempts.get(account.account_id, []),
            claimed_by=services.refresher.claimed_by,
            after=max(known_claims, default=0),
        )

    def report(self) -> Report:
        """Put together what was found."""
        known, facts = self._known, self._facts()
        accounts = [] if facts.database is None else facts.database.accounts
        account_ids = [account.account_id for account in accounts] + ([self._asked] if self._asked else [])
        names = masking.account_names(account_ids)
        masked_ids = {account_id for account_id in account_ids if names[account_id] != account_id}
        redact = redactor(known_settings.secrets_in(known) | masked_ids)
        found = [masking.masked(finding, names, redact) for finding in find(facts)]
        content = {
            "generated_at": _time(datetime.now(UTC)),
            "versions": _versions(self._database),
            "settings": known_settings.masked(known),
            "database": _database_section(self._database),
            "accounts": [_account_section(account, names) for account in accounts],
            "accounts_total": self._database.accounts_total,
            "recent_attempts": self._recent_attempts(names),
            "worker": {
                "seconds_since_last_beat": None if facts.database is None else facts.database.worker_silent_s
            },
            "refresh_attempt": self._probe_section(self._refresh, names),
            "leads_call": self._probe_section(self._leads, names),
        }
        content = masking.redacted(content, redact)
        content["findings"] = [_finding_section(finding) for finding in found]
        return Report(content=content, findings=found)

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def _within(self, seconds: float, step: Callable[[], T]) -> T:
        """Return what `step` returns; raises TimeoutError, and leaves it running, when it takes longer."""
        return _begun(step).result(max(0.0, seconds))

    def _check_database(self, seconds: float) -> DatabaseCheck:
        first = self._asked or DEFAULT_ACCOUNT
        try:
            return self._within(seconds, lambda: database_check.check(self._known, first=first))
        except TimeoutError:
            return DatabaseCheck(error=f"no answer within {seconds:.0f} s")

    def _why_not(self) -> str | None:
        """Choose the account to try; return why RD Station is not tried, None when it is."""
        if not self._known.can_call:
            return "the settings for it cannot be used"
        if self._database.facts is None or self._database.error is not None:
            return "the database cannot be used"
        if self._database.pending:
            return "the database lacks migrations"
        accounts = {account.account_id: account for account in self._database.facts.accounts}
        if self._asked is not None:
            self._probed = accounts.get(self._asked)
            return None if self._probed else "there is no such account"
        if len(accounts) == 1:
            (self._probed,) = accounts.values()
        else:
            self._probed = accounts.get(DEFAULT_ACCOUNT)
        if self._probed is None:
            return (
                "there is no account"
                if not accounts
                else "there are several accounts: name one with --account"
            )
        return None

    def _tried_refresh(self, services: Services, account: Account) -> Probe:
        if not self._try_refresh:
            return probes.skipped("no refresh was asked for")
        return self._bounded(
            self._schedule.refresh_within_s, lambda: probes.refresh(services, account, by=self._by)
        )

    def _tried_leads(self, services: Services, account: Account) -> Probe:
        if self._elapsed_s() > self._schedule.begin_leads_until_s:
            return probes.skipped("no time was left for it")
        within_s = self._schedule.leads_until_s - self._elapsed_s()
        return self._bounded(within_s, lambda: probes.leads(services, account.account_id))

    def _bounded(self, seconds: float, probe: Callable[[], Probe]) -> Probe:
        try:
            return self._within(seconds, probe)
        except psycopg.Error as error:
            return Probe(result="database_unavailable", reason=database_check.describe(error))
        except TimeoutError:
            return Probe(result="failed", reason=f"no end within {seconds:.0f} s")

    def _let_exchanges_end(self, services: Services) -> None:
        """Wait for the exchanges under way, and for the database to take what they brought."""
        closing = _begun(services.close)
        if not self._ended(closing, self._schedule.exchanges_until_s):
            services.refresher.must_end.set()
            self._ended(closing, self._schedule.given_up_until_s)

    def _ended(self, closing: Future[None], until_s: float) -> bool:
        try:
            closing.result(max(0.0, until_s - self._elapsed_s()))
        except TimeoutError:
            return False
        return True

    def _facts(self) -> Facts:
        check, settings = self._database, self._known.settings
        return Facts(
            settings_problems=self._known.problems,
            database_error=check.error,
            database_reached=check.reached,
            pending_migrations=check.pending,
            database=check.facts,
            asked_account=self._asked,
            probed_account=None if self._probed is None else self._probed.account_id,
            api_url=settings.api_url,
            required_scope=settings.scope,
            refresh=self._refresh,
            leads=self._leads,
        )

    def _probe_section(self, probe: Probe, names: dict[str, str]) -> dict[str, Any]:
        account_id = None if self._probed is None else names[self._probed.account_id]
        return {"account_id": account_id, **asdict(probe)}

    def _recent_attempts(self, names: dict[str, str]) -> list[dict[str, Any]]:
        return [
            _attempt_section(attempt, names[account_id])
            for account_id, recent in self._database.attempts.items()
            for attempt in recent
        ]


def _begun(step: Callable[[], T]) -> Future[T]:
    """Return what `step` will return. Its thread keeps no process from ending, whatever hangs."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(step())
        except BaseException as error:  # noqa: BLE001 - it is raised again where the result is awaited
            future.set_exception(error)

    threading.Thread(target=run, name="diagnosis", daemon=True).start()
    return future


def _versions(check: DatabaseCheck) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "packages": _packages(),
        "postgresql": check.server_version,
    }


def _packages() -> dict[str, str | None]:
    """Return the installed version of each package that a deployment needs, None for a missing one."""
    text = (ROOT / "requirements.in").read_text(encoding="utf-8")
    found: dict[str, str | None] = {}
    for name in re.findall(r"^([A-Za-z0-9._-]+)", text, re.MULTILINE):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _database_section(check: DatabaseCheck) -> dict[str, Any]:
    return {
        "reachable": check.reached if check.reached or check.error else None,
        "error": check.error,
        "migrations": {"applied": list(check.applied), "pending": list(check.pending)},
        "tables": [{"name": name, "estimated_rows": rows} for name, rows in check.tables.items()],
    }


def _account_section(account: Account, names: dict[str, str]) -> dict[str, Any]:
    claims = account.claims
    return {
        "account_id": names[account.account_id],
        "status": account.status,
        "expires_at": _time(account.expires_at),
        "life_left_s": round(account.life_left_s),
        "refresh_after": _time(account.refresh_after),
        "retry_at": _time(account.retry_at),
        "failures": account.failures,
        "last_error": account.last_error,
        "access_token": asdict(account.access_token),
        "refresh_token": asdict(account.refresh_token),
        "access_token_claims": None
        if claims is None
        else {
            "aud": claims.aud,
            "scope": claims.scope,
            "exp": _time(claims.exp),
            "iat": _time(claims.iat),
        },
    }


def _attempt_section(attempt: Attempt, account: str) -> dict[str, Any]:
    return {
        "account_id": account,
        "started_at": _time(attempt.started_at),
        "reason": attempt.reason,
        "outcome": attempt.outcome,
        "http_status": attempt.http_status,
        "duration_ms": attempt.duration_ms,
        "error": attempt.error,
    }


def _finding_section(finding: Finding) -> dict[str, Any]:
    english, portuguese = finding.text("en"), finding.text("pt-BR")
    return {
        "code": finding.code,
        "severity": finding.severity,
        "account_id": finding.account_id,
        "follows_from": finding.follows_from,
        "who": finding.who,
        "action": finding.action,
        **{
            part: {"en": getattr(english, part), "pt-BR": getattr(portuguese, part)}
            for part in english._fields
        },
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")
