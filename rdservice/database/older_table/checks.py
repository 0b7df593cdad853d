"""What stands in the way of adopting an older `rdstation_tokens`, and the SQL that clears it away.

A wrong guess would mix up accounts or present garbage as a token, so whatever is in doubt is refused.
"""

import re
import unicodedata
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import sql

from rdservice.text.catalogue import message

NOT_PLAIN = (
    # Neither a JWT nor any token of RFC 6750 (b64token) has other characters: no "Bearer ...", JSON, $argon2..., \x...
    "[^A-Za-z0-9._~+/=-]"
    # Padded base64 is what other systems encrypted, unless it has the form of this service.
    "|^(?![0-9a-f]{8}[.]gAAAA).*="
    # Base64 of all 64 characters; Fernet; OpenSSL and CryptoJS; AWS KMS; JSON in base64, such as Laravel's.
    "|^[A-Za-z0-9+/]*[+/][A-Za-z0-9+/]*$|^gAAAA|^U2FsdGVkX1|^AQICAH|^eyJ[A-Za-z0-9_-]*$"
    # The words for nothing, written by mistake.
    "|^([Nn]one|NONE|[Nn]ull|NULL|nil|undefined)$"
)
"""Regular expression of PostgreSQL for a text that cannot be a plain token, or is encrypted elsewhere."""
LONGEST_WITHOUT_DOT = 255
"""A JWT has dots, and opaque tokens are short; longer ones are encrypted or encoded JWTs."""

DOCUMENTED = ("account_id", "access_token", "refresh_token", "expires_at")
TOKENS = ("access_token", "refresh_token")
OURS = "(rd|rdstation|oauth2?|auth|api)*"
WHOM = (
    "(account|conta|tenant|user|usuario|company|empresa|organi[sz]ation|organizacao|org|customer|cliente|workspace"
    "|store|loja|unidade|owner|portal|email|cnpj|slug|alias)"
)
OTHER_NAMES = {
    "account_id": f"{OURS}(id|cod|codigo)?(d[aeo])?{WHOM}(id|key|slug|name|code|identifier|uuid)?",
    "access_token": f"{OURS}(token|jwt|bearer)?(de)?(access|acesso|token|jwt|bearer|accesstoken)(value|text)?",
    "refresh_token": f"{OURS}(token)?(de)?(refresh|renovacao|atualizacao)(token|value|text)?",
    "expires_at": (
        f"{OURS}(access)?(token)?(expires?|expiry|expiration|expira|expiracao|validuntil|validade|vencimento|venceem)"
        "(at|on|date|time|datetime|timestamp|em)*"
    ),
}
"""Regular expressions of other names of the documented columns, in lower case without accents and separators."""
TYPES_WITHOUT_TOKENS = "DTNBG"
"""Categories of PostgreSQL's types (pg_type.typcategory) of moments, spans, numbers, booleans and geometry."""

COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod), typcategory
  FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
 WHERE attrelid = 'rdstation_tokens'::regclass AND attnum > 0 AND NOT attisdropped
 ORDER BY attnum
"""
# What would break, or stop the adoption: views of the documented columns, and foreign keys of other tables.
DEPENDENTS = """
SELECT DISTINCT CASE view.relkind WHEN 'm' THEN 'MATERIALIZED VIEW ' ELSE 'VIEW ' END || view.oid::regclass,
       format('DROP %%s %%s;', CASE view.relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'VIEW' END, view.oid::regclass)
  FROM pg_depend JOIN pg_rewrite ON classid = 'pg_rewrite'::regclass AND objid = pg_rewrite.oid
       JOIN pg_class view ON view.oid = ev_class AND view.relkind IN ('v', 'm')
       JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
 WHERE refobjid = 'rdstation_tokens'::regclass AND attname = ANY (%(documented)s)
UNION ALL
SELECT 'FOREIGN KEY ' || conname || ' ON ' || conrelid::regclass,
       format('ALTER TABLE %%s DROP CONSTRAINT %%I;', conrelid::regclass, conname)
  FROM pg_constraint
 WHERE contype = 'f' AND confrelid = 'rdstation_tokens'::regclass AND conrelid <> confrelid AND conparentid = 0
 ORDER BY 1
"""
FROM_ANOTHER_COLUMN: LiteralString = "UPDATE rdstation_tokens SET account_id = {source}::text WHERE {where};"
BY_NUMBERS: LiteralString = (
    "UPDATE rdstation_tokens SET account_id = 'account-' || number FROM (SELECT ctid AS row, row_number() OVER () AS"
    " number FROM rdstation_tokens WHERE {where}) numbered WHERE rdstation_tokens.ctid = numbered.row;"
)
CONVERSIONS = {
    "bytea": "convert_from({column}, 'UTF8')",
    "json": "{column} #>> '{{}}'",
    "jsonb": "{column} #>> '{{}}'",
}
"""SQL that reads text out of other types."""


class Sentence(NamedTuple):
    """A sentence of the catalogue, and the values of its placeholders."""

    text: str
    values: dict[str, object]


class CannotAdopt(Exception):
    """The table stays as it is. `statements` is SQL that clears the obstacle away."""

    def __init__(self, sentence: Sentence, statements: list[str]) -> None:
        super().__init__(sentence.text % sentence.values)
        self.sentence = sentence
        self.statements = statements


class Column(NamedTuple):
    name: str
    type: str
    category: str


def columns(conn: psycopg.Connection[Any]) -> dict[str, Column]:
    return {row[0]: Column(*row) for row in conn.execute(COLUMNS).fetchall()}


def check(conn: psycopg.Connection[Any]) -> None:
    """Return if the table can be adopted without a guess that could be wrong; otherwise raise CannotAdopt."""
    _check_dependents(conn)
    if conn.execute("SELECT EXISTS (SELECT FROM rdstation_tokens)").fetchone() == (False,):
        return
    found = columns(conn)
    _check_names(found)
    _check_types(found)
    _check_values(conn, found)
    _check_account_ids(conn, found)


def _check_dependents(conn: psycopg.Connection[Any]) -> None:
    dependents = conn.execute(DEPENDENTS, {"documented": list(DOCUMENTED)}).fetchall()
    if dependents:
        text = message(
            "These use its columns and would stop the change: %(objects)s. Save their definitions, then run the"
            " following, which deletes no row of a table:"
        )
        names = ", ".join(name for name, _ in dependents)
        raise CannotAdopt(Sentence(text, {"objects": names}), [statement for _, statement in dependents])


def _check_names(found: dict[str, Column]) -> None:
    """Refuse columns that seem to be documented ones under other names."""
    alike = {name: _named_alike(name, found) for name in DOCUMENTED if name not in found}
    statements: list[str] = []
    for name, candidates in alike.items():
        for place, candidate in enumerate(candidates):
            statements.append(("-- " if place else "") + _renaming(candidate, name))
    if not any(name in found or alike.get(name) for name in TOKENS):
        statements += [f"-- {_renaming('...', name)}" for name in TOKENS]
    if statements:
        text = message(
            "Its columns are %(columns)s, but this service reads account_id, access_token, refresh_token and"
            " expires_at. Rename those that have other names; where two of them may be meant, choose:"
        )
        raise CannotAdopt(Sentence(text, {"columns": ", ".join(found)}), statements)


def _check_types(found: dict[str, Column]) -> None:
    for name in ("account_id", *TOKENS):
        column = found.get(name)
        if column is None or column.category == "S":
            continue
        if name == "account_id" and (column.category == "N" or column.type == "uuid"):
            continue
        text = message(
            "Its column %(column)s has the type %(type)s, and this service reads text only. If it holds plain text,"
            " convert it, for example with:"
        )
        form = CONVERSIONS.get(column.type, "{column}::text").format(column=name)
        raise CannotAdopt(
            Sentence(text, {"column": name, "type": column.type}),
            [f"ALTER TABLE rdstation_tokens ALTER COLUMN {name} TYPE text USING {form};"],
        )


def _check_values(conn: psycopg.Connection[Any], found: dict[str, Column]) -> None:
    for name in (name for name in TOKENS if name in found):
        query = f"SELECT count(*) FROM rdstation_tokens WHERE {not_plain(name)}"  # noqa: S608 - a documented name
        row = conn.execute(query.encode(), {"not_plain": NOT_PLAIN}).fetchone()
        if row is not None and row[0]:
            text = message(
                "Values in its column %(column)s that are not plain tokens of RD Station: %(count)s. Another program"
                " encrypted them, or they have more than the token in them. Replace them with the plain tokens. Or"
                " keep the table under another name, repeat, and upload each pair of tokens or connect the accounts:"
            )
            raise CannotAdopt(
                Sentence(text, {"column": name, "count": row[0]}),
                ["ALTER TABLE rdstation_tokens RENAME TO older_rdstation_tokens;"],
            )


def not_plain(column: str) -> str:
    """Return SQL that is true where the text of `column` is no plain token; `not_plain` is the parameter NOT_PLAIN."""
    text = f"{column}::text"
    return f"({text} ~ %(not_plain)s OR (length({text}) > {LONGEST_WITHOUT_DOT} AND strpos({text}, '.') = 0))"


def _check_account_ids(conn: psycopg.Connection[Any], found: dict[str, Column]) -> None:
    """Refuse several rows without an account ID, and one whose ID may be in another column."""
    exists = "account_id" in found
    where: LiteralString = "btrim(account_id::text) = '' OR account_id IS NULL" if exists else "true"
    row = conn.execute(
        sql.SQL("SELECT count(*) FROM rdstation_tokens WHERE {}").format(sql.SQL(where))
    ).fetchone()
    count = 0 if row is None else row[0]
    sources = [name for name in _named_alike("account_id", found) if name not in DOCUMENTED]
    if count == 0 or (count == 1 and not sources):
        return
    text = message(
        "Rows without an account_id: %(count)s. Only you know which accounts these are. Give each an account_id of its"
        " own, for example with:"
    )
    statements = [] if exists else ["ALTER TABLE rdstation_tokens ADD COLUMN account_id text;"]
    if exists and found["account_id"].category != "S":
        statements.append(
            "ALTER TABLE rdstation_tokens ALTER COLUMN account_id TYPE text USING account_id::text;"
        )
    update = sql.SQL(FROM_ANOTHER_COLUMN if sources else BY_NUMBERS)
    source = sql.Identifier([*sources, "account_id"][0])
    statements.append(update.format(where=sql.SQL(where), source=source).as_string())
    raise CannotAdopt(Sentence(text, {"count": count}), statements)


def _named_alike(documented: str, found: dict[str, Column]) -> list[str]:
    pattern = re.compile(OTHER_NAMES[documented])
    return [
        column.name
        for column in found.values()
        if column.name not in DOCUMENTED
        and pattern.fullmatch(_plain(column.name))
        and not (documented in TOKENS and column.category in TYPES_WITHOUT_TOKENS)
    ]


def _plain(name: str) -> str:
    """Return a column's name in lower-case letters and digits only."""
    return re.sub("[^a-z0-9]", "", unicodedata.normalize("NFKD", name).lower())


def _renaming(name: str, documented: str) -> str:
    column = "..." if name == "..." else sql.Identifier(name).as_string()
    return f"ALTER TABLE rdstation_tokens RENAME COLUMN {column} TO {documented};"
