"""Changes an older `rdstation_tokens` into one that the first migration can complete, and says what it guessed."""

import re
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from rdservice.database.older_table import checks
from rdservice.database.older_table.checks import CannotAdopt, Sentence
from rdservice.names import account_in_logs
from rdservice.text.catalogue import message

MOST_NAMED = 20
"""Of many accounts only so many are named in a sentence."""

KIND = "SELECT relkind FROM pg_class WHERE oid = to_regclass('rdstation_tokens')"
RELATIVES = """
SELECT EXISTS (SELECT FROM pg_inherits WHERE 'rdstation_tokens'::regclass IN (inhrelid, inhparent))
    OR EXISTS (SELECT FROM pg_rewrite WHERE ev_class = 'rdstation_tokens'::regclass)
"""

# Reads an expiry in whatever form an older backend kept it: a date, with or without an offset from UTC, or the time
# since 1970 in seconds, milli-, micro- or nanoseconds. What cannot be read is NULL.
MOMENT: LiteralString = """
CREATE FUNCTION pg_temp.moment(written text) RETURNS timestamptz LANGUAGE plpgsql SET timezone = 'UTC' AS $function$
DECLARE
    epoch numeric;
    found timestamptz;
BEGIN
    IF written ~ '^[0-9]+([.][0-9]+)?(e[+]?[0-9]+)?$' THEN
        epoch := written::numeric;
        found := to_timestamp((epoch / CASE WHEN epoch > 1e17 THEN 1e9 WHEN epoch > 1e14 THEN 1e6
                                            WHEN epoch > 1e11 THEN 1e3 ELSE 1 END)::double precision);
    ELSE
        found := written::timestamptz;
    END IF;
    RETURN CASE WHEN found BETWEEN '1970-01-01' AND '9999-12-31' THEN found END;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END $function$;
"""
UNREADABLE_EXPIRY = """
SELECT EXISTS (SELECT FROM rdstation_tokens
                WHERE btrim(expires_at::text) <> '' AND pg_temp.moment(expires_at::text) IS NULL)
"""

# Any column of the older backend must accept rows that do not name it.
OBSTACLES = """
SELECT format('ALTER TABLE rdstation_tokens DROP CONSTRAINT %I', conname) FROM pg_constraint
 WHERE conrelid = 'rdstation_tokens'::regclass AND contype IN ('p', 'c', 'u', 'x', 'f')
UNION ALL
SELECT format('DROP INDEX IF EXISTS %s', indexrelid::regclass) FROM pg_index
 WHERE indrelid = 'rdstation_tokens'::regclass AND indisunique
   AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
UNION ALL
SELECT format('ALTER TABLE rdstation_tokens ALTER COLUMN %I DROP NOT NULL', attname) FROM pg_attribute
 WHERE attrelid = 'rdstation_tokens'::regclass AND attnum > 0 AND NOT attisdropped AND attnotnull
   AND (attidentity = '' OR attname = ANY ('{account_id,access_token,refresh_token,expires_at}'))
"""

# The older backend's triggers may read columns that are renamed, until migrations add others of these names.
TRIGGERS = """
SELECT format('ALTER TABLE rdstation_tokens DISABLE TRIGGER %I', tgname),
       format('ALTER TABLE rdstation_tokens ENABLE %s TRIGGER %I', CASE tgenabled WHEN 'A' THEN 'ALWAYS' END, tgname)
  FROM pg_trigger
 WHERE tgrelid = 'rdstation_tokens'::regclass AND NOT tgisinternal AND tgenabled IN ('O', 'A')
"""

SURROUNDED = "SELECT count(*) FROM rdstation_tokens WHERE btrim(account_id) NOT IN ('', account_id)"
COMPLETE = """
ALTER TABLE rdstation_tokens
    ADD COLUMN IF NOT EXISTS account_id text,
    ADD COLUMN IF NOT EXISTS access_token text,
    ADD COLUMN IF NOT EXISTS refresh_token text,
    ADD COLUMN IF NOT EXISTS expires_at timestamptz;
UPDATE rdstation_tokens
   SET account_id = NULLIF(btrim(account_id), ''),
       access_token = COALESCE(access_token, ''),
       refresh_token = COALESCE(refresh_token, ''),
       expires_at = CASE WHEN COALESCE(access_token, '') = '' THEN now() ELSE COALESCE(expires_at, now()) END
"""
MERGE = """
DELETE FROM rdstation_tokens a USING rdstation_tokens b
 WHERE a.account_id = b.account_id AND a.access_token = b.access_token AND a.refresh_token = b.refresh_token
   AND a.access_token <> '' AND a.refresh_token <> '' AND (a.expires_at, a.ctid) < (b.expires_at, b.ctid)
"""
# All rows of an account but the one that lasts longest, of those that can be refreshed; and the one without an ID.
FURTHER_ROWS = """
SELECT row_id, account_id
  FROM (SELECT ctid AS row_id, account_id, expires_at,
               row_number() OVER (PARTITION BY account_id ORDER BY (refresh_token <> '') DESC, expires_at DESC) AS place
          FROM rdstation_tokens) ranked
 WHERE place > 1 OR account_id IS NULL
 ORDER BY account_id NULLS LAST, place
"""


def adopt(conn: psycopg.Connection[Any], ours: set[str]) -> list[Sentence]:
    """Prepare an older table, if there is one, for the first migration; return what was renamed or guessed.

    `ours` are the columns that migrations add: columns of the older backend with these names get others. Runs in the
    caller's transaction. Raises CannotAdopt, whereupon the caller must roll back.
    """
    kind = conn.execute(KIND).fetchone()
    if kind is None:
        return []
    if kind[0] not in ("r", b"r"):
        _refuse_kind()
    conn.execute("LOCK TABLE rdstation_tokens IN ACCESS EXCLUSIVE MODE")
    if conn.execute(RELATIVES).fetchone() == (True,):
        _refuse_kind()
    checks.check(conn)
    triggers = conn.execute(TRIGGERS).fetchall()
    for disable, _ in triggers:
        conn.execute(disable.encode())
    conn.execute(MOMENT)
    said = _rename_columns(conn, ours)
    for (statement,) in conn.execute(OBSTACLES).fetchall():
        conn.execute(statement.encode())
    _convert(conn)
    conn.execute("DROP FUNCTION pg_temp.moment(text)")
    said += _spaces(conn)
    conn.execute(COMPLETE)
    said += _merge(conn) + _rename_rows(conn)
    for _, enable in triggers:
        conn.execute(enable.encode())
    return said


def _refuse_kind() -> None:
    text = message(
        "It is not an ordinary table: it is a view, or has partitions, parent tables or rules. Keep it under another"
        " name, and copy its rows into a table rdstation_tokens, for example with:"
    )
    raise CannotAdopt(
        Sentence(text, {}),
        [
            "ALTER TABLE rdstation_tokens RENAME TO older_rdstation_tokens;",
            "CREATE TABLE rdstation_tokens AS SELECT * FROM older_rdstation_tokens;",
        ],
    )


def _rename_columns(conn: psycopg.Connection[Any], ours: set[str]) -> list[Sentence]:
    """Give columns that share a name with ours, but not a meaning, another name."""
    found = checks.columns(conn)
    renamed = {name: _free(f"legacy_{name}", {*found, *ours}, "_") for name in found if name in ours}
    if "expires_at" in found and conn.execute(UNREADABLE_EXPIRY).fetchone() == (True,):
        renamed["expires_at"] = _free("legacy_expires_at", {*found, *ours}, "_")
    for old, new in renamed.items():
        conn.execute(
            sql.SQL("ALTER TABLE rdstation_tokens RENAME COLUMN {} TO {}").format(
                sql.Identifier(old), sql.Identifier(new)
            )
        )
    if "expires_at" in renamed:
        conn.execute("ALTER TABLE rdstation_tokens ADD COLUMN expires_at timestamptz")
        conn.execute(
            sql.SQL("UPDATE rdstation_tokens SET expires_at = pg_temp.moment({}::text)").format(
                sql.Identifier(renamed["expires_at"])
            )
        )
    if not renamed:
        return []
    names = ", ".join(f"{old} → {new}" for old, new in renamed.items())
    return [Sentence(message("Renamed columns of the older backend: %(columns)s."), {"columns": names})]


def _convert(conn: psycopg.Connection[Any]) -> None:
    found = checks.columns(conn)
    for name in (name for name in checks.DOCUMENTED if name in found):
        conn.execute(
            sql.SQL(
                "ALTER TABLE rdstation_tokens ALTER COLUMN {0} DROP IDENTITY IF EXISTS,"
                " ALTER COLUMN {0} DROP EXPRESSION IF EXISTS, ALTER COLUMN {0} DROP DEFAULT"
            ).format(sql.Identifier(name))
        )
        form = (
            "timestamptz USING pg_temp.moment(expires_at::text)"
            if name == "expires_at"
            else f"text USING {name}::text"
        )
        conn.execute(f"ALTER TABLE rdstation_tokens ALTER COLUMN {name} TYPE {form}".encode())


def _spaces(conn: psycopg.Connection[Any]) -> list[Sentence]:
    if "account_id" not in checks.columns(conn):
        return []
    row = conn.execute(SURROUNDED).fetchone()
    text = message("Removed spaces around values of account_id: %(count)s.")
    return [Sentence(text, {"count": row[0]})] if row is not None and row[0] else []


def _merge(conn: psycopg.Connection[Any]) -> list[Sentence]:
    merged = conn.execute(MERGE).rowcount
    text = message("Rows removed because another has the same account_id and the same tokens: %(count)s.")
    return [Sentence(text, {"count": merged})] if merged else []


def _rename_rows(conn: psycopg.Connection[Any]) -> list[Sentence]:
    """Give each row an account ID of its own."""
    taken = {name for (name,) in conn.execute("SELECT DISTINCT account_id FROM rdstation_tokens").fetchall()}
    said: list[Sentence] = []
    renamed: list[str] = []
    for row_id, account_id in conn.execute(FURTHER_ROWS).fetchall():
        new = _free(account_id or "default", taken, "~")
        taken.add(new)
        conn.execute("UPDATE rdstation_tokens SET account_id = %s WHERE ctid = %s", [new, row_id])
        if account_id is None:
            text = message("The one row without an account_id became the account %(account)s.")
            said.append(Sentence(text, {"account": repr(new)}))
        else:
            renamed.append(f"{account_in_logs(account_id)} → {account_in_logs(new)}")
    if renamed:
        names = ", ".join(renamed[:MOST_NAMED]) + (", …" if len(renamed) > MOST_NAMED else "")
        text = message(
            "Rows of one account with different tokens: the one that lasts longest kept the account_id, the others got"
            " new ones: %(names)s."
        )
        said.append(Sentence(text, {"names": names}))
    return said


def _free(name: str, taken: set[str], separator: str) -> str:
    """Return `name`, or if it is taken the first of `name~2`, `name~3`, ... that is not."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}{separator}{number}"
    return free


def added_columns(scripts: list[str]) -> set[str]:
    """Return the columns that migrations add to `rdstation_tokens`."""
    return {
        name
        for script in scripts
        for statement in script.split(";")
        if re.search(r"^ALTER TABLE rdstation_tokens\b", statement, re.MULTILINE)
        for name in re.findall(r"ADD COLUMN (?:IF NOT EXISTS )?(\w+)", statement)
    }
