"""Simulates the actions of operators, programs and customers."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import psycopg
from psycopg_pool import PoolTimeout

from dev.simulation.database import SimulatedDatabase
from dev.simulation.faults import DAY, HOUR
from dev.simulation.invariants import Invariants
from dev.simulation.network import SimulatedRDStation
from dev.simulation.processes import WebProcess
from dev.simulation.scheduler import Scheduler
from rdservice import errors
from rdservice.access import operators
from rdservice.access.audit import Author
from rdservice.accounts import connect, upload
from rdservice.accounts.decide import Question
from rdservice.accounts.waiting_pairs import Owner
from rdservice.services import Services

# Mean days between two actions on one account, and their minimum number in any run.
HABITS: dict[str, tuple[float, int]] = {
    "revoked at RD Station": (120, 4),
    "row deleted": (200, 3),
    "authorized again": (100, 4),
    "pair uploaded": (100, 4),
    "unusable pair uploaded": (150, 3),
    "refresh pressed": (30, 10),
    "access token taken": (3, 60),
    "RD Station called": (10, 20),
}
SESSION = "session"
OPERATOR = Author(kind="operator", name="operator@example.com", origin="the simulation")
PROGRAM = Author(kind="key", name="uploads", origin="the simulation")
DELETE = "DELETE FROM rdstation_tokens WHERE account_id = %(account_id)s"
CONNECTED_WITHIN_S = 15 * HOUR
"""All accounts are connected at random times within this period, so that they are not due together."""


class People:
    """All people who act on accounts. `counts`: their actions by name."""

    def __init__(
        self,
        scheduler: Scheduler,
        database: SimulatedDatabase,
        station: SimulatedRDStation,
        invariants: Invariants,
        dice: random.Random,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.web: Callable[[], WebProcess] = _nobody
        self._scheduler = scheduler
        self._database = database
        self._station = station
        self._invariants = invariants
        self._dice = dice
        self._wanting: dict[str, None] = {}
        """Accounts waiting for an operator to connect them."""
        with database.transaction() as conn:
            operator = operators.create(conn, "operator@example.com", "no-hash")
        if operator is None:
            raise RuntimeError("the database is not empty")
        self._operator_id = operator.operator_id

    def begin(self, accounts: list[str], days: float) -> None:
        """Connect all accounts, and plan the other actions of `days` days."""
        self._invariants.on_final = self._told
        self._station.meddle = self._meddle
        for account in accounts:
            self._connect_within(account, CONNECTED_WITHIN_S)
        for habit, (every_days, at_least) in HABITS.items():
            times = max(at_least, round(len(accounts) * days / every_days))
            for _ in range(times):
                at_s = self._dice.uniform(CONNECTED_WITHIN_S, days * DAY)
                self._plan(habit, self._dice.choice(accounts), at_s)

    def _plan(self, habit: str, account: str, at_s: float) -> None:
        self._scheduler.at(at_s, lambda: self._do(habit, account))

    def _do(self, habit: str, account: str) -> None:
        self.counts[habit] += 1
        self._invariants.note(account, habit)
        actions: dict[str, Callable[[str], None]] = {
            "revoked at RD Station": self._station.revoke,
            "row deleted": self._delete,
            "authorized again": lambda account: self._connect_within(account, 1.0),
            "pair uploaded": self._upload,
            "unusable pair uploaded": self._upload_unusable,
            "refresh pressed": self._press,
            "access token taken": self._take,
            "RD Station called": self._call,
        }
        actions[habit](account)

    def _meddle(self, account: str) -> None:
        """Act on an account while one of its exchanges is in flight."""
        habits = [habit for habit in HABITS if habit != "access token taken"]
        self._do(self._dice.choice(habits), account)

    def _told(self, account: str) -> None:
        """Plan that an operator reconnects the account."""
        self._connect_within(account, self._dice.expovariate(1 / (6 * HOUR)))

    def _connect_within(self, account: str, seconds: float) -> None:
        self._wanting[account] = None
        self._scheduler.after(self._dice.uniform(0, seconds), lambda: self._try_to_connect(account))

    def _try_to_connect(self, account: str) -> None:
        if account not in self._wanting:
            return
        self._visit(lambda services: self._connect(services, account))
        self._scheduler.after(self._dice.uniform(300, 3600), lambda: self._try_to_connect(account))

    def _connect(self, services: Services, account: str) -> None:
        """Complete RD Station's dialog like a browser."""
        owner = Owner(operator_id=self._operator_id, session_id=SESSION)
        url = connect.begin(services, owner, account_id=account)
        self._scheduler.sleep(self._dice.uniform(2, 20))
        location = self._station.consent(account, dict(parse_qsl(urlsplit(url).query)))
        callback = dict(parse_qsl(urlsplit(location).query))
        decided = connect.complete(services, owner, callback=callback, by=OPERATOR)
        if isinstance(decided, Question):
            # RD Station did not tell the account's name: the operator comes back later.
            self.counts[f"asked whose tokens: {decided.kind}"] += 1
            return
        self._wanting.pop(account, None)
        self.counts["connected by an operator"] += 1

    def _delete(self, account: str) -> None:
        if not self._database.up:
            return
        with self._database.transaction() as conn:
            conn.execute(DELETE, {"account_id": account})
        self._connect_within(account, 5 * HOUR)

    def _upload(self, account: str) -> None:
        pair = self._station.pair_of_a_new_grant(account)
        self._send_pair(account, pair, verify=self._dice.random() < 0.7)

    def _upload_unusable(self, account: str) -> None:
        """A pair whose access token works and whose refresh token does not."""
        pair, revoked = self._station.pair_of_a_new_grant(account), self._station.pair_of_a_new_grant(account)
        self._station.revoke_grant(revoked)
        self._send_pair(account, pair | {"refresh_token": revoked["refresh_token"]}, verify=True)

    def _send_pair(self, account: str, pair: dict[str, Any], *, verify: bool) -> None:
        body = {"account_id": account, "verify": verify} | {
            name: pair[name] for name in ("access_token", "refresh_token", "expires_in")
        }
        self._visit(lambda services: upload.upload(services, upload.parse_upload(body), by=PROGRAM))

    def _press(self, account: str) -> None:
        self._invariants.pressed(account)
        self._visit(lambda services: services.access_tokens.refresh_now(account, by=OPERATOR))

    def _take(self, account: str) -> None:
        def take(services: Services) -> None:
            token = services.access_tokens.usable(account)
            self._invariants.served(account, token.access_token)

        self._visit(take)

    def _call(self, account: str) -> None:
        self._visit(lambda services: services.account_calls.send(account, services.rdstation.account_info))

    def _visit(self, action: Callable[[Services], object]) -> None:
        """Send a request to a web process; count refusals by their code."""
        web = self.web()

        def response() -> None:
            try:
                action(web.services)
            except errors.RdServiceError as error:
                self.counts[f"answered {error.code}"] += 1
            except (psycopg.Error, PoolTimeout):
                self.counts["answered database_unavailable"] += 1

        web.start(response)


def _nobody() -> WebProcess:
    raise RuntimeError("no web process runs yet")
