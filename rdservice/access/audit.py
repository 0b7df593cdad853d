"""The audit log: who did what, when and from where. Owns `rdservice_audit`, which PostgreSQL keeps append-only.

Each entry is written in the transaction of the action that it records, so no action goes unrecorded. Entries hold no
secret, no lead data and no client address; the router's log has the address, under the same request id.
"""

import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from rdservice.database.pool import transaction

Action = Literal[
    "account_connected",
    "tokens_uploaded",
    "tokens_refreshed",
    "account_disconnected",
    "account_renamed",
    "key_created",
    "key_revoked",
    "operator_created",
    "operator_removed",
    "password_reset",
    "password_changed",
    "logged_in",
    "login_failed",
    "values_encrypted",
    "leads_exported",
    "erasure_begun",
    "person_erased",
    "erasure_reapplied",
    "events_subscribed",
    "events_unsubscribed",
    "notification_tested",
]
ACTIONS: tuple[Action, ...] = get_args(Action)
"""All actions. `tokens_refreshed`: someone requested a refresh; `rdstation_refresh_attempts` holds its outcome."""

Kind = Literal["operator", "key", "command", "unknown"]

FAILED_EVERY_MINUTES = 15
"""Failed log-ins of one operator get one entry in this time, so that guessing cannot fill the table."""
PAGE = 500
"""Entries per query in `every`."""

APPEND = """
INSERT INTO rdservice_audit (action, actor_kind, actor_id, actor_name, origin, request_id, account_id, subject, details)
VALUES (%(action)s, %(kind)s, %(id)s, %(name)s, %(origin)s, %(request_id)s, %(account_id)s, %(subject)s, %(details)s)
RETURNING entry_id
"""
FAILED_LATELY = """
SELECT EXISTS (
    SELECT FROM rdservice_audit
     WHERE happened_at > rd_now() - make_interval(mins => %(minutes)s)
       AND action = 'login_failed' AND subject IS NOT DISTINCT FROM %(subject)s)
"""
NEWEST = """
SELECT entry_id, happened_at, action, actor_kind, actor_id, actor_name, origin, request_id, account_id, subject, details
  FROM rdservice_audit
 WHERE entry_id < COALESCE(%(before)s, 9223372036854775807)
 ORDER BY entry_id DESC LIMIT %(limit)s
"""
PRUNE = """
DELETE FROM rdservice_audit WHERE entry_id = ANY (ARRAY(
    SELECT entry_id FROM rdservice_audit
     WHERE happened_at < rdservice_audit_kept_from() ORDER BY happened_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Who acts, and through which route or command.

    `name` is an operator's e-mail, an API key's name, or the operating-system user of a command. `origin` is a route
    (`POST /rd/tokens`) or a command (`flask keys create`).
    """

    kind: Kind
    id: str | None = None
    name: str | None = field(default=None, repr=False)
    origin: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A stored entry. `details`: the values that `record` was called with."""

    entry_id: int
    happened_at: datetime
    action: str
    actor_kind: Kind
    actor_id: str | None
    actor_name: str | None
    origin: str
    request_id: str | None
    account_id: str | None
    subject: str | None
    details: dict[str, Any]


def command_line(origin: str) -> Author:
    """Return the author of a command's actions: the operating-system user of this process."""
    user = os.geteuid()
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:
        # Containers often run under a user id that has no name.
        name = str(user)
    return Author(kind="command", name=name, origin=origin)


def record(
    conn: psycopg.Connection[Any],
    by: Author,
    action: Action,
    *,
    account_id: str | None = None,
    subject: str | None = None,
    **details: str | int | bool | list[str],
) -> int:
    """Append an entry in the caller's transaction, the one that performs the action; return the entry's number."""
    row = conn.execute(
        APPEND,
        {
            "action": action,
            "kind": by.kind,
            "id": by.id,
            "name": by.name,
            "origin": by.origin,
            "request_id": by.request_id,
            "account_id": account_id,
            "subject": subject,
            "details": Jsonb(details),
        },
    ).fetchone()
    if row is None:
        raise RuntimeError("INSERT … RETURNING returned no row")
    return int(row[0])


def record_failed_login(conn: psycopg.Connection[Any], by: Author, operator_email: str | None) -> None:
    """Record a failed log-in, unless one with the same subject was recorded within 15 minutes.

    `operator_email` is None when no operator has the e-mail that was typed. Such text is never stored: it may be a
    password, or the address of someone unrelated.
    """
    values = {"minutes": FAILED_EVERY_MINUTES, "subject": operator_email}
    if conn.execute(FAILED_LATELY, values).fetchone() == (False,):
        record(conn, by, "login_failed", subject=operator_email)


def newest(conn: psycopg.Connection[Any], *, before: int | None = None, limit: int) -> list[Entry]:
    """Return up to `limit` entries with numbers under `before`, newest first."""
    with conn.cursor(row_factory=class_row(Entry)) as cursor:
        return cursor.execute(NEWEST, {"before": before, "limit": limit}).fetchall()


def every(pool: ConnectionPool[psycopg.Connection[Any]]) -> Iterator[Entry]:
    """Yield all entries, newest first. Reads page by page, each in a short transaction."""
    before = None
    while True:
        with transaction(pool) as conn:
            entries = newest(conn, before=before, limit=PAGE)
        yield from entries
        if len(entries) < PAGE:
            return
        before = entries[-1].entry_id


def prune(conn: psycopg.Connection[Any], *, batch: int = 1000) -> int:
    """Delete up to `batch` entries older than 400 days; return how many were deleted."""
    return conn.execute(PRUNE, {"batch": batch}).rowcount
