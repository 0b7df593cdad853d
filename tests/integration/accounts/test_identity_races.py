"""Callbacks, decisions, double clicks, uploads, refreshes and removals at once, while names are unreadable at times."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from rdservice.access import operators
from rdservice.accounts import connect as authorization
from rdservice.accounts import decide
from rdservice.accounts import upload as uploads
from rdservice.accounts.decide import Question
from rdservice.accounts.waiting_pairs import Owner
from rdservice.config.settings import Settings
from rdservice.errors import RdServiceError
from rdservice.services import Services
from rdservice.tokens import jwt_claims
from rdservice.worker.names import NameReader
from tests.support.accounts import BY, lease_due
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
ACCOUNTS = ("one", "two")
RD_ACCOUNTS = ("default", "account-2", "account-3")
RUNS_S = 8.0

LOG = """
CREATE TABLE stored_tokens (
    number bigserial, transaction bigint, account_id text, connection_id uuid, before text, after text);
CREATE FUNCTION log_stored_tokens() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO stored_tokens (transaction, account_id, connection_id, before, after)
    VALUES (txid_current(), COALESCE(NEW.account_id, OLD.account_id), COALESCE(OLD.connection_id, NEW.connection_id),
            OLD.access_token, NEW.access_token);
    IF OLD.connection_id <> NEW.connection_id THEN RAISE EXCEPTION 'an update changed the connection'; END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER log_stored_tokens AFTER INSERT OR DELETE OR UPDATE ON rdstation_tokens
    FOR EACH ROW EXECUTE FUNCTION log_stored_tokens();
"""
DROP_LOG = """
DROP TRIGGER log_stored_tokens ON rdstation_tokens;
DROP FUNCTION log_stored_tokens();
DROP TABLE stored_tokens
"""


@pytest.fixture
def log(conn: Conn) -> Iterator[Callable[[], list[Any]]]:
    """Return everything that was stored, in order: transaction, account, connection, token before and after."""
    conn.execute(LOG)
    yield lambda: conn.execute(
        "SELECT transaction, account_id, connection_id, before, after FROM stored_tokens ORDER BY number"
    ).fetchall()
    conn.execute(DROP_LOG)


class Actors:
    """People, programs and a worker, who act at random."""

    def __init__(self, services: Services, sandbox: SandboxProcess, owner: Owner, database_url: str) -> None:
        self._services = services
        self._sandbox = sandbox
        self._owner = owner
        self._database_url = database_url
        self.counts: Counter[str] = Counter()
        self.confirmed: set[UUID] = set()

    def run(self, seed: int, ends_at: float) -> None:
        dice = random.Random(seed)  # noqa: S311 - no secret
        with psycopg.connect(self._database_url, autocommit=True) as conn:
            while time.monotonic() < ends_at:
                act = dice.choices(
                    [self._connect, self._upload, self._work, self._delete], weights=[8, 3, 2, 1]
                )[0]
                try:
                    act(dice, conn)
                except RdServiceError as error:
                    self.counts[error.code] += 1

    def _connect(self, dice: random.Random, _: Conn) -> None:
        url = authorization.begin(self._services, self._owner, account_id=dice.choice(ACCOUNTS))
        callback = {
            "state": url.rpartition("state=")[2],
            "code": self._sandbox.code(dice.choice(RD_ACCOUNTS)),
        }
        decided = authorization.complete(self._services, self._owner, callback=callback, by=BY)
        for _again in range(3):
            if not isinstance(decided, Question):
                break
            self.counts[decided.kind] += 1
            threading.Event().wait(dice.random() * 0.02)
            if decided.kind == "another" and dice.random() < 0.5:
                decided = self._confirm(decided, twice=dice.random() < 0.5)
            else:
                decided = decide.decide(self._services, self._owner, decided.pair_id, by=BY)
        self.counts[type(decided).__name__] += 1

    def _confirm(self, question: Question, *, twice: bool) -> decide.Connected | Question:
        shown = UUID(question.connection_id)
        self.confirmed.add(shown)

        def press() -> decide.Connected | Question:
            return decide.decide(self._services, self._owner, question.pair_id, by=BY, confirmed=shown)

        if twice:
            other = threading.Thread(target=press)
            other.start()
            try:
                return press()
            finally:
                other.join()
        return press()

    def _upload(self, dice: random.Random, _: Conn) -> None:
        body = self._sandbox.pair(dice.choice(RD_ACCOUNTS)) | {"account_id": dice.choice(ACCOUNTS)}
        uploads.upload(self._services, uploads.parse_upload(body), by=BY)
        self.counts["uploaded"] += 1

    def _work(self, _dice: random.Random, _conn: Conn) -> None:
        for lease in lease_due(self._services, slots=1):
            self.counts[self._services.refresher.refresh(lease)] += 1
        NameReader(self._services.refresher).read_next()

    def _delete(self, dice: random.Random, conn: Conn) -> None:
        conn.execute("DELETE FROM rdstation_tokens WHERE account_id = %s", [dice.choice(ACCOUNTS)])
        self.counts["deleted"] += 1


def test_another_account_is_never_stored_without_a_confirmation_of_the_connection_that_was_shown(
    make_services: Callable[[Settings], Services],
    sandbox_settings: Settings,
    sandbox: SandboxProcess,
    conn: Conn,
    database_url: str,
    log: Callable[[], list[Any]],
) -> None:
    created = operators.create(conn, "ana@example.com", "no hash: nobody logs in here")
    assert created is not None
    owner = Owner(operator_id=created.operator_id, session_id="5e" * 32)
    unreadable = {"operation": "account_info", "kind": "status", "status": 503, "rate": 0.2}
    sandbox.patch(rate_limit=None, faults=[unreadable], rotate_refresh_tokens=True)
    services = [make_services(sandbox_settings) for _ in range(2)]
    actors = [Actors(services[number % 2], sandbox, owner, database_url) for number in range(5)]
    ends_at = time.monotonic() + RUNS_S
    threads = [threading.Thread(target=one.run, args=(seed, ends_at)) for seed, one in enumerate(actors)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def whose(account_id: str, encrypted: str) -> str:
        token = services[0].keys.decrypt("access_token", account_id, encrypted)
        return str(jwt_claims.read(token).subject)

    confirmed = set().union(*(one.confirmed for one in actors))
    counts = sum((one.counts for one in actors), Counter[str]())
    removed: dict[tuple[int, str], UUID] = {}
    stored: Counter[str] = Counter()
    for transaction, account_id, connection_id, before, after in log():
        if after is None:
            removed[transaction, account_id] = connection_id
        elif before is None:
            replaced = removed.get((transaction, account_id))
            assert replaced is None or replaced in confirmed
            stored["first" if replaced is None else "replaced"] += 1
        else:
            assert whose(account_id, before) == whose(account_id, after), (account_id, counts)
            stored["same"] += before != after
    assert min(stored["first"], stored["replaced"], stored["same"]) > 0, (stored, counts)
    assert min(counts["another"], counts["unknown"], counts["another_account"]) > 0, counts
    # Sandbox's account: all its tokens have this subject, so the subjects above tell the accounts apart.
    subjects = {jwt_claims.read(sandbox.pair(name)["access_token"]).subject for name in RD_ACCOUNTS}
    assert len(subjects) == len(RD_ACCOUNTS)
