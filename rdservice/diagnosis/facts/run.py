"""One run of the diagnosis, step by step. Every step has a deadline: the database, RD Station or the name server may
hang."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TypeVar

import psycopg

from rdservice.access.audit import Author
from rdservice.config.problems import Problem
from rdservice.diagnosis.facts import database_check, network, probes
from rdservice.diagnosis.facts.database_check import DatabaseCheck
from rdservice.diagnosis.facts.known_settings import KnownSettings
from rdservice.diagnosis.facts.types import Account, Clocks, Facts, Network, Probe
from rdservice.notifications import targets
from rdservice.rdstation.client import RDStation
from rdservice.services import Services
from rdservice.tokens.store import DEFAULT_ACCOUNT

T = TypeVar("T")

OFFLINE = "offline: RD Station is not asked"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Deadlines (`…_until_s`, seconds from the start of the run) and timeouts (`…_within_s`, seconds).

    A token exchange takes up to 21 s and must not be aborted: its response may hold the only valid refresh token. So
    nothing that could start an exchange starts late.
    """

    database_until_s: float
    refresh_within_s: float
    begin_leads_until_s: float
    leads_until_s: float
    connectivity_until_s: float
    """For connectivity, consent dialog and receivers' URLs, which are checked in parallel to the rest."""
    exchanges_until_s: float
    given_up_until_s: float
    second_look_within_s: float


OF_A_COMMAND = Schedule(
    database_until_s=12.0,
    refresh_within_s=20.0,
    begin_leads_until_s=20.0,
    leads_until_s=45.0,
    connectivity_until_s=17.0,
    exchanges_until_s=50.0,
    given_up_until_s=54.0,
    second_look_within_s=5.0,
)
# Heroku's router aborts a request after 30 s. Exchanges that take longer continue in the process.
OF_A_REQUEST = Schedule(
    database_until_s=6.0,
    refresh_within_s=12.0,
    begin_leads_until_s=15.0,
    leads_until_s=22.0,
    connectivity_until_s=17.0,
    exchanges_until_s=0.0,
    given_up_until_s=0.0,
    second_look_within_s=3.0,
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a run: the account to probe, whether to refresh its tokens, whether to leave RD Station alone.

    `by` is the author of the refresh.
    """

    account: str | None
    try_refresh: bool
    offline: bool
    by: Author


@dataclass(frozen=True, kw_only=True)
class Collected:
    """All facts of a run."""

    facts: Facts
    database: DatabaseCheck


def run(
    known: KnownSettings, schedule: Schedule, options: Options, services: Services | None = None
) -> Collected:
    """Collect all facts and probe RD Station.

    `services`: those of a running process, which stay open; without them the run starts and closes its own.
    """
    return _Run(known, schedule, options, services).collected()


class _Run:
    """The state of a run."""

    def __init__(
        self, known: KnownSettings, schedule: Schedule, options: Options, services: Services | None
    ) -> None:
        self._known = known
        self._schedule = schedule
        self._options = options
        self._running = services
        self._started = time.monotonic()
        self._database = DatabaseCheck()
        self._probed: Account | None = None
        self._refresh = self._leads = probes.skipped("not tried")

    def collected(self) -> Collected:
        connectivity, dialog, receivers = (
            self._begin_connectivity(),
            self._begin_dialog(),
            self._begin_receivers(),
        )
        if self._known.usable("DATABASE_URL"):
            self._database = self._check_database(self._schedule.database_until_s)
        self._try_rdstation()
        facts = self._facts(
            self._end_of_connectivity(connectivity),
            self._end_of_dialog(dialog),
            self._end_of_receivers(receivers),
        )
        return Collected(facts=facts, database=self._database)

    def _begin_connectivity(self) -> Future[Network] | None:
        if self._options.offline or not self._known.usable("RDSTATION_API_URL"):
            return None
        return begun(lambda: network.measure(self._known.settings.api_url))

    def _end_of_connectivity(self, connectivity: Future[Network] | None) -> Network | None:
        if connectivity is None:
            return None
        try:
            return connectivity.result(self._left_s(self._schedule.connectivity_until_s))
        except TimeoutError:
            # Only name resolution has no timeout of its own.
            at = network.destination(self._known.settings.api_url)
            return replace(at, failed_at="dns", error="no response from the name server")

    def _begin_dialog(self) -> Future[Probe] | None:
        needed = ("RDSTATION_API_URL", "RDSTATION_CLIENT_ID", "RDSTATION_REDIRECT_URI", "RDSTATION_SCOPE")
        if self._options.offline or not self._known.usable(*needed):
            return None
        # A separate client: the dialog is a page for browsers, which metrics do not count.
        return begun(lambda: probes.dialog(RDStation(self._known.settings)))

    def _end_of_dialog(self, dialog: Future[Probe] | None) -> Probe:
        if dialog is None:
            return probes.skipped(OFFLINE if self._options.offline else "the settings for it cannot be used")
        try:
            return dialog.result(self._left_s(self._schedule.connectivity_until_s))
        except TimeoutError:
            return Probe(result="failed", error="timeout")

    def _begin_receivers(self) -> Future[tuple[Problem, ...]]:
        return begun(lambda: targets.unusable(self._known.settings.notify_urls))

    def _end_of_receivers(self, receivers: Future[tuple[Problem, ...]]) -> tuple[Problem, ...]:
        try:
            return receivers.result(self._left_s(self._schedule.connectivity_until_s))
        except TimeoutError:
            return ()

    def _try_rdstation(self) -> None:
        """Probe a refresh and a call if possible, then read the database again."""
        reason = self._why_not()
        if reason is not None or self._probed is None:
            self._refresh = self._leads = probes.skipped(reason or "no account")
            return
        account = self._probed
        known_leases = [attempt.claim_no for attempt in self._database.attempts.get(account.account_id, [])]
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
            after=max(known_leases, default=0),
        )

    def _why_not(self) -> str | None:
        """Choose the account to probe; return the reason for not probing RD Station, None when it is probed."""
        if self._options.offline:
            return OFFLINE
        if not self._known.can_call:
            return "the settings for it cannot be used"
        if self._database.facts is None or self._database.error is not None:
            return "the database cannot be used"
        if self._database.pending:
            return "the database lacks migrations"
        if self._database.read_only:
            return "the database takes no writes"
        accounts = {account.account_id: account for account in self._database.facts.accounts}
        if self._options.account is not None:
            self._probed = accounts.get(self._options.account)
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
        if not self._options.try_refresh:
            return probes.skipped("no refresh was asked for")
        return self._bounded(
            self._schedule.refresh_within_s, lambda: probes.refresh(services, account, by=self._options.by)
        )

    def _tried_leads(self, services: Services, account: Account) -> Probe:
        if self._left_s(self._schedule.begin_leads_until_s) <= 0:
            return probes.skipped("no time was left for it")
        within_s = self._left_s(self._schedule.leads_until_s)
        return self._bounded(within_s, lambda: probes.leads(services, account.account_id))

    def _bounded(self, seconds: float, probe: Callable[[], Probe]) -> Probe:
        try:
            return begun(probe).result(seconds)
        except psycopg.Error as error:
            return Probe(result="database_unavailable", reason=database_check.describe(error))
        except TimeoutError:
            return Probe(result="failed", reason=f"no end within {seconds:.0f} s")

    def _check_database(self, seconds: float) -> DatabaseCheck:
        first = self._options.account or DEFAULT_ACCOUNT
        check = begun(lambda: database_check.check(self._known, first=first, within_s=seconds))
        try:
            # The check has a timeout, except for name resolution.
            return check.result(seconds + 1.0)
        except TimeoutError:
            return DatabaseCheck(error=f"no response within {seconds:.0f} s")

    def _let_exchanges_end(self, services: Services) -> None:
        """Wait for token exchanges in progress, and until the database has stored their tokens."""
        closing = begun(services.close)
        if not self._ended(closing, self._schedule.exchanges_until_s):
            services.refresher.must_end.set()
            self._ended(closing, self._schedule.given_up_until_s)

    def _ended(self, closing: Future[None], until_s: float) -> bool:
        try:
            closing.result(self._left_s(until_s))
        except TimeoutError:
            return False
        return True

    def _left_s(self, until_s: float) -> float:
        return max(0.0, until_s - (time.monotonic() - self._started))

    def _facts(self, connectivity: Network | None, dialog: Probe, receivers: tuple[Problem, ...]) -> Facts:
        check, settings = self._database, self._known.settings
        measured = (probe.rdstation_clock_ahead_s for probe in (dialog, self._leads))
        return Facts(
            settings_problems=self._known.problems + receivers,
            client_mixed_up=self._known.client_mixed_up,
            database_error=check.error,
            database_reached=check.reached,
            database_read_only=check.read_only,
            pending_migrations=check.pending,
            database=check.facts,
            asked_account=self._options.account,
            probed_account=None if self._probed is None else self._probed.account_id,
            api_url=settings.api_url,
            required_scope=settings.scope,
            redirect_uri=settings.redirect_uri,
            network=connectivity,
            clocks=Clocks(
                rdstation_s=next((ahead for ahead in measured if ahead is not None), None),
                database_s=check.clock_ahead_s,
            ),
            dialog=dialog,
            refresh=self._refresh,
            leads=self._leads,
        )


def begun(step: Callable[[], T]) -> Future[T]:
    """Run `step` in a daemon thread and return its future. If it hangs, it does not keep the process from ending."""
    future: Future[T] = Future()

    def run_step() -> None:
        try:
            future.set_result(step())
        except BaseException as error:  # noqa: BLE001 - `Future.result` raises it
            future.set_exception(error)

    threading.Thread(target=run_step, name="diagnosis", daemon=True).start()
    return future
