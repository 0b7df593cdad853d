"""The state that survives a restart and a kill -9: one SQLite file, readable by its owner only.

Every response is sent after its commit. In WAL mode a commit reaches the operating system at once, so the death of the
process loses nothing; `synchronous=NORMAL` avoids waiting for the disk, which matters only in a power failure.
Callers must hold the sandbox's lock, since all threads share the connection.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS codes (
    digest BLOB PRIMARY KEY, account TEXT NOT NULL, issued_at REAL NOT NULL, dead INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS grants (
    id INTEGER PRIMARY KEY, account TEXT NOT NULL, generation INTEGER NOT NULL DEFAULT 1,
    revoked INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS grants_of_account ON grants (account);
CREATE TABLE IF NOT EXISTS refresh_tokens (digest BLOB PRIMARY KEY, grant_id INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS webhooks (
    uuid TEXT PRIMARY KEY, account TEXT NOT NULL, position INTEGER NOT NULL, body TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS contacts (
    account TEXT NOT NULL, uuid TEXT NOT NULL, position INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (account, uuid)
) WITHOUT ROWID;
"""
FORGET = """
DELETE FROM meta; DELETE FROM codes; DELETE FROM grants; DELETE FROM refresh_tokens; DELETE FROM webhooks;
DELETE FROM contacts;
"""


class StateInUse(Exception):
    """Another sandbox has the state file open."""


@dataclass(frozen=True, slots=True)
class Grant:
    """An authorization of an account. `generation` counts its refreshes, from 1."""

    id: int
    account: str
    generation: int
    revoked: bool


@dataclass(frozen=True, slots=True)
class Code:
    account: str
    issued_at: float
    dead: bool


def digest(secret: str) -> bytes:
    """Return the hash that is stored instead of a code or refresh token."""
    return sha256(secret.encode()).digest()


class Store:
    """The tables. `path` None keeps them in memory."""

    def __init__(self, path: Path | None) -> None:
        if path is not None:
            _make_private(path)
        self._db = sqlite3.connect(
            path or ":memory:", isolation_level=None, check_same_thread=False, timeout=1
        )
        try:
            # Exclusive: no other process may write to it, and the WAL index needs no shared memory.
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(SCHEMA)
        except sqlite3.OperationalError as error:
            self._db.close()
            if "locked" in str(error):
                raise StateInUse(str(path)) from error
            raise
        self.signing_key = self._signing_key()

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run all statements inside in one transaction."""
        self._db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def forget_everything(self) -> None:
        """Empty the store; the new signing key invalidates all access tokens."""
        with self.transaction():
            for statement in FORGET.split(";")[:-1]:
                self._db.execute(statement)
            self.signing_key = self._signing_key()

    def _signing_key(self) -> str:
        key = self.load("signing_key")
        if key is None:
            key = secrets.token_hex(32)
            self.save("signing_key", key)
        return str(key)

    def load(self, name: str) -> Any:
        """Return the JSON value saved under `name`, or None."""
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else None

    def save(self, name: str, value: Any) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, json.dumps(value)))

    def add_code(self, code: str, account: str, issued_at: float) -> None:
        self._db.execute(
            "INSERT INTO codes (digest, account, issued_at) VALUES (?, ?, ?)",
            (digest(code), account, issued_at),
        )

    def find_code(self, code: str) -> Code | None:
        row = self._db.execute(
            "SELECT account, issued_at, dead FROM codes WHERE digest = ?", (digest(code),)
        ).fetchone()
        return Code(row[0], row[1], bool(row[2])) if row else None

    def end_code(self, code: str) -> None:
        self._db.execute("UPDATE codes SET dead = 1 WHERE digest = ?", (digest(code),))

    def add_grant(self, account: str, refresh_token: str) -> Grant:
        row = self._db.execute("INSERT INTO grants (account) VALUES (?) RETURNING id", (account,)).fetchone()
        grant_id: int = row[0]
        self._db.execute("INSERT INTO refresh_tokens VALUES (?, ?)", (digest(refresh_token), grant_id))
        return Grant(grant_id, account, 1, False)

    def find_grant(self, grant_id: int) -> Grant | None:
        row = self._db.execute(
            "SELECT id, account, generation, revoked FROM grants WHERE id = ?", (grant_id,)
        ).fetchone()
        return Grant(row[0], row[1], row[2], bool(row[3])) if row else None

    def grant_of_refresh_token(self, refresh_token: str) -> Grant | None:
        row = self._db.execute(
            "SELECT g.id, g.account, g.generation, g.revoked FROM refresh_tokens r JOIN grants g ON g.id = r.grant_id"
            " WHERE r.digest = ?",
            (digest(refresh_token),),
        ).fetchone()
        return Grant(row[0], row[1], row[2], bool(row[3])) if row else None

    def advance(self, grant: Grant) -> Grant:
        """Count a refresh of the grant; return the grant."""
        self._db.execute("UPDATE grants SET generation = generation + 1 WHERE id = ?", (grant.id,))
        return Grant(grant.id, grant.account, grant.generation + 1, grant.revoked)

    def rotate(self, grant: Grant, used: str, new: str) -> None:
        """Replace the refresh token `used` with `new`."""
        self._db.execute("DELETE FROM refresh_tokens WHERE digest = ?", (digest(used),))
        self._db.execute("INSERT INTO refresh_tokens VALUES (?, ?)", (digest(new), grant.id))

    def revoke_grant(self, grant_id: int) -> None:
        self._db.execute("UPDATE grants SET revoked = 1 WHERE id = ?", (grant_id,))

    def revoke_account(self, account: str) -> int:
        """Revoke all grants and unused codes of the account; return the number of grants revoked."""
        with self.transaction():
            self._db.execute("UPDATE codes SET dead = 1 WHERE account = ?", (account,))
            cursor = self._db.execute(
                "UPDATE grants SET revoked = 1 WHERE account = ? AND NOT revoked", (account,)
            )
        return cursor.rowcount

    def webhooks(self, account: str) -> dict[str, dict[str, Any]]:
        """Return the account's subscriptions by UUID, oldest first."""
        rows = self._db.execute(
            "SELECT uuid, body FROM webhooks WHERE account = ? ORDER BY position", (account,)
        )
        return {uuid: json.loads(body) for uuid, body in rows}

    def save_webhook(self, account: str, uuid: str, body: dict[str, Any]) -> None:
        self._db.execute(
            "INSERT INTO webhooks SELECT ?, ?, coalesce(max(position), 0) + 1, ? FROM webhooks WHERE true"
            " ON CONFLICT (uuid) DO UPDATE SET body = excluded.body",
            (uuid, account, json.dumps(body)),
        )

    def delete_webhook(self, uuid: str) -> None:
        self._db.execute("DELETE FROM webhooks WHERE uuid = ?", (uuid,))

    def contacts(self, account: str) -> list[dict[str, Any]]:
        """Return the account's changed and created contacts, in the order of their first change."""
        rows = self._db.execute("SELECT body FROM contacts WHERE account = ? ORDER BY position", (account,))
        return [json.loads(body) for (body,) in rows]

    def save_contact(self, account: str, uuid: str, body: dict[str, Any]) -> None:
        self._db.execute(
            "INSERT INTO contacts SELECT ?, ?, coalesce(max(position), 0) + 1, ? FROM contacts WHERE account = ?"
            " ON CONFLICT (account, uuid) DO UPDATE SET body = excluded.body",
            (account, uuid, json.dumps(body), account),
        )


def _make_private(path: Path) -> None:
    """Create the file with mode 600 before SQLite does: its journals copy the mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    path.chmod(0o600)
