"""Stores a parked pair, or returns the question that a person must answer first.

An account's connection changes here only: another RD Station account replaces it after somebody has confirmed exactly
that connection, and then the old one is disconnected with all that belongs to it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from uuid import UUID

import psycopg

from rdservice import errors, notices
from rdservice.access import audit
from rdservice.access.audit import Author
from rdservice.accounts import disconnect, identity, waiting_pairs
from rdservice.accounts.disconnect import Removal
from rdservice.accounts.identity import Asked, Judgement, Verdict
from rdservice.accounts.waiting_pairs import Owner, WaitingPair
from rdservice.database.pool import transaction, write_for_sure
from rdservice.encryption import KeyMissing, ValueDamaged
from rdservice.notices import Notice
from rdservice.services import Services
from rdservice.text.catalogue import message
from rdservice.tokens import jwt_claims, store

STORE_TIMEOUT_S = 10.0
"""How long storing is retried while the database is down."""


@dataclass(frozen=True, kw_only=True)
class Connected:
    """A completed authorization. `name`: the name of the RD Station account, None when it could not be read."""

    account_id: str
    name: str | None = field(repr=False)
    warnings: list[Notice]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What must be decided before the pair is stored.

    `another`: the pair is of the RD Station account `name`, and the account was connected to `was`. `unknown`: RD
    Station does not tell whose the pair is. `connection_id`: the connection to which the question refers.
    """

    pair_id: str
    account_id: str
    kind: Literal["another", "unknown"]
    name: str | None = field(repr=False)
    was: str | None = field(repr=False)
    connection_id: str


def decide(
    services: Services,
    owner: Owner,
    pair_id: str,
    *,
    by: Author,
    account_id: str | None = None,
    confirmed: UUID | None = None,
) -> Connected | Question:
    """Ask RD Station whose the parked pair is, and store it unless a person must decide.

    `account_id`: another account than the one for which the pair was parked. `confirmed`: the connection that the owner
    has decided to replace; any other is asked about again. A pair that was stored already returns the same result.
    Raises NotFound when nothing is parked under this id, TokenUnreadable, or the database's errors.
    """
    pair = waiting(services, owner, pair_id)
    if pair.access_token is None:
        return _result(pair)
    target = account_id or pair.account_id
    asked = identity.ask(services, target, pair.access_token)
    removals: list[Removal] = []

    def put(conn: psycopg.Connection[Any]) -> Connected | Question:
        removals.clear()
        store.lock_account(conn, target)
        judgement = identity.judge_locked(conn, target, asked, confirmed=confirmed)
        now = waiting_pairs.read(conn, services.keys, owner, pair_id, lock=True)
        if now is None:
            raise _nothing_waits()
        if now.access_token is None:
            return _result(now)
        if judgement.verdict in (Verdict.ANOTHER, Verdict.UNKNOWN):
            return _ask(conn, services, now, target, asked, judgement)
        if judgement.verdict is Verdict.REPLACE:
            removals.extend(remove_replaced(conn, target, asked, by=by))
        return _store(conn, services, now, target, asked, judgement, by=by)

    decided = write_for_sure(
        services.pool,
        put,
        give_up=services.refresher.must_end,
        timeout_s=STORE_TIMEOUT_S,
        monotonic=services.refresher.monotonic,
    )
    services.memory.forget(target)
    for removal in removals:
        ended = disconnect.end_at_rdstation(services, removal)
        if isinstance(decided, Connected):
            decided.warnings.extend(ended.warnings)
    return decided


def drop(services: Services, owner: Owner, pair_id: str) -> str:
    """Forget a parked pair without revoking it; return the account for which it was parked."""
    with transaction(services.pool) as conn:
        pair = waiting_pairs.read(conn, services.keys, owner, pair_id, lock=True)
        if pair is None:
            raise _nothing_waits()
        if pair.access_token is not None:
            waiting_pairs.end(conn, pair_id, pair.account_id, "dropped", shown={})
    return pair.account_id


def waiting(services: Services, owner: Owner, pair_id: str) -> WaitingPair:
    """Return the owner's pair. Raises NotFound or TokenUnreadable."""
    try:
        with transaction(services.pool) as conn:
            pair = waiting_pairs.read(conn, services.keys, owner, pair_id)
    except (KeyMissing, ValueDamaged) as error:
        raise errors.TokenUnreadable(
            message("The stored token cannot be decrypted: %(reason)s."), values={"reason": error}
        ) from error
    if pair is None:
        raise _nothing_waits()
    return pair


def shown(services: Services, owner: Owner, pair_id: str) -> Connected | Question:
    """Return the question about a pair as it was last asked, or the result. Raises what `waiting` raises."""
    return _result(waiting(services, owner, pair_id))


def remove_replaced(
    conn: psycopg.Connection[Any], account_id: str, asked: Asked, *, by: Author
) -> list[Removal]:
    """Disconnect the account that another one replaces, in the caller's transaction."""
    details = {} if asked.new.name is None else {"replaced_by": asked.new.name}
    removal = disconnect.remove(conn, account_id, by=by, **details)
    return [] if removal is None else [removal]


def names_for_audit(asked: Asked, judgement: Judgement) -> dict[str, str]:
    """Return the names of both RD Station accounts for the audit: the new one, and the one that it replaces."""
    names = {} if asked.new.name is None else {"name": asked.new.name}
    if judgement.verdict is Verdict.REPLACE and judgement.was is not None:
        names["replaced"] = judgement.was
    return names


def shared_warnings(conn: psycopg.Connection[Any], account_id: str) -> list[Notice]:
    """Return the warning that other accounts here are connected to the same RD Station account."""
    return notices.same_account(store.others(conn, account_id).used_by)


def _store(
    conn: psycopg.Connection[Any],
    services: Services,
    pair: WaitingPair,
    account_id: str,
    asked: Asked,
    judgement: Judgement,
    *,
    by: Author,
) -> Connected:
    access_token, refresh_token = str(pair.access_token), str(pair.refresh_token)
    untold = judgement.verdict is Verdict.UNTOLD
    audit.record(conn, by, "account_connected", account_id=account_id, **names_for_audit(asked, judgement))
    store.authorize(
        conn,
        services.keys,
        account_id,
        access_token=access_token,
        refresh_token=refresh_token,
        expires_in_s=pair.expires_in_s or 0,
        age_s=pair.age_s or 0.0,
        name=asked.new.name,
        name_due=untold,
        verified=not untold,
        proven=not untold,
    )
    settings = services.settings
    warnings = jwt_claims.warnings(access_token, api_url=settings.api_url, scope=settings.scope)
    if asked.new.name is None:
        warnings.append(notices.name_unknown())
    warnings += shared_warnings(conn, account_id)
    connected = Connected(account_id=account_id, name=asked.new.name, warnings=warnings)
    waiting_pairs.end(conn, pair.pair_id, account_id, "stored", shown=asdict(connected))
    return connected


def _ask(
    conn: psycopg.Connection[Any],
    services: Services,
    pair: WaitingPair,
    account_id: str,
    asked: Asked,
    judgement: Judgement,
) -> Question:
    question = Question(
        pair_id=pair.pair_id,
        account_id=account_id,
        kind="another" if judgement.verdict is Verdict.ANOTHER else "unknown",
        name=asked.new.name,
        was=judgement.was,
        connection_id=str(judgement.connection_id),
    )
    waiting_pairs.ask(
        conn,
        services.keys,
        pair.pair_id,
        account_id,
        access_token=str(pair.access_token),
        refresh_token=str(pair.refresh_token),
        shown=asdict(question),
    )
    return question


def _result(pair: WaitingPair) -> Connected | Question:
    """Return what the row says to a further fetch. Raises RdStationUnavailable or NotFound when it says nothing yet."""
    told: Mapping[str, Any] = pair.shown
    if pair.outcome == "stored":
        return Connected(
            account_id=told["account_id"],
            name=told["name"],
            warnings=[Notice(**warning) for warning in told["warnings"]],
        )
    if pair.outcome == "dropped":
        raise errors.NotFound(
            message("These tokens were not stored: you chose another account. Start the connection again.")
        )
    if not told:
        raise errors.RdStationUnavailable(
            message("RD Station has not responded yet. Load this page again in a moment."), retry_after_s=5
        )
    return Question(**told)


def _nothing_waits() -> errors.NotFound:
    return errors.NotFound(
        message(
            "No tokens wait here for a decision: they were stored or given up, are over an hour old, or arrived in"
            " another session. If the account is not shown as connected, start the connection again."
        )
    )
