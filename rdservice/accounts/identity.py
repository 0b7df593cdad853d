"""Whose tokens arrived? Compares the RD Station account of a new pair with that of the account's connection."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from rdservice.database.pool import transaction
from rdservice.encryption import KeyMissing, ValueDamaged
from rdservice.errors import RdServiceError
from rdservice.events.subscriptions import store as subscriptions
from rdservice.events.subscriptions.remote import Remote
from rdservice.services import Services
from rdservice.tokens import identity
from rdservice.tokens.identity import Told

# The pair that surely belongs to the connection: the row's own, or, while that is not known, the one that it replaced.
KNOWN = """
SELECT t.name, t.connection_id, t.status = 'reauthorization_required' OR t.expires_at <= rd_now() AS dead,
       CASE WHEN t.name_due THEN r.authorization_id ELSE t.authorization_id END AS authorization_id,
       CASE WHEN t.name_due THEN r.access_token ELSE t.access_token END AS access_token
  FROM rdstation_tokens t LEFT JOIN rdstation_replaced_tokens r USING (account_id)
 WHERE account_id = %(account_id)s
"""
LOCK_KNOWN = f"{KNOWN} FOR UPDATE OF t"


class Verdict(StrEnum):
    """Whether a new pair may be stored under an account."""

    SAME = "same"
    """It may: the account has no row, or the pair is of the same RD Station account."""
    REPLACE = "replace"
    """It is of another RD Station account, and somebody has decided to replace exactly this connection."""
    UNTOLD = "untold"
    """It cannot be told, but the account's own pair is refused or has expired: store the pair as unverified."""
    ANOTHER = "another"
    """It is of another RD Station account: ask first."""
    UNKNOWN = "unknown"
    """It cannot be told now, and the account's own pair works: ask again later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """An account's row, as far as it matters here. `dead`: its tokens are refused or have expired."""

    name: str | None = field(repr=False)
    connection_id: UUID
    dead: bool
    authorization_id: UUID | None
    access_token: str | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What RD Station told: of the new pair, and right after it of the stored one (`authorization_id`).

    `unreadable`: the stored pair cannot be decrypted.
    `connection_id`: the account's connection at that moment. `secret_hashes`: of the addresses on this service at which
    RD Station delivers the lead events of the new pair's account.
    """

    new: Told
    stored: Told | None = None
    unreadable: bool = False
    authorization_id: UUID | None = None
    connection_id: UUID | None = None
    secret_hashes: frozenset[bytes] = field(default=frozenset(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict, with the connection and the name of its RD Station account as they are now."""

    verdict: Verdict
    connection_id: UUID | None = None
    was: str | None = field(default=None, repr=False)


def ask(services: Services, account_id: str, access_token: str) -> Asked:
    """Ask RD Station whose the new access token is. Raises the database's errors."""
    with transaction(services.pool) as conn:
        known = _known(conn, KNOWN, account_id)
    new = _ask(services, account_id, access_token)
    stored_token, unreadable = None, False
    if known is not None and known.access_token is not None and not known.dead:
        try:
            stored_token = services.keys.decrypt("access_token", account_id, known.access_token)
        except (KeyMissing, ValueDamaged):
            unreadable = True
    stored = None
    if stored_token is not None and new.kind in ("named", "nameless"):
        # Right after the new one, so that a name that was changed meanwhile is no other account.
        stored = _ask(services, account_id, stored_token)
    asked = Asked(
        new=new,
        stored=stored,
        unreadable=unreadable,
        authorization_id=known.authorization_id if known else None,
        connection_id=known.connection_id if known else None,
    )
    if known is None or new.kind == "refused" or judge(known, asked).verdict is Verdict.SAME:
        return asked
    # The best proof, but only where it is needed: each call counts in RD Station's limits.
    return replace(asked, secret_hashes=_addresses(services, account_id, access_token))


def judge_locked(
    conn: psycopg.Connection[Any], account_id: str, asked: Asked, *, confirmed: UUID | None = None
) -> Judgement:
    """Judge against the row as it is now, and keep it locked. Needs `store.lock_account` before, for accounts without.

    `confirmed`: the connection that somebody has decided to replace.
    """
    known = _known(conn, LOCK_KNOWN, account_id)
    if known is None:
        return Judgement(verdict=Verdict.SAME)
    if subscriptions.delivers(conn, account_id, known.connection_id, asked.secret_hashes):
        return Judgement(verdict=Verdict.SAME, connection_id=known.connection_id, was=known.name)
    return judge(known, asked, confirmed=confirmed)


def judge(known: Known, asked: Asked, *, confirmed: UUID | None = None) -> Judgement:
    """Judge by names alone."""
    was = known.name
    unchanged = asked.authorization_id == known.authorization_id
    stored = asked.stored if unchanged else None
    # A pair that nobody can decrypt is lost too, and a person must be able to connect the account again.
    dead = known.dead or (asked.unreadable and unchanged)
    if stored is not None and stored.name is not None:
        # The RD Station account may have another name than before.
        was = stored.name
    if asked.new.name is not None and was is not None:
        same = asked.new.name == was
        verdict = Verdict.SAME if same else Verdict.ANOTHER
    elif asked.new.kind == "nameless" and stored is not None and stored.kind == "nameless":
        verdict = Verdict.SAME
    elif asked.new.name is not None and dead:
        # There is nothing left with which the name could ever be compared.
        verdict = Verdict.SAME
    else:
        verdict = Verdict.UNTOLD if dead else Verdict.UNKNOWN
    if verdict is not Verdict.SAME and confirmed == known.connection_id:
        verdict = Verdict.REPLACE
    return Judgement(verdict=verdict, connection_id=known.connection_id, was=was)


def _known(conn: psycopg.Connection[Any], query: str, account_id: str) -> Known | None:
    with conn.cursor(row_factory=class_row(Known)) as cur:
        return cur.execute(query.encode(), {"account_id": account_id}).fetchone()


def _ask(services: Services, account_id: str, access_token: str) -> Told:
    services.rate_budget.count(account_id)
    return identity.ask(services.rdstation, access_token)


def _addresses(services: Services, account_id: str, access_token: str) -> frozenset[bytes]:
    """Return the hashes of the secrets in the addresses to which the token's account delivers its lead events."""
    with transaction(services.pool) as conn:
        if not subscriptions.list_all(conn, account_id):
            return frozenset()

    services.rate_budget.count(account_id)
    try:
        hooks = Remote.with_token(services, access_token).list()
    except RdServiceError:
        return frozenset()
    return frozenset(hook.secret_hash for hook in hooks)
