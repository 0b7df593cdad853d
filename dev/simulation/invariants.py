"""Invariants that must hold at all times, judged by RD Station's ledger and not by the service's own state."""

import heapq
import json
import math
import zlib
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from typing import Any, Protocol
from uuid import UUID

import psycopg

from dev.simulation.database import START, SimulatedDatabase
from dev.simulation.faults import HOUR
from dev.simulation.ledger import Exchange, Ledger, RefreshToken
from dev.simulation.records import KEPT, ROWS, Counts, Row, Rule, Violation
from dev.simulation.scheduler import Event, Scheduler
from rdservice.encryption import KeyRing

REMEMBERED = 40
"""Events of an account that a violation shows."""
MOST_ATTEMPTS_AN_HOUR = 40
"""Full jitter under 10 minutes makes about 15 attempts per hour of an outage; 40 do not happen by chance."""
MOST_REFUSALS = 20
"""Of one refresh token: three over ten minutes where an earlier outcome is unknown, the same again after an upload that
was refused, those that were under way, and about ten second looks."""
EARLY_LOOK_S = 600.0
"""How much too early a second look may be: the database's clock may have been set back since."""
NOTICED_WITHIN_S = 120.0
PRESSED_WITHIN_S = 120.0
"""Maximum age of a person's request that permits an exchange of a permanently refused token."""
LOOK_S = 60.0
LOOKS = 60
"""Steps of a worker's loop in LOOK_S that need no reason: one every two seconds, short ones before something is due."""
LOOKS_OF_AN_EXCHANGE = 6

GATES = """
SELECT fingerprint, EXTRACT(epoch FROM probe_after)::float8
  FROM rdstation_client_credentials WHERE refused_since IS NOT NULL
"""
# The attempt being refused has no outcome yet either.
IN_DOUBT = """
SELECT count(*) FILTER (WHERE a.outcome IS NULL) > 1 OR bool_or(a.answer_unknown)
  FROM rdstation_refresh_attempts a JOIN rdstation_tokens t USING (account_id, authorization_id)
 WHERE account_id = %(account)s AND a.claim_no > t.stored_claim
"""


class Dues(Protocol):
    """Receives changes of the time at which something may become due."""

    def reschedule(self) -> None: ...


class Invariants:
    """Checks every commit and every exchange. The first violation ends the run."""

    def __init__(
        self, scheduler: Scheduler, database: SimulatedDatabase, ledger: Ledger, keys: KeyRing
    ) -> None:
        self.counts = Counts()
        self.losses: Counter[str] = Counter()
        self.on_final: Callable[[str], None] = lambda _account: None
        self.dues: Dues | None = None
        self.rows: dict[str, Row] = {}
        self.clock_steps: list[float] = []
        """When the database's clock was set forward."""
        self.secret_refused_at: Callable[[], float] = lambda: -math.inf
        self._scheduler = scheduler
        self._database = database
        self._ledger = ledger
        self._keys = keys
        self._trails: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=REMEMBERED))
        self._attempts: defaultdict[str, deque[float]] = defaultdict(deque)
        self._expiries: dict[str, Event] = {}
        self._told: dict[str, tuple[UUID, int]] = {}
        self._pressed: dict[str, float] = {}
        self._due: list[tuple[float, str]] = []
        self._second_looks: list[tuple[float, str]] = []
        self._gates: dict[str, float] = {}
        self._looks: dict[str, tuple[float, int]] = {}
        self._lately: deque[float] = deque()
        self.digest = 0
        """A digest of all recorded events; two runs of the same seed have the same digest."""

    def note(self, account: str, what: str) -> None:
        """Remember an event for the trail of a violation."""
        line = f"{_moment(self._scheduler.now)}  {what}"
        self._trails[account].append(line)
        self.digest = zlib.crc32(f"{account} {line}".encode(), self.digest)

    # The rows

    def committed(self, conn: psycopg.Connection[Any], changed: list[str], *, gate: bool) -> None:
        """Check the rows of the accounts in `changed` after a commit."""
        if gate:
            self._look_at_gates(conn)
        if changed:
            found = {row[0]: row for row in conn.execute(ROWS, {"accounts": changed}).fetchall()}
            for account in changed:
                self._row_changed(account, self._row(found[account]) if account in found else None)
            for account, refresh_token in conn.execute(KEPT, {"accounts": changed}).fetchall():
                self._check_kept(account, self._keys.decrypt("refresh_token", account, refresh_token))
        if self.dues is not None:
            self.dues.reschedule()

    def _row(self, values: tuple[Any, ...]) -> Row:
        account, access, refresh, *rest = values
        access_text = self._keys.decrypt("access_token", account, access)
        refresh_text = self._keys.decrypt("refresh_token", account, refresh)
        return Row(
            self._ledger.access_tokens.get(access_text),
            refresh_text,
            self._ledger.refresh_tokens.get(refresh_text),
            *rest,
        )

    def _row_changed(self, account: str, row: Row | None) -> None:
        before = self.rows.get(account)
        if row is None:
            self.rows.pop(account, None)
            self.note(account, "row deleted")
            return
        self.rows[account] = row
        if not row.final:
            heapq.heappush(self._due, (row.due_at, account))
        elif row.look_due_at is not None:
            heapq.heappush(self._second_looks, (row.look_due_at, account))
        if before is None or row[3:7] != before[3:7]:
            self.note(account, f"row: {row.status}, {row.last_error or 'no error'}, lease {row.stored_claim}")
        if before is not None:
            self._check_order(account, before, row)
            if before.authorization != row.authorization:
                self._told.pop(account, None)
        if before is None or row.access is not before.access:
            self._watch_expiry(account, row)
        if row.final and (before is None or not before.final):
            self._check_end(account, row)
        if (
            before is not None
            and before.final
            and not row.final
            and row.authorization == before.authorization
        ):
            self.counts.false_refusals_lifted += 1

    def _check_kept(self, account: str, refresh_token: str) -> None:
        """The pair that an upload put aside is as new as any: it may be needed again."""
        token = self._ledger.refresh_tokens.get(refresh_token)
        if token is None or token.used_up_by is None or not token.used_up_by.settled:
            return
        if token.grant.revoked_at is None and self._named_loss(token) is None:
            self.violation("loss", "a used refresh token is in the kept pair", account)

    def _check_order(self, account: str, before: Row, row: Row) -> None:
        """An older response never replaces a newer pair, nor the pair of another authorization."""
        if row.access is before.access:
            return
        if row.authorization != before.authorization:
            return
        self.counts.renewals += 1
        if row.access is None or before.access is None:
            return
        if row.access.grant is not before.access.grant:
            self.violation("order", "a response of another authorization replaced the stored pair", account)
        if row.access.number < before.access.number:
            self.violation("order", "an older response replaced a newer pair", account)
        if row.stored_claim < before.stored_claim:
            self.violation("order", "the response of an earlier lease replaced that of a later one", account)

    def _watch_expiry(self, account: str, row: Row) -> None:
        if account in self._expiries:
            self._expiries.pop(account).cancel()
        self._check_validity(account)
        if row.access is not None and row.access.ends_at > self._scheduler.now:
            self._expiries[account] = self._scheduler.at(
                row.access.ends_at, lambda: self._check_validity(account)
            )

    def _check_validity(self, account: str) -> None:
        """Every account has a valid access token, unless the service had no way to get one."""
        row = self.rows.get(account)
        if row is None or (row.access is not None and row.access.valid(self._scheduler.now)):
            return
        if row.refresh is not None and row.refresh.grant.revoked_at is not None:
            return
        if row.refresh is not None and row.refresh.used_up_by is not None and self._named_loss(row.refresh):
            return
        self.violation("lapse", "no valid access token is stored, and the consent stands", account)

    def _check_end(self, account: str, row: Row) -> None:
        """A valid authorization is never declared dead; a dead one gets the right error; operators are told once."""
        if row.refresh is None:
            return
        if self._told.get(account) == (row.authorization, row.stored_claim):
            self.violation("notice", "operators were told twice of one end", account)
        self._told[account] = (row.authorization, row.stored_claim)
        if row.refresh.grant.revoked_at is not None:
            self.counts.revocations_noticed += 1
            self.note(account, "the revocation was noticed")
        elif row.refresh.alive and row.refresh.falsely_refused:
            # Nobody is told: a second look has to lift it before the access token expires.
            self.counts.false_refusals_believed += 1
            self.note(account, "a false refusal was believed")
            return
        elif row.refresh.alive:
            self.violation("end", "an account whose refresh token works was declared dead", account)
        else:
            name = self._named_loss(row.refresh)
            if name is None:
                self.violation(
                    "loss", "a rotated refresh token was lost although a client can keep it", account
                )
                return
            if row.last_error != "answer_lost":
                self.violation("loss", f"a lost response is recorded as {row.last_error}", account)
            if name == "held":
                self.counts.held_by_a_stopped_process += 1
            else:
                self.losses[name] += 1
            self.note(account, f"lost: {name}")
        self.on_final(account)

    def _named_loss(self, refresh: RefreshToken) -> str | None:
        """Return why the response that consumed a refresh token was lost; None when the loss was avoidable."""
        exchange = refresh.used_up_by
        if exchange is None:
            return None
        if exchange.loss is not None:
            return exchange.loss
        if exchange.process.dead and not exchange.settled:
            return f"process {exchange.process.end} between the effect and the store"
        if exchange.process.paused or exchange.ended_at is None:
            return "held"
        return None

    # The exchanges

    def exchange_begins(self, exchange: Exchange, others: list[Exchange]) -> None:
        account, now = exchange.account, self._scheduler.now
        self.note(account, f"{exchange.process.name} sends an exchange")
        self._lately.append(now)
        tried = self._attempts[account]
        tried.append(now)
        while tried[0] < now - HOUR:
            tried.popleft()
        if len(tried) > MOST_ATTEMPTS_AN_HOUR:
            self.violation("spin", f"{len(tried)} attempts within an hour", account)
        self._check_not_dead(exchange)
        for other in others:
            if exchange.process.paused_since(exchange.claimed_at) or other.process.paused_since(
                other.claimed_at
            ):
                self.counts.double_across_pause += 1
            elif any(other.claimed_at - 10 <= step <= now for step in self.clock_steps):
                self.counts.double_across_clock_step += 1
            else:
                self.violation(
                    "double",
                    f"{other.process.name} and {exchange.process.name} exchange one refresh token at once",
                    account,
                )

    def _check_not_dead(self, exchange: Exchange) -> None:
        """A refused token is tried again for a person, by a due second look, or by a process that was paused."""
        row, account = self.rows.get(exchange.account), exchange.account
        if row is None or not row.final or row.refresh_text != exchange.refresh_token:
            return
        if row.look_at is not None and row.look_at - EARLY_LOOK_S <= self._database.now:
            return
        pressed = self._pressed.get(account, -math.inf) >= self._scheduler.now - PRESSED_WITHIN_S
        if not pressed and not exchange.process.paused_since(exchange.claimed_at):
            self.violation("spin", "a permanently refused refresh token is tried again", account)

    def answer_arrives(self, exchange: Exchange, status: int, body: bytes) -> None:
        self.note(exchange.account, f"{exchange.process.name} gets HTTP {status}")
        if status != 401 or not _says_invalid(body):
            return
        row = self.rows.get(exchange.account)
        if row is None or row.refresh_text != exchange.refresh_token:
            # The row has another authorization by now, so the refusal is irrelevant.
            return
        token = self._ledger.refresh_tokens[exchange.refresh_token]
        token.refusals += 1
        if token.refusals - token.forgiven > MOST_REFUSALS:
            self.violation("spin", "a refused refresh token is tried again and again", exchange.account)
        ((in_doubt,),) = self._database.query(IN_DOUBT, {"account": exchange.account})
        self._scheduler.after(
            NOTICED_WITHIN_S, lambda: self._check_noticed(exchange, in_doubt=bool(in_doubt))
        )

    def _check_noticed(self, exchange: Exchange, *, in_doubt: bool) -> None:
        """A refusal is final at once, unless an earlier outcome is unknown."""
        account = exchange.account
        row = self.rows.get(account)
        if row is None or row.final or row.refresh_text != exchange.refresh_token:
            return
        if exchange.process.dead or exchange.process.paused_since(exchange.sent_at):
            self._ledger.refresh_tokens[exchange.refresh_token].forgiven += 1
            return
        if not self._database.up:
            self._scheduler.after(NOTICED_WITHIN_S, lambda: self._check_noticed(exchange, in_doubt=in_doubt))
            return
        if row.last_error == "answer_lost" and in_doubt:
            return
        self.violation("notice", "a refusal was not taken for one", account)

    def pressed(self, account: str) -> None:
        """A person requested a refresh, which permits one more refusal."""
        self._pressed[account] = self._scheduler.now
        row = self.rows.get(account)
        if row is not None and row.refresh is not None:
            row.refresh.forgiven += 1

    def served(self, account: str, access_token: str) -> None:
        """An access token that a caller received must work."""
        self.counts.served += 1
        token = self._ledger.access_tokens.get(access_token)
        if token is not None and (token.valid(self._scheduler.now) or token.grant.revoked_at is not None):
            return
        self.violation("served", "a caller was given an access token that RD Station refuses", account)

    # The loop

    def looked(self, worker: str) -> None:
        """Record a step of a worker's loop."""
        now = self._scheduler.now
        began, looks = self._looks.get(worker, (now, 0))
        if now - began >= LOOK_S:
            began, looks = now, 0
            while self._lately and self._lately[0] < now - 3 * LOOK_S:
                self._lately.popleft()
        self._looks[worker] = (began, looks + 1)
        if looks + 1 > LOOKS + LOOKS_OF_AN_EXCHANGE * len(self._lately):
            self.violation("spin", f"{worker} made {looks + 1} steps in {now - began:.1f} s", "")

    def next_due(self, fingerprint: str) -> float | None:
        """Return the virtual time at which something may become due for these credentials; None: never."""
        due_at = self._first(self._due, lambda row: None if row.final else row.due_at)
        looks = [] if due_at is None else [max(due_at, self._gates.get(fingerprint, due_at))]
        if fingerprint not in self._gates:
            look_at = self._first(self._second_looks, lambda row: row.look_due_at if row.final else None)
            looks += [] if look_at is None else [look_at]
        return min(looks) - START - self._database.offset_s if looks else None

    def _first(self, waiting: list[tuple[float, str]], due_at: Callable[[Row], float | None]) -> float | None:
        """Return the first time in the heap that still holds, and drop those before it that do not."""
        while waiting:
            at, account = waiting[0]
            row = self.rows.get(account)
            if row is not None and due_at(row) == at:
                return at
            heapq.heappop(waiting)
        return None

    def _look_at_gates(self, conn: psycopg.Connection[Any]) -> None:
        gates = dict(conn.execute(GATES).fetchall())
        for fingerprint in gates.keys() - self._gates.keys():
            self.note("", f"the gate of the credentials {fingerprint} closed")
            if self.secret_refused_at() < self._scheduler.now - HOUR:
                self.violation("end", "credentials that work were declared wrong", "")
        self._gates = gates

    def violation(self, rule: Rule, what: str, account: str) -> None:
        """End the run."""
        trail = sorted([*self._trails[account], *(self._trails[""] if account else [])])
        self._scheduler.fail(
            Violation(rule, what, account=account, at=self._scheduler.now, trail=trail[-REMEMBERED:])
        )


def _says_invalid(body: bytes) -> bool:
    """Return whether a complete response says that the refresh token is invalid."""
    try:
        json.loads(body)
    except ValueError:
        return False
    return b"INVALID_REFRESH_TOKEN" in body


def _moment(seconds: float) -> str:
    days, rest = divmod(seconds, 86_400)
    return f"day {days:3.0f} {rest // 3600:02.0f}:{rest // 60 % 60:02.0f}:{rest % 60:06.3f}"
